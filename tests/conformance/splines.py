"""Entries of the conformance table: spline families, and what is built on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, conv, mlp

from diffeo.distributions import Distribution
from diffeo.families import Family, RationalQuadraticSpline
from diffeo.flow import Flow
from diffeo.nets import Conditioner
from diffeo.transforms import Checkerboard, Coupling, Elementwise, Transform

FAMILIES: dict[str, Callable[[], Family]] = {
    "rational_quadratic": partial(RationalQuadraticSpline, 4, 2.0),
    "rational_quadratic/circular": partial(RationalQuadraticSpline, 3, 2.0, tails="circular"),
}
TRANSFORMS: dict[str, Callable[[], Transform]] = {
    **{
        f"coupling/{name}": lambda make=make: Coupling((3,), make(), mlp)  # type: ignore[misc]
        for name, make in FAMILIES.items()
    },
    **{
        f"elementwise/{name}": lambda make=make: Elementwise((2,), make())  # type: ignore[misc]
        for name, make in FAMILIES.items()
    },
    **{
        f"elementwise/{name}-context": lambda make=make: Elementwise(  # type: ignore[misc]
            (2,), make(), mlp, context_shape=CONTEXT
        )
        for name, make in FAMILIES.items()
    },
    "coupling/rational_quadratic-1d": lambda: Coupling((1,), RationalQuadraticSpline(3), mlp),
    "coupling/rational_quadratic-image": lambda: Coupling(
        (1, 2, 3), RationalQuadraticSpline(3), conv, Checkerboard, context_shape=CONTEXT
    ),
}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
ZOO: dict[str, Callable[[], Flow]] = {}  # the name before the slash is the model's
FLOWS: dict[str, Callable[[], Flow]] = {}
