"""Transforms: invertible maps between data and latents, with their log-likelihood contributions."""

from .autoregressive import Autoregressive
from .base import Chain, Inverse, Level, Transform
from .bnaf import BlockAutoregressive
from .continuous import Continuous
from .convex import ConvexPotential
from .convolution import InvertibleConv1x1
from .coupling import Coupling
from .dequantization import VariationalDequantize
from .elementwise import Elementwise
from .gaussianization import MarginalGaussianization
from .householder import Householder
from .implicit import Implicit
from .label_prior import LabelPrior
from .linear import Permutation, Rotation
from .linear_lu import LULinear
from .logdet import Exact, LogDet, PowerSeries, Roulette
from .multiscale import Split, split_whitened
from .normalization import ActNorm, BatchNorm, Standardize
from .partitions import Alternating, Checkerboard, Halves, Mask, Partition
from .periodic import PeriodicConv
from .reshape import Flatten, Squeeze, unsqueeze
from .residual import Residual
from .support import ToReal
from .surjective import Dequantize
from .symbols import DequantizeBins, SymbolAutoregressive
from .typed_columns import TypedColumns

__all__ = [
    "ActNorm",
    "Alternating",
    "Autoregressive",
    "BatchNorm",
    "BlockAutoregressive",
    "Chain",
    "Checkerboard",
    "Continuous",
    "ConvexPotential",
    "Coupling",
    "Dequantize",
    "DequantizeBins",
    "Elementwise",
    "Exact",
    "Flatten",
    "Halves",
    "Householder",
    "Implicit",
    "Inverse",
    "InvertibleConv1x1",
    "LULinear",
    "LabelPrior",
    "Level",
    "LogDet",
    "MarginalGaussianization",
    "Mask",
    "Partition",
    "PeriodicConv",
    "Permutation",
    "PowerSeries",
    "Residual",
    "Rotation",
    "Roulette",
    "Split",
    "Squeeze",
    "Standardize",
    "SymbolAutoregressive",
    "ToReal",
    "Transform",
    "TypedColumns",
    "VariationalDequantize",
    "split_whitened",
    "unsqueeze",
]
