"""fit at the edges: arrays on disk, lazy data sets, loggers, half precision, warm starts, several budgets."""

import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch.utils.data import Dataset

import diffeo
from diffeo.errors import ConfigError, DataError, InputError, ShapeError
from diffeo.training import run as runs
from diffeo.training.recipe import recipe
from diffeo.training.rows import Rows, Stream

QUIET = {"progress": False, "batch_size": 32}


def flow(**hyper):
    torch.manual_seed(0)
    return diffeo.zoo.build("realnvp", (2,), size="tiny", **hyper)


def gaussian(n=200):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1)) * 2 + 3


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_an_array_on_disk_is_neither_copied_nor_converted_as_a_whole(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, gaussian().double().numpy())
    mapped = np.load(path, mmap_mode="r")
    rows = Rows(mapped)
    assert rows.x.data_ptr() == mapped.ctypes.data
    assert rows[torch.tensor([3, 1])][0].dtype == torch.float32
    model, other = flow(), flow()
    diffeo.fit(model, mapped, steps=5, **QUIET)
    diffeo.fit(other, gaussian(), steps=5, **QUIET)
    assert torch.equal(weights(model), weights(other))


def test_rows_that_are_not_finite_are_found_in_chunks(monkeypatch):
    from diffeo.training import rows

    monkeypatch.setattr(rows, "CHUNK", 8)
    x = gaussian(50)
    x[17, 1] = math.nan
    x[40, 0] = math.inf
    with pytest.raises(InputError, match="2 of 50 rows hold NaN or infinite values, first row 17"):
        Rows(x)


def test_a_data_set_is_read_item_by_item():
    class Counted(Dataset):
        seen: ClassVar[set] = set()

        def __len__(self):
            return 10**6

        def __getitem__(self, i):
            self.seen.add(i)
            return torch.tensor([float(i), 1.0]) / 1e6

    diffeo.fit(flow(), Counted(), steps=2, initialize_rows=16, **QUIET)
    assert 64 <= len(Counted.seen) < 200


@pytest.mark.parametrize(("shape", "most"), [((2,), 4096), ((1, 2, 2), 256)])
def test_layers_are_initialized_on_fewer_pictures_than_vectors(shape, most, monkeypatch):
    model = diffeo.zoo.build("glow", shape, size="tiny", levels=None)
    seen = []
    monkeypatch.setattr(model, "initialize", lambda x, context: seen.append(len(x)))
    x = torch.randn(5000, *shape)
    diffeo.fit(model, x, steps=1, **QUIET)
    diffeo.fit(model, x, steps=1, initialize_rows=300, **QUIET)
    diffeo.fit(model, x[:200], steps=1, **QUIET)
    assert seen == [most, 300, 200]


def test_the_stream_goes_on_from_any_step():
    rows = Rows(torch.arange(10.0)[:, None])
    whole = Stream(rows, 4, seed=3)
    batches = [b for b, _ in zip(whole, range(9), strict=False)]
    assert [b.step for b in batches] == list(range(9))
    for start in range(7):
        later = Stream(rows, 4, seed=3, start=start)
        for mine, theirs in zip(later, batches[start:], strict=False):
            assert mine.step == theirs.step
            assert torch.equal(mine.x, theirs.x)
    epochs = [torch.cat([b.x for b in batches[i : i + 3]]).flatten() for i in (0, 3, 6)]
    assert all(sorted(e.tolist()) == list(range(10)) for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])


class Memory(Logger):
    """A logger of Lightning by class path."""

    lines: ClassVar[list] = []

    def __init__(self, word):
        super().__init__()
        self.word = word

    @property
    def name(self):
        return self.word

    @property
    def version(self):
        return ""

    def log_metrics(self, metrics, step=None):
        self.lines.append((self.word, step, sorted(metrics)))

    def log_hyperparams(self, params):
        pass


def test_loggers_by_configuration(tmp_path):
    path = f"{__name__}.Memory"
    loggers = ["csv", "tensorboard", {path: {"word": "mine"}}]
    diffeo.fit(flow(), gaussian(), steps=20, folder=tmp_path, loggers=loggers, **QUIET)
    assert ("mine", 10, ["lr", "seconds", "train"]) in Memory.lines
    assert list((tmp_path / "tensorboard").glob("events.*"))
    header, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header == "step,train,validation,lr,seconds"
    assert [line.split(",")[0] for line in lines] == ["10", "20"]


@pytest.mark.parametrize(
    ("loggers", "words"),
    [
        (["tensorbord"], "tensorbord"),
        ([{"no.such.Logger": {}}], "no.such.Logger"),
        ([{"math.sqrt": {}}], "no logger of Lightning"),
        ([{"lightning.pytorch.loggers.CSVLogger": {"wrong": 1}}], "cannot be made"),
    ],
)
def test_loggers_that_do_not_exist(loggers, words):
    with pytest.raises(ConfigError, match=words):
        diffeo.fit(flow(), gaussian(), steps=1, loggers=loggers, **QUIET)


def test_bf16_trains_within_a_budget_of_float32():
    """0.05 nats of the test likelihood after 150 steps, on two moons."""
    data = diffeo.data.load("moons", size=2000)
    losses = []
    for precision in ("32", "bf16"):
        model = flow()
        diffeo.fit(model, data.train, steps=150, lr=1e-2, precision=precision, **QUIET)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        losses.append(float(-model.log_prob(data.test).mean().detach()))
    untrained = flow()
    untrained.initialize(data.train)
    start = float(-untrained.log_prob(data.test).mean().detach())
    assert losses[0] < start - 0.3
    assert abs(losses[0] - losses[1]) < 0.05


def first_run(folder, **changes):
    values = {
        "model": "realnvp",
        "size": "tiny",
        "data": {"source": "moons", "size": 200},
        "training": {"steps": 20, "batch_size": 32},
    }
    return runs.train(recipe(values | changes), folder, progress=False)


def test_a_warm_start_goes_on_from_the_weights(tmp_path):
    first_run(tmp_path / "first")
    before = weights(diffeo.load(tmp_path / "first"))
    tiny = {"steps": 1, "batch_size": 32, "lr": 1e-9, "warmup": 0}
    first_run(tmp_path / "second", start=str(tmp_path / "first"), training=tiny)
    assert torch.allclose(weights(diffeo.load(tmp_path / "second")), before, atol=1e-6)
    with pytest.raises(ShapeError, match=r"\(2,\).*\(1, 8, 8\)"):
        first_run(tmp_path / "third", start=str(tmp_path / "first"), data={"source": "digits"})
    assert not (tmp_path / "third").exists()


def test_a_warm_start_needs_the_same_levels(tmp_path):
    digits = {"source": "digits"}
    first_run(tmp_path / "first", model="nice", data=digits)
    with pytest.raises(DataError, match="up to 16, but digits has 32 levels"):
        first_run(
            tmp_path / "second",
            model="nice",
            data=digits | {"levels": 32},
            start=str(tmp_path / "first"),
        )


def test_schedules():
    from diffeo.training.module import MaximumLikelihood
    from diffeo.training.settings import TrainingSettings

    chosen = TrainingSettings(steps=1000, warmup=0, schedule="exponential", decay=0.99, final=0.1)
    module = MaximumLikelihood(flow(), chosen)
    assert module._rate(0) == 1.0
    assert module._rate(100) == pytest.approx(0.99**100)
    assert module._rate(900) == 0.1
    cosine = MaximumLikelihood(flow(), TrainingSettings(steps=100, warmup=0, final=0.5))
    assert cosine._rate(100) == pytest.approx(0.5)
