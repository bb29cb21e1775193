"""Entries of the conformance table: continuous flows.

Short times and few steps: the discretization stays below the oracle's tolerance, and a call is a few evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, SMALL, build

from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import ConcatSquash, ConcatSquashConv, Conditioner
from diffeo.transforms import Continuous, Transform

field = partial(ConcatSquash, hidden=(4,))
images = partial(ConcatSquashConv, channels=(2,), gated=False, activation="silu")
short = partial(Continuous, field=field, time=0.1, solver="rk4", steps=1)

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "continuous": lambda: short((2,)),
    "continuous/hutchinson": lambda: short((3,), trace="hutchinson", context_shape=CONTEXT),
    "continuous/gaussian-probe": lambda: short((2,), trace="hutchinson", probe="gaussian"),
    "continuous/image": lambda: short((2, 1, 2), field=images, context_shape=CONTEXT),
    "continuous/adaptive": lambda: short(
        (2,), learn_time=True, solver="dopri5", steps=None, rtol=1e-7, atol=1e-7
    ),
}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
ZOO: dict[str, Callable[[], Flow]] = {  # the name before the slash is the model's
    "ffjord/2": build("ffjord", (2,)),
    "ffjord/context": build("ffjord", (1,), CONTEXT),
    "ffjord/image": build("ffjord", SMALL, CONTEXT, split="conditional"),
    "flow_matching/image": build("flow_matching", (1, 2, 3), levels=16),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
