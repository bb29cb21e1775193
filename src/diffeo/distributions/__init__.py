"""Distributions: the bases of flows."""

from .base import Distribution
from .normal import ConditionalNormal, DiagonalNormal, GaussianMixture, StandardNormal
from .other import Logistic, Uniform

__all__ = [
    "ConditionalNormal",
    "DiagonalNormal",
    "Distribution",
    "GaussianMixture",
    "Logistic",
    "StandardNormal",
    "Uniform",
]
