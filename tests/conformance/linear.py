"""Entries of the conformance table for maps that are linear along the first axis."""

from __future__ import annotations

from collections.abc import Callable

from tests.conformance.shared import SMALL

from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import Conditioner
from diffeo.transforms import Householder, InvertibleConv1x1, PeriodicConv, Transform

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "conv1x1": lambda: InvertibleConv1x1(SMALL),
    "conv1x1/vector": lambda: InvertibleConv1x1((5,)),
    "conv1x1/1d": lambda: InvertibleConv1x1((1,)),
    "conv1x1/series": lambda: InvertibleConv1x1((3, 4)),
    "conv1x1_direct": lambda: InvertibleConv1x1(SMALL, "direct"),
    "conv1x1_direct/vector": lambda: InvertibleConv1x1((5,), "direct"),
    "householder": lambda: Householder((5,), 3),
    "householder/image": lambda: Householder(SMALL),
    "householder/1d": lambda: Householder((1,), 2),
    "periodic_conv": lambda: PeriodicConv(SMALL),
    "periodic_conv/odd": lambda: PeriodicConv((2, 3, 5)),
    "periodic_conv/wraps-twice": lambda: PeriodicConv((2, 1, 2), 5),
    "periodic_conv/pointwise": lambda: PeriodicConv((1, 4, 1), 1),
}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
ZOO: dict[str, Callable[[], Flow]] = {}
FLOWS: dict[str, Callable[[], Flow]] = {}
