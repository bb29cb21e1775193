"""Entries of the conformance table: neural monotone families and transforms, and what is built on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import mlp

from diffeo.distributions import Distribution
from diffeo.families import DeepSigmoid, DenseSigmoid, Family
from diffeo.flow import Flow
from diffeo.nets import Conditioner
from diffeo.transforms import Coupling, Elementwise, Transform

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "coupling/deep-sigmoid": lambda: Coupling((3,), DeepSigmoid(2), mlp, context_shape=(2,)),
    "elementwise/dense-sigmoid-context": lambda: Elementwise(
        (2,), DenseSigmoid(2), mlp, context_shape=(2,)
    ),
}
FAMILIES: dict[str, Callable[[], Family]] = {
    "deep_sigmoid": partial(DeepSigmoid, 3),
    "deep_sigmoid/published": partial(DeepSigmoid, 3, spread=0.0, min_slope=0.0),
    "dense_sigmoid": partial(DenseSigmoid, 3),
}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
ZOO: dict[str, Callable[[], Flow]] = {}  # the name before the slash is the model's
FLOWS: dict[str, Callable[[], Flow]] = {}
