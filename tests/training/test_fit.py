"""fit: every form of data, every budget, and the promises around it."""

import math

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import diffeo
from diffeo.errors import ConfigError, InputError, ShapeError, TrainingError
from diffeo.training.module import weight_matrices

QUIET = {"progress": False, "batch_size": 32}


def flow(context_shape=None, **hyper):
    torch.manual_seed(0)
    return diffeo.zoo.build("realnvp", (2,), context_shape, size="tiny", **hyper)


def gaussian(n=200):
    return (
        torch.randn(n, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([2.0, 0.1]) + 3
    )


class Pairs(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, i):
        return gaussian(64)[i], torch.tensor([float(i)])


FORMS = {
    "tensor": (lambda: gaussian(), None),
    "array": (lambda: gaussian().double().numpy(), None),
    "nested list": (lambda: gaussian(40).tolist(), None),
    "pair": (lambda: (gaussian(), torch.randn(200, 1)), (1,)),
    "dataset of pairs": (lambda: Pairs(), (1,)),
    "tensor dataset": (lambda: TensorDataset(gaussian(), torch.randn(200, 1)), (1,)),
    "loader": (lambda: DataLoader(gaussian(), batch_size=16), None),
    "loader of pairs": (lambda: DataLoader(Pairs(), batch_size=16), (1,)),
    "dict context": (lambda: (gaussian(), {"a": torch.randn(200, 1)}), {"a": (1,)}),
    "data": (lambda: diffeo.data.load("moons", size=100), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_data(form):
    make, context_shape = FORMS[form]
    model = flow(context_shape)
    before = {k: v.clone() for k, v in model.named_parameters()}
    run = diffeo.fit(model, make(), steps=3, **QUIET)
    assert run.metrics["steps"] == 3
    assert math.isfinite(run.metrics["train"])
    assert not model.training
    assert any(not torch.equal(v, before[k]) for k, v in model.named_parameters())


@pytest.mark.parametrize("name", ["residual_flow", "idensenet", "cpflow", "realnvp"])
def test_weight_decay_reaches_the_matrices_of_every_kind_of_network(name):
    model = diffeo.zoo.build(name, (2,), size="tiny")
    found = set(weight_matrices(model))
    assert found
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and ".raw" not in n]
    assert found == set(inner)


def test_standardization_is_fitted_on_the_training_rows_only():
    model = flow()
    x = gaussian()
    diffeo.fit(model, x, validation=x + 100, steps=1, **QUIET)
    standardize = next(iter(model.transform))
    assert torch.allclose(standardize.mean, x.mean(0), atol=1e-5)
    assert torch.allclose(standardize.std, x.std(0, correction=0), atol=1e-5)


def test_it_learns_and_leaves_the_best_weights():
    model = flow()
    x, held_out = gaussian(400), gaussian(100)
    start = float(-model.log_prob(held_out).mean().detach())
    run = diffeo.fit(
        model, x, validation=held_out, steps=60, validate_every=10, lr=1e-2, ema=0.9, **QUIET
    )
    truth = math.log(2 * math.pi) + 1 + math.log(2.0 * 0.1)
    after = float(-model.log_prob(held_out).mean().detach())
    assert after < start
    assert after < truth + 0.4
    assert after == pytest.approx(run.metrics["validation"], abs=1e-4)
    assert run.metrics["validation"] == min(v for _, v in run.history["validation"])


def test_validation_on_the_first_rows_only():
    x, held_out = gaussian(64), gaussian(100)
    spoiled = torch.cat([held_out, held_out + 50])
    settings = {"steps": 10, "validate_every": 5, **QUIET}
    torch.manual_seed(3)
    alone = diffeo.fit(flow(), x, validation=held_out, **settings)
    torch.manual_seed(3)
    run = diffeo.fit(flow(), x, validation=spoiled, validate_rows=100, **settings)
    assert run.history["validation"] == alone.history["validation"]


def test_early_stopping():
    model = flow()
    run = diffeo.fit(
        model,
        gaussian(64),
        validation=gaussian(64) + 50,
        steps=500,
        validate_every=5,
        patience=2,
        lr=1e-2,
        **QUIET,
    )
    assert run.stopped == "early stopping"
    assert run.metrics["steps"] < 500


def test_budgets():
    assert diffeo.fit(flow(), gaussian(64), epochs=2, **QUIET).metrics["steps"] == 4
    run = diffeo.fit(flow(), gaussian(64), minutes=0.02, **QUIET)
    assert run.metrics["seconds"] < 10
    assert diffeo.fit(flow(), gaussian(64), epochs=50, steps=3, **QUIET).metrics["steps"] == 3


def test_the_schedule_warms_up_and_decays():
    from diffeo.training.module import MaximumLikelihood
    from diffeo.training.settings import TrainingSettings

    module = MaximumLikelihood(flow(), TrainingSettings(steps=100, warmup=10))
    rates = [module._rate(i) for i in range(100)]
    assert rates[0] == pytest.approx(0.1, abs=0.01)
    assert max(rates) > 0.95
    assert rates[-1] < 0.01
    constant = MaximumLikelihood(flow(), TrainingSettings(steps=100, warmup=0, schedule="constant"))
    assert {constant._rate(i) for i in range(100)} == {1.0}


def test_the_same_seed_gives_the_same_weights_and_leaves_the_random_state():
    def trained(seed):
        model = flow(dropout=0.2)
        state = torch.get_rng_state()
        diffeo.fit(model, gaussian(), steps=5, seed=seed, **QUIET)
        assert torch.equal(state, torch.get_rng_state())
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    first = trained(1)
    assert torch.equal(first, trained(1))
    assert not torch.equal(first, trained(2))


def test_weights_count():
    x = torch.cat([gaussian(100), gaussian(100) + 50])
    weights = torch.cat([torch.ones(100), torch.zeros(100)])
    model = flow(standardize=False)
    diffeo.fit(model, x / 10, weights=weights, steps=80, lr=2e-2, **QUIET)
    near, far = model.log_prob(x[:100] / 10).mean(), model.log_prob(x[100:] / 10).mean()
    assert near > far + 1


def test_actnorm_is_initialized_before_training():
    from diffeo.transforms import ActNorm, Chain, Coupling

    model = diffeo.Flow(Chain((2,), [ActNorm, Coupling, ActNorm]))
    assert not model.initialized
    diffeo.fit(model, gaussian(), steps=1, lr=1e-9, warmup=0, **QUIET)
    assert model.initialized
    z = model.encode(gaussian())
    assert torch.allclose(z.mean(0), torch.zeros(2), atol=1e-3)
    assert torch.allclose(z.std(0, correction=0), torch.ones(2), atol=1e-3)


def test_folder_holds_curves_and_a_checkpoint(tmp_path):
    diffeo.fit(
        flow(), gaussian(), validation=gaussian(50), steps=20, folder=tmp_path / "r", **QUIET
    )
    lines = (tmp_path / "r" / "metrics.csv").read_text().splitlines()
    assert {"step", "train", "validation"} <= set(lines[0].split(","))
    assert len(lines) > 2
    assert (tmp_path / "r" / "checkpoints" / "last.ckpt").is_file()


def test_integer_data():
    model = diffeo.zoo.build("nice", (1, 4, 4), size="tiny", levels=4)
    x = torch.randint(0, 4, (50, 1, 4, 4), dtype=torch.uint8)
    run = diffeo.fit(model, x, validation=x[:10], steps=5, **QUIET)
    assert math.isfinite(run.metrics["validation"])


def test_bf16_runs_and_is_finite():
    run = diffeo.fit(flow(), gaussian(), steps=3, precision="bf16", **QUIET)
    assert math.isfinite(run.metrics["train"])


REFUSED = {
    "no rows": ({"data": torch.empty(0, 2)}, InputError, "no rows"),
    "NaN": ({"data": torch.tensor([[0.0, 1], [math.nan, 1]])}, InputError, "first row 1"),
    "another shape": ({"data": torch.randn(10, 3)}, ShapeError, "(10, 3)|\\(1, 3\\)"),
    "integers": ({"data": torch.zeros(10, 2, dtype=torch.long)}, InputError, "int64"),
    "missing context": ({"data": (torch.randn(10, 2), torch.randn(9, 1))}, InputError, "9 rows"),
    "weights of another length": (
        {"data": torch.randn(10, 2), "weights": torch.ones(9)},
        InputError,
        r"\(10,\)",
    ),
    "negative weights": (
        {"data": torch.randn(3, 2), "weights": torch.tensor([1.0, -1, 1])},
        InputError,
        "negative",
    ),
    "no weight at all": (
        {"data": torch.randn(3, 2), "weights": torch.zeros(3)},
        InputError,
        "zero",
    ),
    "no numbers": ({"data": "moons"}, InputError, "str"),
    "a misspelt setting": ({"data": torch.randn(9, 2), "epoch": 3}, ConfigError, "'epochs'"),
    "a bad value": ({"data": torch.randn(9, 2), "lr": -1}, ConfigError, "lr"),
    "weights beside a loader": (
        {"data": DataLoader(torch.randn(9, 2)), "weights": torch.ones(9)},
        InputError,
        "DataLoader",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name):
    arguments, error, words = REFUSED[name]
    arguments = dict(arguments)
    with pytest.raises(error, match=words) as raised:
        diffeo.fit(flow(), arguments.pop("data"), progress=False, **arguments)
    assert "\n" not in str(raised.value)


def test_divergence_stops_with_the_step():
    x = gaussian()
    model = flow(standardize=False)
    with pytest.raises(TrainingError, match="step"):
        diffeo.fit(model, x * 1e30, steps=50, **QUIET)
