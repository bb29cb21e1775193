"""Data sets: built-in ones, 2-D densities with a known log-density, and files."""

from .datasets import builtin_names, load
from .densities import Density2D, density, density_names
from .schema import Data

__all__ = ["Data", "Density2D", "builtin_names", "density", "density_names", "load"]
