"""Everything registered, by name: what the conformance tests run over. A new part needs a line, or CI fails.

Entries that belong to one subject are in the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.conformance import (
    autoregressive,
    bases,
    continuous,
    convex,
    flowpp,
    glow,
    implicit,
    linear,
    monotone,
    neural,
    residuals,
    splines,
    strings,
    tables,
)
from tests.conformance.shared import (
    CONTEXT,
    IMAGE,
    SMALL,
    bottleneck,
    build,
    conv,
    mlp,
    residual,
)
from torch import Tensor, nn

from diffeo.distributions import (
    ConditionalNormal,
    DiagonalNormal,
    Distribution,
    GaussianMixture,
    Logistic,
    StandardNormal,
    Uniform,
)
from diffeo.families import Additive, Affine, Family, Inverted, Logit, Rescale, Scaling
from diffeo.flow import Flow
from diffeo.nets import MLP, Conditioner, Constant
from diffeo.transforms import (
    ActNorm,
    Alternating,
    BatchNorm,
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
    Rotation,
    Split,
    Squeeze,
    Standardize,
    ToReal,
    Transform,
    split_whitened,
    unsqueeze,
)


def _affine(scale: Any) -> Callable[[], Transform]:
    return lambda: Coupling((4,), Affine(scale), mlp)


def _two_levels(prior: Any, partition: Any = Halves, context: Any = None) -> Transform:
    """Squeeze, a coupling, a whitened split, a coupling of the rest."""

    def rest(shape: Any) -> Chain:
        return Chain(shape, [partial(Coupling, net=conv, partition=Checkerboard), Flatten])

    return Chain(
        SMALL,
        [
            Squeeze,
            partial(Coupling, net=conv, context_shape=context),
            partial(
                split_whitened, rest=rest, prior=prior, partition=partition, context_shape=context
            ),
        ],
    )


TRANSFORMS: dict[str, Callable[[], Transform]] = {
    # Coupling: partition x family x net x context.
    "coupling": lambda: Coupling((5,), net=mlp),
    "coupling/1d": lambda: Coupling((1,), net=mlp),
    "coupling/1d-context": lambda: Coupling((1,), net=mlp, context_shape=(2,)),
    "coupling/2d-flip": lambda: Coupling((2,), net=mlp, partition=partial(Halves, flip=True)),
    "coupling/alternating": lambda: Coupling((5,), net=mlp, partition=Alternating),
    "coupling/alternating-flip": lambda: Coupling(
        (5,), net=mlp, partition=partial(Alternating, flip=True)
    ),
    "coupling/checkerboard-vector": lambda: Coupling((5,), net=mlp, partition=Checkerboard),
    "coupling/mask": lambda: Coupling(
        (4,), net=mlp, partition=Mask((4,), [True, False, False, True]), context_shape=(3,)
    ),
    "coupling/additive": lambda: Coupling((5,), Additive(), mlp, Alternating),
    "coupling/scaling": lambda: Coupling((4,), Scaling(), mlp),
    "coupling/inverted": lambda: Coupling((4,), Inverted(Affine("clamp")), mlp),
    "coupling/exp": _affine("exp"),
    "coupling/tanh": _affine("tanh"),
    "coupling/sigmoid": _affine("sigmoid"),
    "coupling/clamp": _affine("clamp"),
    "coupling/context": lambda: Coupling((5,), net=mlp, context_shape=(3,)),
    "coupling/context-dict": lambda: Coupling(
        (3,), net=residual, context_shape={"a": (2,), "b": (1, 2)}
    ),
    "coupling/residual": lambda: Coupling((5,), net=residual),
    "coupling/constant": lambda: Coupling((4,), net=Constant),
    "coupling/plain-net": lambda: Coupling(
        (4,), net=nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4))
    ),
    "coupling/image": lambda: Coupling(SMALL, net=conv),
    "coupling/image-flip": lambda: Coupling(SMALL, net=conv, partition=partial(Halves, flip=True)),
    "coupling/image-one-channel": lambda: Coupling((1, 2, 3), net=conv),
    "coupling/image-alternating": lambda: Coupling(SMALL, net=bottleneck, partition=Alternating),
    "coupling/image-checkerboard": lambda: Coupling((3, 3, 4), net=conv, partition=Checkerboard),
    "coupling/image-checkerboard-flip": lambda: Coupling(
        SMALL, Affine("tanh"), conv, partial(Checkerboard, flip=True), context_shape=(2,)
    ),
    "coupling/image-additive": lambda: Coupling(SMALL, Additive(), bottleneck),
    "coupling/image-context": lambda: Coupling(SMALL, net=bottleneck, context_shape=(2, 2, 4)),
    "coupling/image-mlp": lambda: Coupling((2, 2, 3), net=mlp, partition=Checkerboard),
    # Elementwise.
    "elementwise/affine": lambda: Elementwise((3,), Affine("exp")),
    "elementwise/scalar-event": lambda: Elementwise((), Affine("exp")),
    "elementwise/additive": lambda: Elementwise(SMALL, Additive()),
    "elementwise/scaling": lambda: Elementwise((4,), Scaling()),
    "elementwise/context": lambda: Elementwise((3,), Affine("clamp"), mlp, context_shape=(2,)),
    "elementwise/image-context": lambda: Elementwise(
        (2, 2, 3), Affine("clamp"), mlp, context_shape=(2,)
    ),
    "elementwise/logit": lambda: Elementwise((3,), Logit(0.05)),
    "elementwise/logit-0": lambda: Elementwise((3,), Logit(0.0)),
    "elementwise/rescale": lambda: Elementwise(SMALL, Rescale((0, 256), (-1.0, 1.0))),
    "elementwise/rescale-shift": lambda: Elementwise((3,), Rescale((0, 1), (2, 3))),
    # Close to the end of an interval, z is the image of few numbers: in a chain, the oracle draws images.
    "to_real/interval": lambda: Chain((3,), [partial(ToReal, low=-1.0, high=2.0)]),
    "to_real/above": lambda: ToReal((3,), 0.0),
    "to_real/below": lambda: ToReal(SMALL, None, 4.0),
    "to_real/line": lambda: ToReal((3,)),
    # Linear, normalization, reshape.
    "permutation/random": lambda: Permutation((5,)),
    "permutation/reverse": lambda: Permutation(SMALL, "reverse"),
    "permutation/swap": lambda: Permutation((5,), "swap"),
    "permutation/odd-first": lambda: Permutation((5,), "odd_first"),
    "permutation/indices": lambda: Permutation((3,), [2, 0, 1]),
    "rotation": lambda: Rotation((5,)),
    "rotation/learned": lambda: Rotation((4,), learned=True),
    "rotation/image": lambda: Rotation(SMALL, learned=True),
    "actnorm": lambda: ActNorm((5,)),
    "actnorm/1d": lambda: ActNorm((1,)),
    "actnorm/image": lambda: ActNorm(SMALL),
    "standardize": lambda: Standardize((5,)),
    "standardize/image": lambda: Standardize(SMALL),
    "batchnorm": lambda: BatchNorm((5,)),
    "batchnorm/image": lambda: BatchNorm(SMALL),
    "batchnorm/masked": lambda: BatchNorm((3, 3, 4), Checkerboard),
    "batchnorm/split": lambda: BatchNorm(SMALL, partial(Halves, flip=True)),
    "flatten": lambda: Flatten(SMALL),
    "squeeze": lambda: Squeeze(SMALL),
    "squeeze/checkerboard": lambda: Squeeze(IMAGE, 2, "checkerboard"),
    "squeeze/3": lambda: Squeeze((2, 3, 6), 3),
    "squeeze/3-checkerboard": lambda: Squeeze((2, 6, 3), 3, "checkerboard"),
    "unsqueeze": lambda: unsqueeze((12, 2, 3)),
    "unsqueeze/checkerboard": lambda: unsqueeze((8, 1, 3), 2, "checkerboard"),
    # Multi-scale.
    "split": lambda: Split((5,), partial(Coupling, net=mlp)),
    "split/image": lambda: Split(
        (4, 2, 3), lambda s: Chain(s, [ActNorm, Flatten]), partial(Alternating, flip=True)
    ),
    "split/nested": lambda: Split((6,), partial(Split, rest=ActNorm)),
    "split_whitened/fixed": lambda: _two_levels("fixed"),
    "split_whitened/learned": lambda: _two_levels("learned", context=(2,)),
    "split_whitened/conditional": lambda: _two_levels(conv, Alternating),
    "split_whitened/conditional-context": lambda: _two_levels(bottleneck, context=(2,)),
    # Chains and inverses.
    "chain": lambda: Chain((5,), [ActNorm, Rotation, partial(Coupling, net=mlp), Permutation]),
    "chain/nested": lambda: Chain(
        (4,),
        [
            Chain((4,), [Permutation, Rotation]),
            Inverse(Chain((4,), [ActNorm, partial(Coupling, net=mlp, context_shape=(2,))])),
            BatchNorm,
        ],
    ),
    "chain/logit": lambda: Chain(
        SMALL,
        [
            partial(Elementwise, family=Rescale((0, 16))),
            partial(Elementwise, family=Logit()),
            Squeeze,
            ActNorm,
            Flatten,
        ],
    ),
    "inverse/coupling": lambda: Inverse(Coupling((5,), net=mlp, context_shape=(2,))),
    "inverse/twice": lambda: Inverse(Inverse(ActNorm((3,)))),
    "inverse/sigmoid": lambda: Inverse(Elementwise((3,), Logit(0.05))),
    "inverse/flatten": lambda: Inverse(Flatten(SMALL)),
    # Integers.
    "dequantize": lambda: Dequantize((3, 2, 2)),
    "dequantize/2": lambda: Dequantize((5,), 2),
    "dequantize/1000": lambda: Dequantize((3,), 1000),
    "dequantize/chain": lambda: Chain(
        (4,),
        [
            partial(Dequantize, levels=17),
            partial(Elementwise, family=Rescale((0, 17))),
            partial(Elementwise, family=Logit()),
            partial(Coupling, net=mlp),
        ],
    ),
}

FAMILIES: dict[str, Callable[[], Family]] = {
    "additive": Additive,
    "scaling": Scaling,
    "affine/exp": lambda: Affine("exp"),
    "affine/tanh": lambda: Affine("tanh"),
    "affine/sigmoid": lambda: Affine("sigmoid"),
    "affine/clamp": lambda: Affine("clamp", bound=2.0),
    "inverted/affine": lambda: Inverted(Affine("clamp")),
    "inverted/logit": lambda: Inverted(Logit(0.05)),
    "logit": lambda: Logit(0.05),
    "logit/0": lambda: Logit(0.0),
    "rescale": lambda: Rescale((0, 256)),
    "rescale/interval": lambda: Rescale((-1, 3), (2.0, 2.5)),
}

DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {
    "standard_normal/1": lambda: StandardNormal((1,)),
    "standard_normal/2": lambda: StandardNormal((2,)),
    "standard_normal/scalar": lambda: StandardNormal(()),
    "standard_normal/image": lambda: StandardNormal(SMALL),
    "diagonal_normal/1": lambda: DiagonalNormal((1,)),
    "diagonal_normal/2": lambda: DiagonalNormal((2,), loc=[1.0, -1.0], scale=0.5),
    "diagonal_normal/fixed": lambda: DiagonalNormal((2,), 3.0, 2.0, learned=False),
    "conditional_normal/1": lambda: ConditionalNormal((1,), (2,), mlp),
    "conditional_normal/2": lambda: ConditionalNormal((2,), {"a": (1,), "b": (2,)}, mlp),
    "gaussian_mixture/1": lambda: GaussianMixture((1,), 3),
    "gaussian_mixture/2": lambda: GaussianMixture((2,), 4),
    "gaussian_mixture/scalar": lambda: GaussianMixture((), 2),
    "logistic/1": lambda: Logistic((1,)),
    "logistic/2": lambda: Logistic((2,)),
    "uniform/1": lambda: Uniform((1,)),
    "uniform/2": lambda: Uniform((2,), -1.0, 3.0),
}

CONDITIONERS: dict[str, Callable[[], Conditioner]] = {
    "constant": lambda: Constant((3,), (2, 2)),
    "mlp": lambda: mlp((3,), (2, 2)),
    "mlp/context": lambda: mlp((3,), (2, 2), CONTEXT, activation="gelu", dropout=0.2),
    "mlp/only-context": lambda: mlp((0,), (2, 2), {"a": (2,), "b": (1, 2)}),
    "mlp/nothing-to-see": lambda: mlp((0,), (2, 2)),
    "mlp/irange": lambda: MLP(
        (3,), (4,), hidden=(8, 8), irange=0.1, zero_init=False, output_bias=False
    ),
    "residual": lambda: residual((3,), (2, 2)),
    "residual/context": lambda: residual((3,), (2, 2), CONTEXT, dropout=0.2, activation="silu"),
    "conv": lambda: conv((3, 2, 4), (3, 2, 4, 2)),
    "conv/context": lambda: conv((3, 2, 4), (2, 2, 4, 2), CONTEXT, dropout=0.2),
    "conv/image-context": lambda: conv((1, 2, 4), (2, 2, 4), (2, 2, 4), batch_norm=False),
    "conv/nothing-to-see": lambda: conv((0, 2, 3), (1, 2, 3, 2), {"a": (2,)}),
    "bottleneck": lambda: bottleneck((3, 2, 4), (3, 2, 4, 1)),
    "bottleneck/context": lambda: bottleneck((3, 2, 4), (3, 2, 4, 2), CONTEXT, activation="elu"),
    "bottleneck/image-context": lambda: bottleneck(
        (1, 2, 4), (2, 2, 4), (2, 2, 4), batch_norm=False
    ),
}


_TWO = {"scales": 2, "width": 2}

# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {
    "nice/1": build("nice", (1,)),
    "nice/2": build("nice", (2,), couplings=2),
    "nice/context": build("nice", (5,), CONTEXT, prior="normal"),
    "nice/image": build("nice", SMALL, levels=16),
    "nice/image-logit": build("nice", (1, 3, 3), CONTEXT, alpha=0.05),
    "realnvp/1": build("realnvp", (1,)),
    "realnvp/2": build("realnvp", (2,)),
    "realnvp/2-context": build("realnvp", (2,), {"a": (1,), "b": (2,)}, scale="clamp"),
    "realnvp/integers": build("realnvp", (3,), levels=300),
    "realnvp/image": build("realnvp", IMAGE, **_TWO),
    "realnvp/image-learned": build("realnvp", IMAGE, split="learned", batch_norm=False, **_TWO),
    "realnvp/image-conditional": build("realnvp", IMAGE, CONTEXT, split="conditional", **_TWO),
    "realnvp/image-real": build("realnvp", (1, 3, 4), levels=None, alpha=None),
    "realnvp/image-flat": build("realnvp", (1, 2, 3), flatten=True),
    "revnet/image": build("revnet", (1, 4, 8)),
    "revnet/image-context": build("revnet", SMALL, CONTEXT, blocks=(1,), alpha=0.05),
    "measure_preserving/1": build("measure_preserving", (1,)),
    "measure_preserving/2": build("measure_preserving", (2,)),
    "measure_preserving/2-uniform": build("measure_preserving", (2,), base="uniform"),
    "measure_preserving/context": build("measure_preserving", (3,), CONTEXT),
    "measure_preserving/image": build("measure_preserving", (1, 2, 3), activation="tanh"),
}


for _area in (
    splines,
    monotone,
    neural,
    autoregressive,
    bases,
    continuous,
    linear,
    convex,
    flowpp,
    glow,
    implicit,
    residuals,
    strings,
    tables,
):
    TRANSFORMS |= _area.TRANSFORMS
    FAMILIES |= _area.FAMILIES
    DISTRIBUTIONS |= _area.DISTRIBUTIONS
    CONDITIONERS |= _area.CONDITIONERS
    ZOO |= _area.ZOO


def by_hand() -> Flow:
    """A flow of parts, with an embedding of its context."""
    chain = Chain(
        (2,),
        [
            Standardize,
            partial(Coupling, net=mlp, context_shape=(4,)),
            Rotation,
            ActNorm,
            partial(Coupling, family=Affine("tanh"), net=residual, partition=partial(Halves, flip=True)),
        ],
    )  # fmt: skip
    return Flow(
        chain, DiagonalNormal((2,)), context_shape=(3,), embedding=MLP((3,), (4,), hidden=())
    )


FLOWS: dict[str, Callable[[], Flow]] = {
    **ZOO,
    "by_hand/conditional_base": lambda: Flow(
        Coupling((2,), net=mlp, context_shape=(2,)), ConditionalNormal((2,), (2,), mlp)
    ),
    "by_hand/logit": lambda: Flow(Elementwise((2,), Logit(0.0)), DiagonalNormal((2,))),
    "by_hand/sigmoid": lambda: Flow(
        Chain((1,), [partial(Elementwise, family=Affine("exp")), Inverse(Elementwise((1,), Logit(0.0)))]),
        Uniform((1,)),
    ),
    "by_hand/integers-2": lambda: Flow(
        Chain((2,), [partial(Dequantize, levels=5), partial(Elementwise, family=Rescale((0, 5))),
                     partial(Elementwise, family=Logit(0.0)), partial(Coupling, net=mlp)])
    ),
}  # fmt: skip
for _area in (
    splines,
    monotone,
    neural,
    autoregressive,
    bases,
    continuous,
    linear,
    convex,
    flowpp,
    glow,
    implicit,
    residuals,
    strings,
    tables,
):
    FLOWS |= _area.FLOWS

# Events to test with, where those that the domain gives are no rows of the table.
EVENTS: dict[str, Callable[[], Tensor]] = tables.EVENTS
