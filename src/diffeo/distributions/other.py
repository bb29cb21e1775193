"""Logistic and uniform bases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..parts import register, sum_event
from ..properties import Domain
from .base import Context, Distribution


@register
class Logistic(Distribution):
    """Standard logistic: log p = sum -softplus(z) - softplus(-z). The prior of NICE, 2014, arXiv:1410.8516."""

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        return sum_event(-F.softplus(z) - F.softplus(-z))

    def noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        u = self._open_rand(n, generator)
        return u.log() - torch.log1p(-u)


@register
class Uniform(Distribution):
    """Uniform on [low, high]: log p = -D log(high - low), and -inf outside."""

    def __init__(self, event_shape: Sequence[int], low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(event_shape)
        if not low < high:
            raise ConfigError(f"Uniform needs low < high, got {low} and {high}")
        self.low, self.high = float(low), float(high)
        self.domain = Domain(self.low, self.high)

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        inside = (z >= self.low) & (z <= self.high)
        density = torch.full_like(z, -math.log(self.high - self.low))
        return sum_event(torch.where(inside, density, torch.full_like(z, -math.inf)))

    def noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        return self._rand(n, generator) - 0.5

    def place(self, noise: Tensor, context: Context) -> Tensor:
        return (self.low + self.high) / 2 + (self.high - self.low) * noise

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "low": self.low, "high": self.high}

    def extra_repr(self) -> str:
        return f"{self.event_shape}, [{self.low:g}, {self.high:g}]"
