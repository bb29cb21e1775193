"""Entries of the conformance table: input-convex networks and convex potential flows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, build

from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import ICNN, Conditioner, ConvICNN
from diffeo.transforms import ConvexPotential, Transform

icnn = partial(ICNN, hidden=(4, 3))
conv = partial(ConvICNN, hidden=(3, 2))

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "convex": lambda: ConvexPotential((3,), icnn),
    "convex/image-context": lambda: ConvexPotential((2, 2, 3), conv, context_shape=CONTEXT),
    "convex/lanczos": lambda: ConvexPotential((3,), icnn, estimator="lanczos", context_shape=(2,)),
}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {
    "icnn": lambda: icnn((3,), {"a": (2,), "b": (1,)}, context_width=4),
    "icnn/gaussian": lambda: icnn((2,), activation="gaussian", symmetric=False, actnorm=False),
    "icnn/cauchy": lambda: icnn((2,), activation="cauchy", augmented=False),
    "conv_icnn": lambda: conv((2, 2, 3), CONTEXT, activation="laplace", context_width=4),
}
# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {
    "cpflow/2-context": build("cpflow", (2,), CONTEXT),
    "cpflow/image": build("cpflow", (3, 2, 4), scales=2, levels=5),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
