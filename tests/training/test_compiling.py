"""compile: the same keys and nearly the same weights; a missing compiler costs one warning."""

import warnings
from functools import partial

import pytest
import torch

import diffeo
from diffeo.training import compiling
from diffeo.training.settings import TrainingSettings


def trained(**settings):
    torch.manual_seed(0)
    flow = diffeo.zoo.build("realnvp", (2,), size="tiny", layers=2)
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(1))
    diffeo.fit(flow, x, batch_size=20, steps=5, progress=False, **settings)
    return flow


def distance(a, b):
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


@pytest.mark.slow
def test_compiled_training_is_the_same_training():
    plain = trained()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="training goes on without compilation")
        compiled = trained(compile="on")
    assert list(plain.state_dict()) == list(compiled.state_dict())
    assert distance(plain, compiled) < 1e-4


def test_without_a_compiler_one_warning(monkeypatch):
    from torch._inductor import config, exc

    def missing(*args, **kwargs):
        raise exc.InvalidCxxCompiler

    # Another cache folder and no compiler in it: nothing that was compiled before can be used.
    monkeypatch.setattr(config.cpp, "cxx", ("/no/such/compiler",))
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", missing)
    monkeypatch.setattr(config, "force_disable_caches", True)
    torch._dynamo.reset()
    with pytest.warns(UserWarning, match="without compilation") as caught:
        fallen = trained(compile="on", ema=0.5)
    said = [w for w in caught if "without compilation" in str(w.message)]
    assert len(said) == 1
    assert distance(fallen, trained(ema=0.5)) == 0


def test_auto_counts_what_is_planned():
    wanted = partial(compiling.wanted, flow=diffeo.zoo.build("nice", (2,), size="tiny"))
    assert not wanted(TrainingSettings(compile="off"), 10**6)
    assert wanted(TrainingSettings(compile="on"), 1)
    assert not wanted(TrainingSettings(compile="auto"), 100)
    assert wanted(TrainingSettings(compile="auto"), 10**5)
    assert not wanted(TrainingSettings(compile="auto", minutes=2), None)
    assert wanted(TrainingSettings(compile="auto", minutes=60), None)
    pictures = diffeo.zoo.build("realnvp", (1, 4, 4), size="tiny")
    assert not compiling.wanted(TrainingSettings(compile="auto"), 10**5, pictures)
    assert compiling.wanted(TrainingSettings(compile="on"), 10**5, pictures)
