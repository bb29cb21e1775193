"""Entries of the conformance table: neural monotone families and transforms, and what is built on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, build, mlp

from diffeo.distributions import Distribution
from diffeo.families import UMNN, DeepSigmoid, DenseSigmoid, Family
from diffeo.flow import Flow
from diffeo.nets import MADE, Conditioner
from diffeo.transforms import Autoregressive, BlockAutoregressive, Coupling, Elementwise, Transform

# The test compares the slope of the quadrature with that of the integral: many nodes, a small bound.
umnn = partial(UMNN, 2, (4,), nodes=40, bound=2.0)
made = partial(MADE, hidden=(4,))

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "coupling/deep-sigmoid": lambda: Coupling((2,), DeepSigmoid(2), mlp, context_shape=(2,)),
    "coupling/dense-sigmoid": lambda: Coupling((2,), DenseSigmoid(2, 1), mlp),
    "coupling/umnn": lambda: Coupling((2,), umnn(), mlp),
    "elementwise/deep-sigmoid": lambda: Elementwise((2,), DeepSigmoid(2)),
    "elementwise/dense-sigmoid-context": lambda: Elementwise(
        (1,), DenseSigmoid(2), mlp, context_shape=CONTEXT
    ),
    "elementwise/umnn": lambda: Elementwise((1,), umnn()),
    "autoregressive/dense-sigmoid": lambda: Autoregressive((2,), DenseSigmoid(2, 1), made),
    "autoregressive/umnn-context": lambda: Autoregressive(
        (2,), umnn(), made, context_shape=CONTEXT
    ),
    "bnaf": lambda: BlockAutoregressive((3,), width=2, layers=2),
    "bnaf/1d": lambda: BlockAutoregressive((1,), width=2, context_shape={"a": (2,), "b": (1,)}),
    "bnaf/event": lambda: BlockAutoregressive((1, 1, 2), width=2, context_shape=CONTEXT),
}
FAMILIES: dict[str, Callable[[], Family]] = {
    "deep_sigmoid": partial(DeepSigmoid, 3),
    "deep_sigmoid/nearly-published": partial(DeepSigmoid, 3, spread=0.0, min_slope=1e-6),
    "dense_sigmoid": partial(DenseSigmoid, 3),
    "umnn": umnn,
}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {
    "naf/2-context": build("naf", (2,), CONTEXT),
    "naf/1": build("naf", (1,), family="dense", layers=1),
    "umnn/1-context": build("umnn", (1,), CONTEXT, layers=1, nodes=40, bound=2.0),
    "bnaf/2-context": build("bnaf", (2,), {"a": (1,), "b": (2,)}),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
