"""Distributions: the bases of flows."""

from .base import Distribution, Parametric
from .copula import Copula, Product, frozen
from .location_scale import LocationScale
from .normal import ConditionalNormal, DiagonalNormal, GaussianMixture, StandardNormal
from .other import Logistic, Uniform
from .tail_index import hill, kernel, light_first, moment, tail_adaptive, tail_indices
from .tails import GeneralizedNormal, Laplace, StudentT

__all__ = [
    "ConditionalNormal",
    "Copula",
    "DiagonalNormal",
    "Distribution",
    "GaussianMixture",
    "GeneralizedNormal",
    "Laplace",
    "LocationScale",
    "Logistic",
    "Parametric",
    "Product",
    "StandardNormal",
    "StudentT",
    "Uniform",
    "frozen",
    "hill",
    "kernel",
    "light_first",
    "moment",
    "tail_adaptive",
    "tail_indices",
]
