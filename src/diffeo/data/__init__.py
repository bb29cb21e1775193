"""Data sets: built-in ones, 2-D densities with a known log-density, and files."""

from diffeo.data.datasets import Data, builtin_names, load
from diffeo.data.densities import Density2D, density, density_names

__all__ = ["Data", "Density2D", "builtin_names", "density", "density_names", "load"]
