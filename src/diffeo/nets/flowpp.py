"""Flow++'s network: gated convolutions and gated self-attention over positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..parts import register
from .base import Context
from .convolutional import WeightNormConv, _Convolutional


@register
class GatedAttentionNet(_Convolutional):
    """3x3 convolution, then `blocks` times [gated convolution, norm, gated self-attention, norm], 3x3 output.

    width: feature maps. heads: of the attention, which must divide the width; 0 leaves it out, and only then does no
    parameter depend on the size of the image. Its cost grows with the square of the number of positions. dropout:
    probability in both kinds of blocks. The output is zero at first if `zero_init`. Convolutions are weight-normalized,
    with gains that keep the scale of features for any input: no data-dependent initialization is needed. Ho et al.,
    Flow++, 2019, arXiv:1902.00275.

    Raises ShapeError for what are no images, ConfigError for a width that the heads do not divide.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 32,
        blocks: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        zero_init: bool = True,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape, width)
        if width < 1 or blocks < 0 or heads < 0 or (heads and width % heads):
            raise ConfigError(
                f"GatedAttentionNet needs width >= 1, blocks >= 0 and heads that divide the width, got width {width}, "
                f"blocks {blocks}, heads {heads}"
            )
        self.width = width
        self.heads = heads
        self.dropout = dropout
        self.zero_init = zero_init
        self.first = _convolution(max(self.in_shape[0], 1), width, 3)
        self.places: nn.Parameter | None = None
        if heads and blocks:
            self.places = nn.Parameter(0.01 * torch.randn(width, *self.in_shape[1:]))
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(blocks))
        self.last = WeightNormConv(width, self.out_channels, 3, zero_init=zero_init)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        if not self.in_shape[0]:
            x = x.new_zeros(x.shape[0], 1, *self.in_shape[1:])
        h = self._add_context(self.first(x), context)
        for block in self.blocks:
            h = block(h, self.places)
        return self._output(self.last(h))

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "blocks": len(self.blocks),
            "heads": self.heads,
            "dropout": self.dropout,
            "zero_init": self.zero_init,
        }


class _Block(nn.Module):
    """h + gated convolution, norm, h + gated attention, norm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.convolution = _GatedConvolution(width, dropout)
        self.norm = _ChannelNorm(width)
        self.attention = _GatedAttention(width, heads, dropout) if heads else None
        self.second_norm = _ChannelNorm(width) if heads else None

    def forward(self, h: Tensor, places: Tensor | None) -> Tensor:
        h = self.norm(self.convolution(h))
        if self.attention is None or self.second_norm is None:
            return h
        out: Tensor = self.second_norm(self.attention(h, places))
        return out


class _GatedConvolution(nn.Module):
    """h + a sigmoid(b), (a, b) from elu [h, -h], 3x3, elu [h, -h], 1x1."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.first = _convolution(2 * width, width, 3)
        self.dropout = nn.Dropout(dropout)
        self.last = _convolution(2 * width, 2 * width, 1, gain=0.1)

    def forward(self, h: Tensor) -> Tensor:
        r = _concat_elu(self.first(_concat_elu(h)))
        return h + _gated(self.last(self.dropout(r)))


class _GatedAttention(nn.Module):
    """h + a sigmoid(b), (a, b) from a 1x1 convolution of attention(q, k, v), these from one of h + places."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.project = _convolution(width, 3 * width, 1)
        self.dropout = nn.Dropout(dropout)
        self.last = _convolution(width, 2 * width, 1, gain=0.1)

    def forward(self, h: Tensor, places: Tensor | None) -> Tensor:
        n, channels, height, width = h.shape
        each = channels // self.heads
        projected = self.project(h if places is None else h + places)
        q, k, v = projected.reshape(n, 3, self.heads, each, height * width).unbind(1)
        # Not torch's fused attention, which has no second derivatives on a CPU.
        weights = (q.transpose(-1, -2) @ k * (1 / math.sqrt(each))).softmax(-1)
        out = (v @ weights.transpose(-1, -2)).reshape(n, channels, height, width)
        return h + _gated(self.last(self.dropout(out)))


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every position."""

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h.movedim(1, -1)).movedim(-1, 1)


def _concat_elu(h: Tensor) -> Tensor:
    return F.elu(torch.cat((h, -h), dim=1))


def _gated(h: Tensor) -> Tensor:
    value, gate = h.chunk(2, dim=1)
    return value * gate.sigmoid()


def _convolution(
    in_channels: int, out_channels: int, kernel: int, gain: float = 1.0
) -> WeightNormConv:
    """Outputs of `gain` times the root mean square of the inputs, at first."""
    layer = WeightNormConv(in_channels, out_channels, kernel)
    nn.init.constant_(layer.gain, gain)
    return layer
