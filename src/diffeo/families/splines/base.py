"""Spline: a monotone map of [-bound, bound] made of pieces, and what it does outside."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import ConfigError
from ...properties import Domain, Properties
from ..base import Family

Tails = Literal["linear", "circular"]


class Spline(Family):
    """A monotone piecewise map of [-bound, bound] onto itself; bins: how many pieces.

    tails `linear`: the identity outside. tails `circular`: a map of the circle of length 2 bound, of which -bound is a
    fixed point; every other number stands for the angle that it is modulo 2 bound.

    Raises ConfigError for fewer than 2 bins, a bound that is not positive, or minima that leave no freedom.
    """

    def __init__(
        self, bins: int, bound: float, *, tails: Tails = "linear", **minima: float
    ) -> None:
        super().__init__()
        if bins < 2:
            raise ConfigError(f"{type(self).__name__} needs at least 2 bins, got {bins}")
        if not 0 < bound < math.inf:
            raise ConfigError(f"{type(self).__name__} needs a positive bound, got {bound}")
        for name, minimum in minima.items():
            limit = 1.0 if name == "min_slope" else 1 / bins
            if not 0 < minimum < limit:
                raise ConfigError(
                    f"{type(self).__name__} with {bins} bins needs {name} between 0 and {limit:g}, got {minimum}"
                )
        self.bins = bins
        self.bound = float(bound)
        self.tails = tails
        self.minima = minima
        if tails == "circular":
            circle = Domain(-self.bound, self.bound, periodic=True)
            self.properties = Properties(domain=circle, codomain=circle)

    def piece(self, x: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """The map, or its inverse, and its log-derivative for x in [-bound, bound]; params is [P, ...]."""
        raise ConfigError(f"{type(self).__name__} has no piece")

    def _map(self, x: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        raw = params.movedim(-1, 0)
        if self.tails == "circular":
            return self.piece(wrap(x, self.bound), raw, inverse)
        # Clamped before the arithmetic: what lies outside can then not put NaN into a gradient.
        inside = x.clamp(-self.bound, self.bound)
        y, ladj = self.piece(inside, raw, inverse)
        within = x.abs() < self.bound
        return torch.where(within, y, x), ladj * within

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(x, params, inverse=False)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(y, params, inverse=True)

    def config(self) -> dict[str, Any]:
        return {"bins": self.bins, "bound": self.bound, **self.minima}

    def extra_repr(self) -> str:
        circular = ", circular" if self.tails == "circular" else ""
        return f"{self.bins} bins on [-{self.bound:g}, {self.bound:g}]{circular}"


def wrap(x: Tensor, bound: float) -> Tensor:
    """x modulo 2 bound, in [-bound, bound]; what lies there already stays as it is."""
    turns = ((x + bound) / (2 * bound)).floor()
    return (x - turns * (2 * bound)).clamp(-bound, bound)
