"""Networks: the conditioners that turn the visible part of an event, and a context, into parameters."""

from .base import ACTIVATIONS, Conditioner, Constant, NetFactory, activation, make_net
from .convolutional import Bottleneck, ConvResNet, WeightNormConv
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
    "NetFactory",
    "ResidualMADE",
    "ResidualMLP",
    "WeightNormConv",
    "activation",
    "make_net",
]
