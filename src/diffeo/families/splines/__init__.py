"""Monotone splines."""

from .linear_rational import LinearRationalSpline
from .polynomial import CubicSpline, LinearSpline, QuadraticSpline
from .rational_quadratic import RationalQuadraticSpline
from .shift import CircularShift

__all__ = [
    "CircularShift",
    "CubicSpline",
    "LinearRationalSpline",
    "LinearSpline",
    "QuadraticSpline",
    "RationalQuadraticSpline",
]
