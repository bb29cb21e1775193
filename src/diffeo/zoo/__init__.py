"""The zoo: published models by name."""

from .base import Card, build, card, names
from .measure_preserving import measure_preserving
from .nice import nice
from .realnvp import realnvp
from .revnet import revnet

__all__ = [
    "Card",
    "build",
    "card",
    "measure_preserving",
    "names",
    "nice",
    "realnvp",
    "revnet",
]
