"""Monotone splines."""

from .rational_quadratic import RationalQuadraticSpline

__all__ = ["RationalQuadraticSpline"]
