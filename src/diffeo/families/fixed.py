"""Families without parameters: the fixed maps of preprocessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..parts import register
from ..properties import Domain, Properties
from .base import Family


@register
class Rescale(Family):
    """y = a x + b, the affine map that takes the interval `source` to `target`; log dy/dx = log a."""

    def __init__(self, source: Sequence[float], target: Sequence[float] = (0.0, 1.0)) -> None:
        super().__init__()
        self.source = (float(source[0]), float(source[1]))
        self.target = (float(target[0]), float(target[1]))
        if self.source[0] >= self.source[1] or self.target[0] >= self.target[1]:
            raise ConfigError(f"Rescale needs low < high, got {source} and {target}")
        self.slope = (self.target[1] - self.target[0]) / (self.source[1] - self.source[0])
        self.properties = Properties(
            domain=Domain(*self.source),
            codomain=Domain(*self.target),
            constant_ladj=True,
            volume_preserving=self.slope == 1.0,
            lipschitz=self.slope,
            inverse_lipschitz=1 / self.slope,
        )

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        y = (x - self.source[0]) * self.slope + self.target[0]
        return y, torch.full_like(x, math.log(self.slope))

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x = (y - self.target[0]) / self.slope + self.source[0]
        return x, torch.full_like(y, -math.log(self.slope))

    def config(self) -> dict[str, Any]:
        return {"source": self.source, "target": self.target}

    def extra_repr(self) -> str:
        return f"{self.source} -> {self.target}"


@register
class Logit(Family):
    """y = log p - log(1 - p), p = alpha + (1 - 2 alpha) x, for x in [0, 1].

    log dy/dx = log(1 - 2 alpha) - log p - log(1 - p), and -inf where p is outside (0, 1). With alpha > 0 the support
    is a little wider than [0, 1]. Dinh et al., Real NVP, 2016, arXiv:1605.08803 (alpha 0.05).
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ConfigError(f"alpha must be in [0, 0.5), got {alpha}")
        self.alpha = alpha
        slack = alpha / (1 - 2 * alpha)
        self.properties = Properties(domain=Domain(-slack, 1 + slack))

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        p = self.alpha + (1 - 2 * self.alpha) * x
        inside = (p > 0) & (p < 1)
        # The inner `where` keeps NaN out of the gradient of points outside the support.
        p = torch.where(inside, p, torch.full_like(p, 0.5))
        log_p, log_q = p.log(), torch.log1p(-p)
        ladj = math.log1p(-2 * self.alpha) - log_p - log_q
        return log_p - log_q, torch.where(inside, ladj, torch.full_like(ladj, -math.inf))

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x = (y.sigmoid() - self.alpha) / (1 - 2 * self.alpha)
        return x, F.logsigmoid(y) + F.logsigmoid(-y) - math.log1p(-2 * self.alpha)

    def config(self) -> dict[str, Any]:
        return {"alpha": self.alpha}

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}"
