"""Entries of the conformance table: spline families, and what is built on them."""

from __future__ import annotations

from collections.abc import Callable

from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import Conditioner
from diffeo.transforms import Transform

TRANSFORMS: dict[str, Callable[[], Transform]] = {}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
ZOO: dict[str, Callable[[], Flow]] = {}  # the name before the slash is the model's
FLOWS: dict[str, Callable[[], Flow]] = {}
