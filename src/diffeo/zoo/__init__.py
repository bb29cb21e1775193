"""The zoo: published models by name."""

from .base import Card, build, card, names
from .bernstein import bernstein
from .bnaf import bnaf
from .gaussianization import gaussianization
from .measure_preserving import measure_preserving
from .naf import naf
from .nice import nice
from .realnvp import realnvp
from .revnet import revnet
from .sos import sos
from .umnn import umnn

__all__ = [
    "Card",
    "bernstein",
    "bnaf",
    "build",
    "card",
    "gaussianization",
    "measure_preserving",
    "naf",
    "names",
    "nice",
    "realnvp",
    "revnet",
    "sos",
    "umnn",
]
