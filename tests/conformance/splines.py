"""Entries of the conformance table: spline families, and what is built on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, build, conv, mlp

from diffeo.distributions import Distribution
from diffeo.families import (
    CircularShift,
    CubicSpline,
    Family,
    LinearRationalSpline,
    LinearSpline,
    QuadraticSpline,
    RationalQuadraticSpline,
)
from diffeo.flow import Flow
from diffeo.nets import Conditioner
from diffeo.transforms import Checkerboard, Coupling, Elementwise, Transform

FAMILIES: dict[str, Callable[[], Family]] = {
    "rational_quadratic": partial(RationalQuadraticSpline, 3, 2.0),
    "rational_quadratic/circular": partial(RationalQuadraticSpline, 2, 2.0, tails="circular"),
    "linear_rational": partial(LinearRationalSpline, 3, 2.0),
    "linear_spline": partial(LinearSpline, 3, 2.0),
    "quadratic_spline": partial(QuadraticSpline, 3, 2.0),
    "cubic_spline": partial(CubicSpline, 3, 2.0),
    "circular_shift": partial(CircularShift, 2.0),
}
TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "coupling/rational_quadratic": lambda: Coupling((3,), RationalQuadraticSpline(3, 2.0), mlp),
    "coupling/rational_quadratic-1d": lambda: Coupling(
        (1,), RationalQuadraticSpline(2), mlp, context_shape=CONTEXT
    ),
    "coupling/rational_quadratic-image": lambda: Coupling(
        (1, 2, 2), RationalQuadraticSpline(2), conv, Checkerboard
    ),
    "coupling/circular": lambda: Coupling(
        (2,), RationalQuadraticSpline(2, 2.0, tails="circular"), mlp, context_shape=CONTEXT
    ),
    "elementwise/rational_quadratic": lambda: Elementwise((2,), RationalQuadraticSpline(3, 2.0)),
    "elementwise/linear_rational": lambda: Elementwise(
        (2,), LinearRationalSpline(3, 2.0), mlp, context_shape=CONTEXT
    ),
}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
ZOO: dict[str, Callable[[], Flow]] = {  # the name before the slash is the model's
    "nsf_coupling/1": build("nsf_coupling", (1,), hidden=(8,), mixing="permutation"),
    "nsf_coupling/2": build("nsf_coupling", (2,), CONTEXT, unconditional=False),
    "nsf_autoregressive/2": build("nsf_autoregressive", (2,), CONTEXT, mixing="none"),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
