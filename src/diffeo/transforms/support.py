"""ToReal: entries that live on intervals and half lines as real numbers, so that a flow never leaves its support."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..parts import as_shape, register, sum_event
from ..properties import Domain, Properties
from .base import Context, Transform

Bounds = Sequence[float | None] | float | None
_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


@register
class ToReal(Transform):
    """z = Phi^-1((x - low) / (high - low)), log(x - low), -log(high - x) or x, as each entry has bounds.

    low, high: one number or None for all entries, or one of them per entry of the flattened event. A uniform variable
    becomes N(0, 1), and a log-normal one Gaussian. Both ends belong to the support, with the value of the nearest
    number inside; the inverse gives numbers strictly inside. Points outside have ladj = -inf.

    Raises ConfigError where low is not below high, or their number is not that of the entries.
    """

    def __init__(self, event_shape: Sequence[int], low: Bounds = None, high: Bounds = None) -> None:
        super().__init__(event_shape)
        size = math.prod(as_shape(event_shape))
        self.low = _numbers(low, size, -math.inf)
        self.high = _numbers(high, size, math.inf)
        for i, (a, b) in enumerate(zip(self.low, self.high, strict=True)):
            if not a < b:
                raise ConfigError(f"{self.name} needs low < high, got {a} and {b} for entry {i}")
        self.properties = Properties(
            domain=Domain(min(self.low, default=0.0), max(self.high, default=1.0)),
            constant_ladj=not self._bounded,
            volume_preserving=not self._bounded,
        )

    @property
    def _bounded(self) -> bool:
        return any(map(math.isfinite, self.low + self.high))

    def _limits(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """low, high, and which entries have them; from numbers in full precision, exact in every dtype."""
        low, high = (
            torch.tensor(v, dtype=like.dtype, device=like.device).reshape(self.event_shape)
            for v in (self.low, self.high)
        )
        return low, high, low.isfinite(), high.isfinite()

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if not self._bounded:
            return x, x.new_zeros(x.shape[0])
        low, high, below, above = self._limits(x)
        tiny = torch.finfo(x.dtype).tiny
        inside = (x >= low) & (x <= high)
        both, one = below & above, below ^ above
        # Each branch gets numbers that it can take, so that no NaN reaches a gradient.
        width = torch.where(both, high - low, 1.0)
        share = torch.where(both & inside, (x - torch.where(both, low, 0.0)) / width, 0.5)
        rest = torch.where(both & inside, (torch.where(both, high, 0.0) - x) / width, 0.5)
        left = share < rest
        z = torch.special.ndtri(torch.where(left, share, rest).clamp(min=tiny))
        ladj = 0.5 * z.square() + _HALF_LOG_TAU - width.log()
        z = torch.where(left, z, -z)
        distance = torch.where(below, x - torch.where(below, low, 0.0), 1.0)
        distance = torch.where(above, torch.where(above, high, 0.0) - x, distance)
        log = torch.where(one & inside, distance, 1.0).clamp(min=tiny).log()
        z = torch.where(both, z, torch.where(one, torch.where(below, log, -log), x))
        ladj = torch.where(both, ladj, torch.where(one, -log, 0.0))
        return z, sum_event(torch.where(inside, ladj, -math.inf))

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if not self._bounded:
            return z, z.new_zeros(z.shape[0])
        low, high, below, above = self._limits(z)
        both, one = below & above, below ^ above
        a, b = torch.where(below, low, 0.0), torch.where(above, high, 0.0)
        width = torch.where(both, high - low, 1.0)
        inner = torch.where(both, z, 0.0)
        share = width * torch.special.ndtr(-inner.abs())
        x = torch.where(inner < 0, a + share, b - share)
        ladj = width.log() - 0.5 * inner.square() - _HALF_LOG_TAU
        log = torch.where(one, torch.where(below, z, -z), 0.0)
        x = torch.where(one, torch.where(below, a + log.exp(), b - log.exp()), x)
        x = torch.where(both | one, x, z)
        # A sum may round to the end itself.
        x = x.clamp(torch.nextafter(low, high), torch.nextafter(high, low))
        return x, sum_event(torch.where(both, ladj, log))

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "low": [v if math.isfinite(v) else None for v in self.low],
            "high": [v if math.isfinite(v) else None for v in self.high],
        }

    def extra_repr(self) -> str:
        return f"{self.event_shape}, low={self.low}, high={self.high}"


def _numbers(bounds: Bounds, size: int, none: float) -> tuple[float, ...]:
    given = [bounds] * size if bounds is None or isinstance(bounds, int | float) else list(bounds)
    if len(given) != size:
        raise ConfigError(f"ToReal needs {size} bounds, one per entry, got {len(given)}")
    return tuple(none if v is None else float(v) for v in given)
