"""Parts that do not fit are refused when the model is built, in one sentence that names the layer and both sides."""

from functools import partial

import pytest
import torch
from torch import nn

import diffeo
from diffeo.distributions import StandardNormal, Uniform
from diffeo.errors import ConfigError, DomainError, ShapeError
from diffeo.families import Additive, Affine, Logit, Rescale
from diffeo.nets import MLP, ConvResNet
from diffeo.transforms import (
    ActNorm,
    Chain,
    Checkerboard,
    Coupling,
    Dequantize,
    Elementwise,
    Flatten,
    Halves,
    Inverse,
    Mask,
    Permutation,
    Split,
    Squeeze,
    split_whitened,
    unsqueeze,
)

REFUSED = {
    "odd height under a squeeze": (
        lambda: Chain((3, 7, 8), [ActNorm, Squeeze]),
        ShapeError,
        ["layer 1", "(3, 7, 8)", "Squeeze by 2"],
    ),
    "squeeze of a vector": (lambda: Squeeze((8,)), ShapeError, ["(8,)"]),
    "unsqueeze of three channels": (lambda: unsqueeze((3, 4, 4)), ShapeError, ["(3, 4, 4)"]),
    "two layers that do not meet": (
        lambda: Chain((4,), [ActNorm((4,)), Permutation((5,))]),
        ShapeError,
        ["layer 1", "Permutation(5,)", "layer 0", "(4,)"],
    ),
    "a chain over another shape": (
        lambda: Chain((3,), [ActNorm((4,))]),
        ShapeError,
        ["layer 0", "(4,)", "(3,)"],
    ),
    "a nested chain": (
        lambda: Chain((1, 4, 4), [lambda s: Chain(s, [Squeeze, partial(Squeeze, factor=3)])]),
        ShapeError,
        ["layer 0", "layer 1", "(4, 2, 2)"],
    ),
    "a base over another shape": (
        lambda: diffeo.Flow(ActNorm((4,)), StandardNormal((3,))),
        ShapeError,
        ["(3,)", "(4,)", "ActNorm"],
    ),
    "a net of the wrong size": (
        lambda: Coupling((4,), Affine(), MLP((2,), (3, 2))),
        ShapeError,
        ["Coupling(4,)", "(2, 2)", "(3, 2)"],
    ),
    "a plain net of the wrong size": (
        lambda: Coupling((4,), Affine(), lambda *_: nn.Linear(2, 3)),
        ShapeError,
        ["Coupling(4,)", "(2, 2)", "(3,)"],
    ),
    "a plain net that cannot take the input": (
        lambda: Coupling((4,), Affine(), lambda *_: nn.Linear(3, 4)),
        ShapeError,
        ["Coupling(4,)", "(2,)"],
    ),
    "a convolution over vectors": (
        lambda: Coupling((4,), Affine(), ConvResNet),
        ShapeError,
        ["ConvResNet", "(2,)"],
    ),
    "a partition of another shape": (
        lambda: Coupling((4,), partition=Halves((6,))),
        ShapeError,
        ["Coupling(4,)", "Halves", "(6,)"],
    ),
    "a mask of another shape": (lambda: Mask((4,), [True, False]), ShapeError, ["(4,)", "(2,)"]),
    "a split by a mask": (
        lambda: Split((2, 4, 4), Flatten, Checkerboard),
        ShapeError,
        ["Split(2, 4, 4)", "Checkerboard"],
    ),
    "a split whose rest takes another shape": (
        lambda: Split((4, 2, 2), Flatten((3, 2, 2))),
        ShapeError,
        ["(2, 2, 2)", "(3, 2, 2)"],
    ),
    "two contexts": (
        lambda: Chain(
            (4,), [partial(Coupling, context_shape=(2,)), partial(Coupling, context_shape=(3,))]
        ),
        ShapeError,
        ["(2,)", "(3,)"],
    ),
    "a real value into a logit": (
        lambda: Chain((4,), [ActNorm, partial(Elementwise, family=Logit())]),
        DomainError,
        ["layer 1", "the real line", "layer 0"],
    ),
    "integers into a coupling of the unit interval": (
        lambda: Chain(
            (4,),
            [
                partial(Dequantize, levels=4),
                partial(Elementwise, family=Rescale((0, 3))),
            ],
        ),
        DomainError,
        ["layer 1", "[0, 3]", "[0, 4]"],
    ),
    "a Gaussian under a bounded codomain": (
        lambda: diffeo.Flow(Elementwise((2,), Rescale((0, 2)))),
        DomainError,
        ["StandardNormal", "the real line", "[0, 1]"],
    ),
    "a coupling of a family that changes the domain": (
        lambda: Coupling((2,), diffeo.families.Inverted(Logit())),
        ConfigError,
        ["Inverted"],
    ),
    "the inverse of a surjection": (
        lambda: Inverse(Dequantize((2,))),
        ConfigError,
        ["Dequantize(2,)", "bound"],
    ),
    "an unknown prior": (lambda: split_whitened((4,), Flatten, "nice"), ConfigError, ["'nice'"]),
    "indices that are no permutation": (
        lambda: Permutation((3,), [0, 0, 1]),
        ConfigError,
        ["[0, 0, 1]"],
    ),
    "an unknown scale": (lambda: Affine("cubic"), ConfigError, ["'cubic'"]),
    "an empty chain": (lambda: Chain((2,), []), ConfigError, ["at least one"]),
    "no shape": (lambda: ActNorm("ab"), ConfigError, ["'ab'"]),
    "revnet on a vector": (
        lambda: diffeo.zoo.build("revnet", (4,)),
        ShapeError,
        ["(4,)", "channels"],
    ),
    "too many scales": (
        lambda: diffeo.zoo.build("realnvp", (1, 6, 6), scales=3),
        ShapeError,
        ["Squeeze by 2", "3, 3"],
    ),
    "an unknown model": (lambda: diffeo.zoo.build("realnpv", (2,)), ConfigError, ["'realnvp'"]),
    "an unknown setting": (
        lambda: diffeo.zoo.build("nice", (2,), coupling=3),
        ConfigError,
        ["'coupling'", "'couplings'"],
    ),
    "an unknown size": (lambda: diffeo.zoo.build("nice", (2,), size="big"), ConfigError, ["'big'"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_when_built(name):
    make, error, words = REFUSED[name]
    with pytest.raises(error) as raised:
        make()
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


ACCEPTED = {
    "one dimension": ((1,), {}),
    "three dimensions": ((3,), {}),
    "one dimension with context": ((1,), {"context_shape": (2,)}),
    "an odd image": ((1, 7, 7), {}),
    "one channel, half odd": ((1, 6, 10), {}),
    "two channels, non-square": ((2, 4, 12), {"split": "conditional"}),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_sizes_work(name):
    shape, hyper = ACCEPTED[name]
    flow = diffeo.zoo.build("realnvp", shape, size="tiny", levels=None, **hyper).eval()
    c = torch.randn(5, *flow.context_shape) if flow.context_shape else None
    x = flow.sample(() if c is not None else (5,), c) if not hyper else torch.rand(5, *shape)
    if len(shape) == 3:
        x = torch.rand(5, *shape)
    z = flow.encode(x, c)
    assert torch.allclose(flow.decode(z, c), x, atol=1e-4)
    assert torch.isfinite(flow.log_prob(x, c)).all()


def test_properties_propagate_through_chains():
    chain = Chain(
        (1, 4, 4),
        [
            partial(Dequantize, levels=4),
            partial(Elementwise, family=Rescale((0, 4))),
            partial(Elementwise, family=Logit()),
            Squeeze,
            partial(Coupling, family=Additive(), net=ConvResNet),
        ],
    )
    p = chain.properties
    assert (p.kind, p.measure, p.bias) == ("bound", "counting", "none")
    assert p.couples_batch
    assert not p.volume_preserving
    assert not p.constant_ladj
    assert str(p.domain) == "the integers 0 to 3"
    shears = Chain((4,), [partial(Coupling, family=Additive()), Permutation])
    assert shears.properties.volume_preserving
    assert shears.properties.constant_ladj
    assert Inverse(shears).properties.volume_preserving
    assert Chain((4,), [Flatten, Permutation]).properties.lipschitz == 1.0
    assert diffeo.Flow(Flatten((2, 2)), Uniform((4,), -1, 1)).likelihood == "exact"
