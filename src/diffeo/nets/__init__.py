"""Networks: the conditioners that turn the visible part of an event, and a context, into parameters."""

from .base import ACTIVATIONS, Conditioner, Constant, NetFactory, activation, make_net
from .convolutional import Bottleneck, ConvResNet, WeightNormConv
from .embedding import DeepSet, ImageEmbedding, Join, SeriesEmbedding
from .masked import MADE, AutoregressiveConditioner, ResidualMADE
from .mlp import MLP, ResidualMLP

__all__ = [
    "ACTIVATIONS",
    "MADE",
    "MLP",
    "AutoregressiveConditioner",
    "Bottleneck",
    "Conditioner",
    "Constant",
    "ConvResNet",
    "DeepSet",
    "ImageEmbedding",
    "Join",
    "NetFactory",
    "ResidualMADE",
    "ResidualMLP",
    "SeriesEmbedding",
    "WeightNormConv",
    "activation",
    "make_net",
]
