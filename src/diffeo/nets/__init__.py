"""Networks: the conditioners that turn the visible part of an event, and a context, into parameters."""

from .base import ACTIVATIONS, Conditioner, Constant, NetFactory, activation, make_net
from .convex import ICNN, ConvICNN, InputConvex
from .convolutional import Bottleneck, ConvResNet, WeightNormConv
from .embedding import DeepSet, ImageEmbedding, Join, SeriesEmbedding
from .fields import ConcatSquash, ConcatSquashConv, Field
from .flowpp import GatedAttentionNet
from .glow import GlowConv, PerChannel, ZeroConv
from .lipschitz import LipschitzConvNet, LipschitzDenseNet, LipschitzMLP, LipschitzNet
from .masked import MADE, AutoregressiveConditioner, ResidualMADE
from .masked_convolutional import CausalConvNet, MaskedConvNet
from .mlp import MLP, ResidualMLP
from .pyramid import Entry, PerPixel, Pyramid
from .scaled import Scaled
from .sequences import CausalTransformer
from .table_features import TableFeatures

__all__ = [
    "ACTIVATIONS",
    "ICNN",
    "MADE",
    "MLP",
    "AutoregressiveConditioner",
    "Bottleneck",
    "CausalConvNet",
    "CausalTransformer",
    "ConcatSquash",
    "ConcatSquashConv",
    "Conditioner",
    "Constant",
    "ConvICNN",
    "ConvResNet",
    "DeepSet",
    "Entry",
    "Field",
    "GatedAttentionNet",
    "GlowConv",
    "ImageEmbedding",
    "InputConvex",
    "Join",
    "LipschitzConvNet",
    "LipschitzDenseNet",
    "LipschitzMLP",
    "LipschitzNet",
    "MaskedConvNet",
    "NetFactory",
    "PerChannel",
    "PerPixel",
    "Pyramid",
    "ResidualMADE",
    "ResidualMLP",
    "Scaled",
    "SeriesEmbedding",
    "TableFeatures",
    "WeightNormConv",
    "ZeroConv",
    "activation",
    "make_net",
]
