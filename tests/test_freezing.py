"""Frozen flows: the numbers of the original, fewer layers, no training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from tests.conformance.shared import CONTEXT, SMALL, build, conv, mlp

from diffeo import zoo
from diffeo.errors import ConfigError, TrainingError
from diffeo.estimating import with_estimator
from diffeo.flow import Flow
from diffeo.freezing import FixedLinear
from diffeo.nets import LipschitzDenseNet, LipschitzMLP
from diffeo.nets.convolutional import WeightNormConv
from diffeo.testing import check_transform, randomize
from diffeo.testing.randomize import draw_context
from diffeo.transforms import (
    ActNorm,
    BatchNorm,
    Chain,
    Coupling,
    Exact,
    Flatten,
    Householder,
    Inverse,
    InvertibleConv1x1,
    LULinear,
    PeriodicConv,
    Permutation,
    Residual,
    Rotation,
    Squeeze,
    Standardize,
    Transform,
    split_whitened,
)

LIPSCHITZ = [
    partial(LipschitzMLP, hidden=(5, 4)),
    partial(LipschitzMLP, hidden=(5, 4), preactivation=True, norm="learned"),
    partial(LipschitzDenseNet, depth=2, growth=4),
    partial(LipschitzMLP, hidden=(5,), activation="elu"),
]
LINEAR = [
    Standardize,
    Permutation,
    LULinear,
    ActNorm,
    InvertibleConv1x1,
    partial(InvertibleConv1x1, form="direct"),
    partial(Rotation, learned=True),
    BatchNorm,
    Householder,
    lambda s: Inverse(Chain(s, [LULinear])),
]


def _image() -> Flow:
    """Linear parts on both sides of couplings, in nested chains and below a split."""

    def step(shape: tuple[int, ...]) -> Chain:
        return Chain(shape, [ActNorm, InvertibleConv1x1, partial(Coupling, net=conv)])

    def rest(shape: tuple[int, ...]) -> Chain:
        return Chain(shape, [step, *LINEAR, Flatten])

    parts = [*LINEAR, PeriodicConv, Squeeze, step, step, partial(split_whitened, rest=rest, prior=conv)]  # fmt: skip
    return Flow(Chain(SMALL, parts))


def _vector() -> Flow:
    parts = [*LINEAR, partial(Coupling, net=mlp, context_shape=CONTEXT), Permutation, ActNorm]
    return Flow(Chain((4,), parts))


FLOWS: dict[str, Callable[[], Flow]] = {
    "vector": _vector,
    "image": _image,
    "one layer": lambda: Flow(InvertibleConv1x1((3,))),
    "realnvp": build("realnvp", SMALL, scales=2, width=2, split="conditional"),
    "residual": lambda: Flow(Chain((4,), [partial(Residual, net=net) for net in LIPSCHITZ])),
    "implicit": build("impflow", (3,), depth=1, hidden=(4, 4)),
}


@torch.no_grad()
def _moved(flow: Flow) -> Flow:
    """The flow in float64, its parameters near where they start: random matrices would be too badly conditioned."""
    start = [p.double() for p in flow.parameters()]
    randomize(flow.double())
    for p, q in zip(flow.parameters(), start, strict=True):
        p.copy_(q + 0.2 * p)
    return flow


@pytest.mark.parametrize("name", FLOWS)
def test_frozen_flow_gives_the_same_numbers(name: str) -> None:
    torch.manual_seed(0)
    flow = _moved(FLOWS[name]())
    fast = flow.frozen()
    flow.eval()
    context = draw_context(flow.context_shape, 4, 0)

    def sampled(f: Flow) -> torch.Tensor:
        return f.sample((3,), context, generator=torch.Generator().manual_seed(1))

    x = sampled(flow)[0] if context is not None else sampled(flow)
    torch.testing.assert_close(sampled(fast), sampled(flow), rtol=1e-10, atol=1e-10)
    z = flow.encode(x, context)
    torch.testing.assert_close(fast.encode(x, context), z, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fast.decode(z, context), flow.decode(z, context), rtol=1e-10, atol=1e-10)  # fmt: skip
    found, expected = (
        f.log_prob(x, context, generator=torch.Generator().manual_seed(2)) for f in (fast, flow)
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert not found.requires_grad
    if not flow.discrete:
        inverses = (f.transform.inverse(z, context)[1] for f in (fast, flow))
        torch.testing.assert_close(*inverses, rtol=1e-10, atol=1e-10, equal_nan=True)


def _names(chain: Chain) -> list[str]:
    return [type(part).__name__.strip("_") for part in chain]


def test_runs_of_linear_parts_become_one() -> None:
    flow = Flow(
        Chain(
            (4,),
            [
                *LINEAR,
                partial(Coupling, net=mlp),
                Permutation,
                ActNorm,
                partial(Coupling, net=mlp),
                Chain((4,), [ActNorm]),
                Chain((4,), [Rotation, Chain((4,), [Permutation])]),
            ],
        )
    )
    names = _names(flow.frozen().transform)
    # Without a matrix among them, scalings and permutations stay as they are.
    assert names == ["FixedLinear", "Coupling", "Permutation", "ActNorm", "Coupling", "FixedLinear"]
    deep = _image().frozen().transform
    assert _names(deep) == [
        "FixedLinear", "FixedPeriodicConv", "Squeeze", "FixedLinear", "Coupling", "FixedLinear", "Coupling", "Coupling",
        "Split",
    ]  # fmt: skip
    assert _names(list(deep)[-1].rest) == ["FixedLinear", "Coupling", "FixedLinear", "Flatten"]


def test_weight_normalization_is_folded() -> None:
    fast = build("realnvp", SMALL, scales=2, width=2)().frozen()
    assert not any(isinstance(m, WeightNormConv) for m in fast.modules())


def test_large_means_do_not_cancel_in_float32() -> None:
    torch.manual_seed(0)
    flow = Flow(Chain((3,), [Standardize, InvertibleConv1x1]))
    x = 1e6 + torch.randn(500, 3)
    flow.initialize(x)
    torch.testing.assert_close(flow.frozen().encode(x), flow.encode(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "skip"),
    [
        (lambda: FixedLinear([ActNorm(SMALL).double(), InvertibleConv1x1(SMALL).double()]), ()),
        (lambda: PeriodicConv(SMALL).double().frozen(), ("compile",)),
    ],
)
def test_folded_parts_keep_the_contract(make: Callable[[], Transform], skip: tuple) -> None:
    torch.manual_seed(0)
    check_transform(make(), skip=("config_round_trip", *skip), randomized=False)


def test_ladj_of_rotations_stays_zero() -> None:
    fixed = FixedLinear([Rotation(SMALL), Permutation(SMALL)])
    assert fixed.properties.volume_preserving
    assert not fixed(torch.randn(2, *SMALL))[1].any()


def test_frozen_copy_is_apart_and_constant() -> None:
    flow = _vector()
    state = torch.get_rng_state()
    x, context = torch.randn(2, 4), torch.randn(2, *CONTEXT)
    torch.set_rng_state(state)
    with flow.frozen() as fast:
        assert torch.equal(torch.get_rng_state(), state)
        before = fast.log_prob(x, context)
        with torch.no_grad():
            for p in flow.parameters():
                p.add_(1.0)
        assert torch.equal(fast.log_prob(x, context), before)
    assert (flow.training, fast.training) == (True, False)
    assert all(p.requires_grad for p in flow.parameters())
    assert not any(p.requires_grad for p in fast.parameters())
    assert fast.frozen() is fast


def test_frozen_flow_refuses_what_needs_the_original(tmp_path: object) -> None:
    fast = _image().frozen()
    with pytest.raises(TrainingError, match="frozen flow cannot be trained"):
        fast.train()
    with pytest.raises(ConfigError, match="frozen flow cannot be saved"):
        fast.save(str(tmp_path))
    with pytest.raises(ConfigError, match="frozen flow cannot be changed"):
        with_estimator(zoo.build("iresnet", (2,), size="tiny").frozen(), Exact())
    with pytest.raises(ConfigError, match="frozen flow cannot be resized"):
        fast.resized((3, 4, 4))
