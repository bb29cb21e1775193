"""Families: scalar monotone maps with parameters, for use in coupling, autoregressive and elementwise transforms."""

from .activations import Composition, LeakySoftplus, SinhArcsinh, activations
from .affine import Additive, Affine, Scaling
from .base import Family, Inverted
from .fixed import Logit, Rescale
from .mixture import GaussianMixtureCDF, LogisticMixtureCDF, LogisticToNormal
from .numeric import NumericInverse
from .polynomials import Bernstein, SumOfSquares
from .sigmoidal import DeepSigmoid, DenseSigmoid
from .splines import (
    CircularShift,
    CubicSpline,
    LinearRationalSpline,
    LinearSpline,
    QuadraticSpline,
    RationalQuadraticSpline,
)
from .umnn import UMNN

__all__ = [
    "UMNN",
    "Additive",
    "Affine",
    "Bernstein",
    "CircularShift",
    "Composition",
    "CubicSpline",
    "DeepSigmoid",
    "DenseSigmoid",
    "Family",
    "GaussianMixtureCDF",
    "Inverted",
    "LeakySoftplus",
    "LinearRationalSpline",
    "LinearSpline",
    "LogisticMixtureCDF",
    "LogisticToNormal",
    "Logit",
    "NumericInverse",
    "QuadraticSpline",
    "RationalQuadraticSpline",
    "Rescale",
    "Scaling",
    "SinhArcsinh",
    "SumOfSquares",
    "activations",
]
