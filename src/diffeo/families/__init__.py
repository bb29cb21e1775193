"""Families: scalar monotone maps with parameters, for use in coupling, autoregressive and elementwise transforms."""

from .affine import Additive, Affine, Scaling
from .base import Family, Inverted
from .fixed import Logit, Rescale
from .sigmoidal import DeepSigmoid, DenseSigmoid
from .splines import RationalQuadraticSpline
from .umnn import UMNN

__all__ = [
    "UMNN",
    "Additive",
    "Affine",
    "DeepSigmoid",
    "DenseSigmoid",
    "Family",
    "Inverted",
    "Logit",
    "RationalQuadraticSpline",
    "Rescale",
    "Scaling",
]
