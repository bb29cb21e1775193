"""Networks: the conditioners that turn the visible part of an event, and a context, into parameters."""

from .base import ACTIVATIONS, Conditioner, Constant, NetFactory, activation, make_net
from .convolutional import Bottleneck, ConvResNet, WeightNormConv
from .mlp import MLP, ResidualMLP

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Bottleneck",
    "Conditioner",
    "Constant",
    "ConvResNet",
    "NetFactory",
    "ResidualMLP",
    "WeightNormConv",
    "activation",
    "make_net",
]
