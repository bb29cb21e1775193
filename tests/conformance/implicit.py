"""Entries of the conformance table: implicit transforms, and the models of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, build

from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import Conditioner, LipschitzConvNet, LipschitzMLP
from diffeo.transforms import Exact, Implicit, Roulette, Transform

near = partial(LipschitzMLP, hidden=(2,), coeff=0.3)
mlp = partial(LipschitzMLP, hidden=(4,), coeff=0.8)

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "implicit": lambda: Implicit((2,), near, estimator=Exact()),
    "implicit/image-context": lambda: Implicit(
        (1, 2, 2),
        partial(LipschitzConvNet, width=2, activation="sin"),
        estimator=Exact(),
        context_shape=(2,),
        method="anderson",
    ),
    "implicit/roulette": lambda: Implicit((2,), mlp, near, estimator=Roulette(exact_terms=1)),
}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {
    "impflow/image": build(
        "impflow",
        (1, 2, 4),
        levels=17,
        blocks=(1,),
        image_coeff=0.3,
        estimator="series",
        terms=2,
    ),
    "impflow/2": build(
        "impflow",
        (2,),
        CONTEXT,
        depth=1,
        estimator="exact",
        hidden=(3,),
        coeff=0.3,
        method="picard",
    ),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
