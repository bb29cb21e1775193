"""Entries of the conformance table: masked networks, autoregressive and linear transforms, and their models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.conformance.shared import CONTEXT, SMALL, build

from diffeo.distributions import Distribution
from diffeo.families import Additive, Affine, Family, Inverted
from diffeo.flow import Flow
from diffeo.nets import MADE, CausalConvNet, Conditioner, MaskedConvNet, ResidualMADE
from diffeo.transforms import Autoregressive, Inverse, LULinear, Transform

made = partial(MADE, hidden=(8, 8))
resmade = partial(ResidualMADE, width=8, blocks=1)
masked_conv = partial(MaskedConvNet, width=4, blocks=1)
causal_conv = partial(CausalConvNet, width=4, blocks=2)

# Not a chain: 0 -> 1, 2; 1, 2 -> 3; 4 alone.
DIAMOND = [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]


def _auto(*args: Any, **options: Any) -> Callable[[], Transform]:
    return lambda: Autoregressive(*args, **options)


TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "autoregressive": _auto((4,), None, made),
    "autoregressive/1d": _auto((1,), None, made),
    "autoregressive/1d-context": _auto((1,), None, made, context_shape=CONTEXT),
    "autoregressive/context": _auto(
        (4,), Inverted(Affine()), made, order="reverse", context_shape=CONTEXT
    ),
    "autoregressive/context-dict": _auto(
        (3,), None, resmade, order="random", context_shape={"a": (2,), "b": (1, 2)}
    ),
    "autoregressive/additive": _auto((3,), Additive(), made, order=[2, 0, 1]),
    "autoregressive/linear": _auto((3,), None, partial(MADE, hidden=()), context_shape=CONTEXT),
    "autoregressive/residual": _auto((4,), Affine("tanh"), resmade),
    "autoregressive/graph": _auto(
        (5,), None, partial(made, adjacency=DIAMOND), context_shape=CONTEXT
    ),
    "autoregressive/event": _auto((1, 2, 2), None, made, context_shape=CONTEXT),
    "inverse/autoregressive": lambda: Inverse(
        Autoregressive((3,), None, made, context_shape=CONTEXT)
    ),
    "autoregressive/image": _auto((2, 2, 3), None, masked_conv, context_shape=(1, 2, 3)),
    "autoregressive/series": _auto((5,), None, causal_conv, context_shape=CONTEXT),
    "inverse/autoregressive-image": lambda: Inverse(Autoregressive((1, 2, 2), None, masked_conv)),
    "lu_linear": lambda: LULinear((4,)),
    "lu_linear/1d": lambda: LULinear((1,)),
    "lu_linear/image": lambda: LULinear(SMALL, bias=False),
}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {
    "made": lambda: made((4,), (4, 2)),
    "made/context": lambda: made(
        (4,), (4, 2), CONTEXT, activation="gelu", dropout=0.2, order="random"
    ),
    "made/no-hidden": lambda: MADE((3,), (3, 2), {"a": (2,), "b": (1, 2)}, hidden=()),
    "made/graph": lambda: made((5,), (5, 2), adjacency=DIAMOND),
    "made/event": lambda: made((1, 2, 2), (1, 2, 2, 3), order="reverse"),
    "masked_conv": lambda: masked_conv((2, 3, 4), (2, 3, 4, 2)),
    "masked_conv/context": lambda: masked_conv((1, 2, 3), (1, 2, 3, 1), {"a": (2,)}, kernel=5),
    "causal_conv": lambda: causal_conv((6,), (6, 2)),
    "causal_conv/context": lambda: causal_conv((2, 4), (2, 4, 2), (3, 4)),
    "residual_made": lambda: resmade((4,), (4, 2), dropout=0.2),
    "residual_made/context": lambda: resmade((4,), (4, 2), CONTEXT, activation="silu"),
}
# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {
    "maf/1": build("maf", (1,), CONTEXT),
    "maf/2": build("maf", (2,), hidden=(8,), batch_norm=False),
    "maf/context": build("maf", (3,), CONTEXT, order="random"),
    "maf/mixture": build("maf", (2,), layers=1, components=2, batch_norm=False),
    "iaf/2": build("iaf", (2,), layers=1),
    "iaf/context": build("iaf", (3,), {"a": (1,), "b": (2,)}, layers=1),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
