"""Sequences of symbols: a flow over dequantized integers whose likelihood is exact.

The density is constant in every bin, so that it does not matter where in its bin the noise puts a number. Nielsen and
Winther. Closing the dequantization gap: PixelCNN as a single-layer flow. 2020, arXiv:2002.02547.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..nets import CausalTransformer, make_net
from ..parts import ContextShape, Shape, register, sum_event
from ..properties import UNIT, Domain, Properties
from .base import Context, Transform
from .surjective import Dequantize

LEAST = 1e-5
"""The least probability of a symbol: a bin on [0, 1] that the rounding of a network in float32 does not move away."""
AFTER = 1e-6
"""The same after the end, where no network has a say."""
_CERTAIN = 50.0


@register
class DequantizeBins(Dequantize):
    """`Dequantize` before a density that is constant in every bin, as that of `SymbolAutoregressive`: exact.

    log P(x) = log p(x + u) for every u, so nothing is lost by drawing one.
    """

    def __init__(self, event_shape: Sequence[int], levels: int = 256) -> None:
        super().__init__(event_shape, levels)
        self.properties = replace(self.properties, kind="exact")


@register
class SymbolAutoregressive(Transform):
    """z_i = sum_{k < c_i} p_k + p_{c_i} (x_i - c_i), c = floor(x), p = P(c_i | c_<i, context); ladj = sum log p_{c_i}.

    x in [0, levels]^T, z in (0, 1)^T: the distribution function of a categorical distribution, linear in every bin,
    whose probabilities softmax(net) see the symbols before, not where in their bins they are. So z is uniform, and the
    density of x is the probability of the symbols. net: a `CausalTransformer` from one-hot [T, levels] to [T, levels],
    or a callable that makes one. end: a symbol that only itself follows. Every probability is at least LEAST, after the
    end AFTER (or 1 % of 1 / levels), so each bin has an inverse.

    The inverse goes place by place. Raises ShapeError for events that are no sequence, ConfigError for another network.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int,
        net: nn.Module | Callable[[Shape, Shape, ContextShape], nn.Module] = CausalTransformer,
        *,
        end: int | None = None,
        context_shape: Any = None,
    ) -> None:
        super().__init__(event_shape, context_shape=context_shape)
        if len(self.event_shape) != 1 or not self.event_shape[0]:
            raise ShapeError(f"{self.name} takes sequences (length,), got {self.event_shape}")
        if levels < 2 or (end is not None and not 0 <= end < levels):
            raise ConfigError(
                f"{self.name} needs 2 or more levels, and an end among them, got {levels}, {end}"
            )
        self.quanta, self.end = levels, end
        self.least, self.after = min(LEAST, 0.01 / levels), min(AFTER, 0.01 / levels)
        shape = (self.event_shape[0], levels)
        self.net = make_net(net, shape, shape, self.context_shape, owner=self.name)
        if not isinstance(self.net, CausalTransformer):
            raise ConfigError(
                f"{self.name} needs a network whose rows see those before them, a CausalTransformer, got "
                f"{type(self.net).__name__}"
            )
        self.properties = Properties(
            domain=Domain(0, levels),
            codomain=UNIT,
            inverse="sequential",
        )

    def probabilities(self, symbols: Tensor, context: Context, dtype: torch.dtype) -> Tensor:
        """P(c_i = k | c_<i), [batch, T, levels], from integer symbols [batch, T]."""
        hot = self._hot(symbols).to(dtype)
        logits = self.net(hot, context).reshape(hot.shape).to(dtype)
        ends = (symbols == self.end).to(torch.int64) if self.end is not None else None
        return self._shares(logits, None if ends is None else ends.cumsum(1) > ends)

    def _shares(self, logits: Tensor, ended: Tensor | None) -> Tensor:
        """Probabilities [..., levels]; where a sequence has ended, those of the end."""
        shares = _at_least(logits, self.least)
        if ended is None:
            return shares
        stop = _CERTAIN * self._hot(torch.full_like(ended, self.end or 0, dtype=torch.int64))
        after = _at_least(stop.to(logits.dtype), self.after)
        return torch.where(ended[..., None], after, shares)

    def _hot(self, symbols: Tensor) -> Tensor:
        # torch's own one_hot looks at values, which vmap and export refuse.
        return symbols[..., None] == torch.arange(self.quanta, device=symbols.device)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        symbols = x.detach().nan_to_num().floor().clamp(0, self.quanta - 1).long()
        shares = self.probabilities(symbols, context, x.dtype)
        low, p = _bin(shares, symbols)
        z = _open(low + p * (x - symbols))
        inside = (x >= 0) & (x <= self.quanta)
        return z, sum_event(torch.where(inside, p.log(), torch.full_like(p, -math.inf)))

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        assert isinstance(self.net, CausalTransformer)
        progress = self.net.begin(context)
        symbol = torch.zeros_like(z[:, 0], dtype=torch.int64)
        ended = torch.zeros_like(symbol, dtype=torch.bool)
        most = 1 - self.quanta * torch.finfo(z.dtype).eps
        values, slopes = [], []
        for u in z.unbind(1):
            logits, progress = self.net.step(progress, self._hot(symbol).to(z.dtype))
            shares = self._shares(logits.to(z.dtype), None if self.end is None else ended)
            # A sum of comparisons: few levels, and no search that vmap or export would refuse.
            symbol = (u.detach()[:, None] >= shares.detach().cumsum(-1)[:, :-1]).sum(-1)
            ended = ended | (symbol == self.end)
            low, p = _bin(shares, symbol)
            values.append(symbol + ((u - low) / p).clamp(0, most))
            slopes.append(-p.log())
        return torch.stack(values, 1), sum_event(torch.stack(slopes, 1))

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "levels": self.quanta,
            "net": self.net,
            "end": self.end,
            "context_shape": self.context_shape,
        }

    def extra_repr(self) -> str:
        return f"{self.event_shape}, levels={self.quanta}, end={self.end}"


def _at_least(logits: Tensor, least: float) -> Tensor:
    return logits.softmax(-1) * (1 - least * logits.shape[-1]) + least


def _bin(shares: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
    """The lower edge and the width of each symbol's bin, the same to the last bit in both directions."""
    index = symbols[..., None]
    p = shares.gather(-1, index)
    low = shares.cumsum(-1).gather(-1, index) - p
    return low[..., 0], p[..., 0]


def _open(z: Tensor) -> Tensor:
    """z off the ends of [0, 1], where latents would be infinite."""
    eps = torch.finfo(z.dtype).eps
    return z.clamp(eps, 1 - eps)
