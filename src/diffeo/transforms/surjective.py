"""Surjections: dequantization of integers, whose likelihood is a lower bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..noise import draw
from ..parts import register, sum_event
from ..properties import Domain, Properties
from .base import Context, Noise, Transform


@register
class Dequantize(Transform):
    """v = x + u, u uniform on [0, 1), for integers x in 0 .. levels - 1: log P(x) >= E_u log p(x + u), ladj = 0.

    v lies in [0, levels), its floor is x. The inverse is floor, held to the valid levels; it gives uint8 up to 256
    levels, else int64. Integers out of range have ladj -inf. Uria et al., RNADE, 2013, arXiv:1306.0186; Theis et al.,
    2016, arXiv:1511.01844.
    """

    def __init__(self, event_shape: Sequence[int], levels: int = 256) -> None:
        super().__init__(event_shape)
        if levels < 2:
            raise ConfigError(f"Dequantize needs at least 2 levels, got {levels}")
        self.quanta = levels
        self.dtype = torch.uint8 if levels <= 256 else torch.int64
        # Says in which dtype and on which device noise is drawn where the caller does not.
        self.like: Tensor
        self.register_buffer("like", torch.zeros(()))
        self.properties = Properties(
            kind="bound",
            measure="counting",
            domain=Domain(0, levels - 1, integer=True),
            codomain=Domain(0, levels),
            constant_ladj=True,
        )

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def dequantizes(self) -> bool:
        return True

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        center: bool = False,
        like: Tensor | None = None,
    ) -> Noise:
        shape = (n, *self.event_shape)
        like = self.like if like is None else like
        if center:
            return torch.full(shape, 0.5, dtype=like.dtype, device=like.device)
        return draw(shape, like, generator, normal=False)

    def forward(
        self, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        x, inside, noise = self._number(x, noise)
        # A sum that rounds up to the next integer would leave the bin, and the domain at the last one.
        noise = noise.clamp(max=1 - self._slack(noise.dtype))
        outside = torch.where(inside, torch.zeros_like(noise), torch.full_like(noise, -math.inf))
        return x + noise, sum_event(outside)

    def _number(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """x as a real number, whether it is a valid level, and the noise."""
        if noise is None:
            noise = self.draw(x.shape[0])
        assert isinstance(noise, Tensor)
        noise = noise.to(x.device)
        # Compared as uint8, 256 would be 0.
        x = x.to(noise.dtype)
        return x, (x >= 0) & (x < self.quanta), noise

    def _slack(self, dtype: torch.dtype) -> float:
        """Noise this much below 1 keeps x + noise below x + 1 in the dtype."""
        return min(0.5, self.quanta * torch.finfo(dtype).eps)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        x = z.floor().clamp(0, self.quanta - 1).to(self.dtype)
        return x, z.new_zeros(z.shape[0])

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "levels": self.quanta}

    def extra_repr(self) -> str:
        return f"{self.event_shape}, levels={self.quanta}"
