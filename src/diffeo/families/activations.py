"""Monotone activations with learned shapes, and the composition of families: the non-affine maps of flow vocoders.

Gabrys et al., Improving the expressiveness of neural vocoding with non-affine Normalizing Flows, 2021,
arXiv:2106.08649.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, DomainError
from ..parts import register
from ..properties import Properties
from .affine import Affine
from .base import Family
from .numeric import NumericInverse


@register
class Composition(Family):
    """y = f_n(... f_1(x)), each family with its own params, which stand one after the other.

    Raises ConfigError for an empty list, DomainError where a family does not take what the one before it gives.
    """

    def __init__(self, families: Sequence[Family]) -> None:
        super().__init__()
        families = list(families)
        if not families or not all(isinstance(f, Family) for f in families):
            raise ConfigError(f"Composition takes a list of families, got {families!r}")
        properties: Properties = families[0].properties
        for before, after in pairwise(families):
            given, wanted = before.properties.codomain, after.properties.domain
            if given is not None and wanted is not None and not given.within(wanted):
                raise DomainError(
                    f"{type(after).__name__} takes values in {wanted}, but {type(before).__name__} gives {given}"
                )
            properties = properties.then(after.properties)
        self.families = nn.ModuleList(families)
        self.num_params = sum(f.num_params for f in families)
        self.properties = properties

    def _parts(self, params: Tensor) -> list[tuple[Any, Tensor]]:
        families: list[Any] = list(self.families)
        each = params.split([f.num_params for f in families], -1)
        return list(zip(families, each, strict=True))

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(x)
        for family, own in self._parts(params):
            x, ladj = family(x, own)
            total = total + ladj
        return x, total

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros_like(y)
        for family, own in reversed(self._parts(params)):
            y, ladj = family.inverse(y, own)
            total = total + ladj
        return y, total

    def config(self) -> dict[str, Any]:
        return {"families": self.families}


@register
class SinhArcsinh(Family):
    """y = sinh(exp(s) arcsinh(x) + t): heavier or lighter tails by s, skewness by t; x at zero params.

    params: t and raw, both bounded smoothly: s = c tanh(raw / c), and t likewise, c the `bound`. Far out y is about
    |x|^exp(s). Jones, Pewsey, Sinh-arcsinh distributions, Biometrika 96(4), 2009.
    """

    num_params = 2

    def __init__(self, bound: float = 1.0) -> None:
        super().__init__()
        if not 0 < bound <= 1.5:
            raise ConfigError(
                f"bound must be in (0, 1.5], so that float32 holds |x|^exp(bound), got {bound}"
            )
        self.bound = bound

    def _numbers(self, params: Tensor) -> tuple[Tensor, Tensor]:
        t, s = (self.bound * (params / self.bound).tanh()).unbind(-1)
        return t, s

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        t, s = self._numbers(params)
        u = s.exp() * x.asinh() + t
        return u.sinh(), s + log_cosh(u) - log_cosh(x.asinh())

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        t, s = self._numbers(params)
        u = y.asinh()
        v = (u - t) * (-s).exp()
        return v.sinh(), log_cosh(v) - log_cosh(u) - s

    def config(self) -> dict[str, Any]:
        return {"bound": self.bound}

    def extra_repr(self) -> str:
        return f"bound={self.bound:g}"


@register
class LeakySoftplus(NumericInverse):
    """y = exp(a) x + (exp(b) - exp(a)) (softplus(x) - log 2): slope exp(a) far below 0, exp(b) far above; x at zero.

    params: a and b, each bounded smoothly by `bound`. A leaky rectifier with a learned slope on either side, smooth, as
    a flow needs it.
    """

    num_params = 2

    def __init__(self, bound: float = 3.0) -> None:
        super().__init__()
        if not bound > 0:
            raise ConfigError(f"bound must be positive, got {bound}")
        self.bound = bound

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        a, b = (self.bound * (params / self.bound).tanh()).unbind(-1)
        below, above = a.exp(), b.exp()
        y = below * x + (above - below) * (F.softplus(x) - math.log(2))
        return y, torch.logaddexp(a + F.logsigmoid(-x), b + F.logsigmoid(x))

    def config(self) -> dict[str, Any]:
        return {"bound": self.bound}

    def extra_repr(self) -> str:
        return f"bound={self.bound:g}"


def activations(depth: int = 2) -> Composition:
    """depth times an affine map, `SinhArcsinh` and `LeakySoftplus`, then an affine map; 6 depth + 2 params."""
    if depth < 1:
        raise ConfigError(f"depth must be at least 1, got {depth}")
    layers: list[Family] = []
    for _ in range(depth):
        # With powers of at most exp(0.5) each, float32 holds what becomes of 1e4.
        layers += [Affine(), SinhArcsinh(0.5), LeakySoftplus()]
    return Composition([*layers, Affine()])


def log_cosh(x: Tensor) -> Tensor:
    """log cosh x without overflow."""
    return x + F.softplus(-2 * x) - math.log(2)
