"""Data sets: built-in ones, 2-D densities with a known log-density, files, and folders of pictures."""

from .datasets import builtin_names, load
from .densities import Density2D, density, density_names
from .given import given_of
from .schema import Data
from .stream import Table, open_table
from .typed import load_typed, schema_of

__all__ = [
    "Data",
    "Density2D",
    "Table",
    "builtin_names",
    "density",
    "density_names",
    "given_of",
    "load",
    "load_typed",
    "open_table",
    "schema_of",
]
