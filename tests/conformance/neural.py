"""Entries of the conformance table: neural monotone families and transforms, and what is built on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, build, mlp

from diffeo.distributions import Distribution
from diffeo.families import UMNN, DeepSigmoid, DenseSigmoid, Family
from diffeo.flow import Flow
from diffeo.nets import Conditioner
from diffeo.transforms import BlockAutoregressive, Coupling, Elementwise, Transform

# The test compares the slope of the quadrature with that of the integral, so it needs many nodes.
umnn = partial(UMNN, hidden=(4, 4), nodes=100, bound=4.0)

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "coupling/deep-sigmoid": lambda: Coupling((3,), DeepSigmoid(2), mlp, context_shape=(2,)),
    "elementwise/dense-sigmoid-context": lambda: Elementwise(
        (2,), DenseSigmoid(2), mlp, context_shape=(2,)
    ),
    "coupling/umnn": lambda: Coupling((3,), umnn(2), mlp),
    "bnaf": lambda: BlockAutoregressive((3,), width=3, layers=2),
    "bnaf/1d": lambda: BlockAutoregressive((1,), width=2, context_shape={"a": (2,), "b": (1,)}),
    "bnaf/event": lambda: BlockAutoregressive((1, 1, 2), width=2, context_shape=CONTEXT),
}
FAMILIES: dict[str, Callable[[], Family]] = {
    "deep_sigmoid": partial(DeepSigmoid, 3),
    "deep_sigmoid/published": partial(DeepSigmoid, 3, spread=0.0, min_slope=1e-6),
    "dense_sigmoid": partial(DenseSigmoid, 3),
    "umnn": partial(umnn, 2),
    "umnn/published": partial(UMNN, 2, (4,), nodes=200, activation="tanh", min_slope=1e-6),
}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {
    "naf/2-context": build("naf", (2,), CONTEXT),
    "naf/1": build("naf", (1,), family="dense", layers=1),
    "umnn/1-context": build("umnn", (1,), CONTEXT, nodes=200, bound=4.0),
    "umnn/2": build("umnn", (2,), nodes=200, bound=4.0),
    "bnaf/2": build("bnaf", (2,)),
    "bnaf/context": build("bnaf", (3,), {"a": (1,), "b": (2,)}, depth=2),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
