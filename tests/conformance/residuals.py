"""Entries of the conformance table: Lipschitz networks, residual transforms, and the models of them."""

from __future__ import annotations

from collections.abc import Callable

from tests.conformance.shared import CONTEXT

from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import Conditioner, LipschitzConvNet, LipschitzDenseNet, LipschitzMLP
from diffeo.transforms import Transform

TRANSFORMS: dict[str, Callable[[], Transform]] = {}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {
    "lipschitz_mlp": lambda: LipschitzMLP((3,), (3,), CONTEXT, hidden=(4,)),
    "lipschitz_mlp/learned": lambda: LipschitzMLP((3,), (3,), hidden=(4,), norm="learned"),
    "lipschitz_mlp/1-inf": lambda: LipschitzMLP(
        (2,), (2,), hidden=(4,), norm=(1, float("inf"), 1), activation="elu", preactivation=True
    ),
    "lipschitz_conv": lambda: LipschitzConvNet((2, 2, 3), (2, 2, 3), CONTEXT, width=3),
    "lipschitz_dense": lambda: LipschitzDenseNet((3,), (3,), {"a": (1,), "b": (2,)}, growth=4),
    "lipschitz_dense/image": lambda: LipschitzDenseNet((1, 2, 3), (1, 2, 3), depth=2, growth=4),
}
# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {}
FLOWS: dict[str, Callable[[], Flow]] = {}
