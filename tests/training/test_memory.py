"""fit with memory: the same training, and a watch that says when float32 no longer brings back the activations."""

import csv
import math
import warnings
from functools import partial

import pytest
import torch

import diffeo
from diffeo.errors import ConfigError
from diffeo.nets import MLP
from diffeo.training import memory as watch
from diffeo.training.memory import reconstruction_by_layer, reconstruction_error, worst_growth
from diffeo.transforms import ActNorm, Autoregressive, BatchNorm, Chain, Coupling, Rotation


def flow(bad=False):
    """Three couplings; with `bad`, actnorms that first add a million and then take it away, in the middle of them."""
    torch.manual_seed(0)
    net = partial(MLP, hidden=(8,))
    parts = [partial(Coupling, net=net), Rotation, partial(Coupling, net=net)]
    shifts = [ActNorm((4,)), ActNorm((4,))]
    for layer, shift in zip(shifts, (1e6, -1e6), strict=True):
        torch.nn.init.constant_(layer.shift, shift)
        layer.initialized.fill_(True)
    return diffeo.Flow(Chain((4,), [*parts, *shifts, *parts] if bad else [*parts, *parts]))


def data(n=40):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1))


def trained(model, **settings):
    fixed = {"batch_size": 20, "warmup": 0, "schedule": "constant", "lr": 1e-3, "steps": 20}
    diffeo.fit(model, data().to(model.dtype), progress=False, **fixed | settings)
    return model


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def column(folder, name):
    with (folder / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
def test_it_is_the_same_training(memory):
    plain = weights(trained(flow().double(), seed=1, lr=1e-2, steps=20))
    model = trained(flow().double(), seed=1, lr=1e-2, steps=20, memory=memory)
    assert torch.allclose(weights(model), plain, rtol=1e-9, atol=1e-11)
    assert model.memory == "plain", "fit leaves the flow as it was"


def test_the_error_of_a_good_chain_is_logged_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "EVERY", 10)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="step")
        trained(flow(), folder=tmp_path, memory="reversible", steps=10)
    errors = column(tmp_path, "reconstruction")
    assert len(errors) == 2
    assert 0 < max(errors) < 1e-5
    rows = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    assert [row[0] for row in rows[1:] if row[-1]] == ["1", "10"]


def test_plain_training_has_no_such_column(tmp_path):
    trained(flow(), folder=tmp_path, steps=1)
    assert "reconstruction" not in (tmp_path / "metrics.csv").read_text()


def test_badly_scaled_layers_are_named_once(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "EVERY", 10)
    model = flow(bad=True)
    model.memory = "reversible"
    with pytest.warns(UserWarning, match="float32 the inverse") as caught:
        trained(model, folder=tmp_path, steps=20, lr=1e-6)
    said = [str(w.message) for w in caught if "the inverse brings" in str(w.message)]
    assert len(said) == 1
    assert "transform.parts.3 (ActNorm)" in said[0]
    assert "flow.double()" in said[0]
    assert "memory = 'checkpoint'" in said[0]
    errors = column(tmp_path, "reconstruction")
    assert len(errors) == 3
    assert min(errors) > 1e-2


def test_the_remedies_of_the_warning_are_remedies():
    x = data()
    model = flow(bad=True)
    assert reconstruction_error(model, x) > 1e-2
    assert reconstruction_error(model.double(), x.double()) < 1e-8
    exact = torch.autograd.grad(model(x.double()).sum(), list(model.parameters()))
    errors = {}
    for memory in ("checkpoint", "reversible"):
        model.float().memory = memory
        found = torch.autograd.grad(model(x).sum(), list(model.parameters()))
        first = [
            float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True) if b.any()
        ]
        errors[memory] = max(first)
    # The million costs what comes after it its digits either way.
    assert errors["checkpoint"] <= errors["reversible"]


def test_the_layer_where_the_error_grows():
    assert worst_growth([("a", 1e-3), ("b", 1e-6), ("c", 1e-7)], torch.float32) == (
        "a",
        pytest.approx(1e3),
    )
    assert worst_growth([("a", math.inf), ("b", math.inf), ("c", 1e-7)], torch.float32)[0] == "b"


def test_only_layers_that_are_recomputed_count():
    torch.manual_seed(0)
    model = diffeo.Flow(Chain((4,), [ActNorm, Autoregressive, BatchNorm, ActNorm])).train()
    found = reconstruction_by_layer(model, data())
    assert [name for name, _ in found] == [
        "transform.parts.0 (ActNorm)",
        "transform.parts.3 (ActNorm)",
    ]
    assert model.training
    none = diffeo.Flow(Chain((4,), [Autoregressive]))
    assert reconstruction_error(none, data()) == 0
    assert not reconstruction_by_layer(none, data())


def test_a_loss_compiled_as_a_whole_is_refused():
    with pytest.raises(ConfigError, match="leave out one of them"):
        trained(flow(), memory="reversible", compile="on")
    trained(flow(), memory="reversible", compile="auto", steps=1)
    with pytest.raises(ConfigError, match="memory"):
        trained(flow(), memory="none")


@pytest.mark.slow
def test_it_trains_in_low_precision(tmp_path):
    torch.manual_seed(0)
    model = trained(flow(), folder=tmp_path, memory="reversible", precision="bf16", steps=100)
    assert bool(weights(model).isfinite().all())
    assert max(column(tmp_path, "reconstruction")) < 1e-2
