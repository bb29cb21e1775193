"""Convolutional conditioners: Real NVP's weight-normalized residual network, and the bottleneck of RevNets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import ContextShape, register
from .base import Conditioner, Context, activation
from .mlp import context_size, flat_context


class WeightNormConv(nn.Module):
    """w = g v / |v| per output channel, the gain g learned or 1. Salimans & Kingma, 2016, arXiv:1602.07868."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        learn_gain: bool = True,
        bias: bool = True,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        std = math.sqrt(2 / max(in_channels, 1))
        self.direction = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        nn.init.uniform_(self.direction, -std, std)
        # The norm of `direction` at the start: the layer begins as the unnormalized one would.
        gain = 0.0 if zero_init else std * math.sqrt(in_channels * kernel**2 / 3)
        self.learn_gain = learn_gain
        self.gain: Tensor
        if learn_gain:
            self.gain = nn.Parameter(torch.full((out_channels, 1, 1, 1), gain))
        else:
            # A layer without gain has rows of norm 1, as published.
            self.register_buffer("gain", torch.ones(out_channels, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def weight(self) -> Tensor:
        """The normalized kernel."""
        norm = self.direction.square().sum((1, 2, 3), keepdim=True).sqrt()
        weight = self.direction * (self.gain / norm.clamp(min=1e-12))
        # Feature maps follow this layout, in which norms and convolutions run faster.
        return weight.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight(), self.bias, padding=self.direction.shape[-1] // 2)


class _Norm(nn.Module):
    """Batch norm without gain, with bias, as in Real NVP's networks; or only the bias."""

    def __init__(self, channels: int, batch_norm: bool) -> None:
        super().__init__()
        self.norm = (
            nn.BatchNorm2d(channels, eps=1e-4, momentum=0.1, affine=False)
            if batch_norm
            else nn.Identity()
        )
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x) + self.bias
        return out


class ContextMap(nn.Module):
    """A context as a picture [batch, channels, 1 or H, 1 or W] to add to hidden features.

    A context of image shape [k, a H, b W] goes through a convolution with kernel and stride (a, b), so 1x1 where the
    sizes agree; anything else through a linear layer.
    """

    def __init__(self, context_shape: ContextShape, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.context_shape = context_shape
        self.spatial = False
        self.map: nn.Module
        if isinstance(context_shape, tuple) and len(context_shape) == 3:
            self.spatial = all(
                n and m and m % n == 0 for n, m in zip(size, context_shape[1:], strict=True)
            )
        if self.spatial:
            assert isinstance(context_shape, tuple)
            stride = (context_shape[1] // size[0], context_shape[2] // size[1])
            self.map = nn.Conv2d(context_shape[0], channels, stride, stride)
        else:
            self.map = nn.Linear(context_size(context_shape), channels)

    def forward(self, context: Context) -> Tensor:
        vectors = flat_context(context, self.context_shape)
        if self.spatial:
            assert isinstance(context, Tensor)
            out: Tensor = self.map(context)
            return out
        flat: Tensor = self.map(torch.cat(vectors, dim=1))
        return flat[:, :, None, None]


class _Convolutional(Conditioner):
    """Images [C, H, W] to parameters [C', H, W, P]. Raises ShapeError for other shapes."""

    def __init__(
        self, in_shape: Sequence[int], out_shape: Sequence[int], context_shape: Any, hidden: int
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        if (
            len(self.in_shape) != 3
            or len(self.out_shape) not in (3, 4)
            or self.in_shape[1:] != self.out_shape[1:3]
        ):
            raise ShapeError(
                f"{type(self).__name__} takes images [channels, height, width] and keeps their size, "
                f"got {self.in_shape} to {self.out_shape}"
            )
        self.per_entry = self.out_shape[3] if len(self.out_shape) == 4 else 1
        self.out_channels = self.out_shape[0] * self.per_entry
        self.context_map: ContextMap | None = None
        if self.context_shape is not None:
            size = (self.in_shape[1], self.in_shape[2])
            self.context_map = ContextMap(self.context_shape, hidden, size)

    def _add_context(self, h: Tensor, context: Context) -> Tensor:
        return h if self.context_map is None else h + self.context_map(context)

    def _output(self, h: Tensor) -> Tensor:
        if len(self.out_shape) == 3:
            return h
        return h.reshape(h.shape[0], self.per_entry, *self.out_shape[:3]).movedim(1, -1)


@register
class ConvResNet(_Convolutional):
    """Real NVP's network: batch norm, [r, -r], 3x3 convolution, residual blocks with skips, 1x1 output.

    width: feature maps. blocks: residual blocks, of two 3x3 convolutions each. batch_norm: in the network, no gain.
    dropout: probability, of whole feature maps, inside each block. The output is zero at first if `zero_init`.
    Dinh et al., 2016, arXiv:1605.08803.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 32,
        blocks: int = 4,
        batch_norm: bool = True,
        dropout: float = 0.0,
        zero_init: bool = True,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape, width)
        if width < 1 or blocks < 0:
            raise ConfigError(
                f"ConvResNet needs width >= 1 and blocks >= 0, got {width} and {blocks}"
            )
        self.width = width
        self.batch_norm = batch_norm
        self.dropout = dropout
        self.zero_init = zero_init
        self.couples_batch = batch_norm
        channels = max(self.in_shape[0], 1)
        self.first_norm = _Norm(channels, batch_norm)
        self.first = WeightNormConv(2 * channels, width, 3, learn_gain=False)
        self.first_skip = WeightNormConv(width, width, 1)
        self.blocks = nn.ModuleList(_Block(width, batch_norm, dropout) for _ in range(blocks))
        self.skips = nn.ModuleList(WeightNormConv(width, width, 1) for _ in range(blocks))
        self.last_norm = _Norm(width, batch_norm)
        self.last = WeightNormConv(width, self.out_channels, 1, zero_init=zero_init)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        if not self.in_shape[0]:
            x = x.new_zeros(x.shape[0], 1, *self.in_shape[1:])
        r = self.first_norm(x)
        h = self.first(torch.cat((r, -r), dim=1).relu())
        h = self._add_context(h, context)
        out = self.first_skip(h)
        for block, skip in zip(self.blocks, self.skips, strict=True):
            h = h + block(h)
            out = out + skip(h)
        return self._output(self.last(self.last_norm(out).relu()))

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "blocks": len(self.blocks),
            "batch_norm": self.batch_norm,
            "dropout": self.dropout,
            "zero_init": self.zero_init,
        }


class _Block(nn.Sequential):
    """Batch norm, ReLU, 3x3 convolution, twice."""

    def __init__(self, width: int, batch_norm: bool, dropout: float) -> None:
        super().__init__(
            _Norm(width, batch_norm),
            nn.ReLU(),
            WeightNormConv(width, width, 3, learn_gain=False, bias=False),
            _Norm(width, batch_norm),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            WeightNormConv(width, width, 3),
        )


@register
class Bottleneck(_Convolutional):
    """The residual function of reversible networks: [norm, act], 3x3, norm, act, 3x3, norm, act, 3x3.

    width: inner feature maps. Jacobsen et al., i-RevNet, 2018, arXiv:1802.07088; Gomez et al., RevNet, 2017,
    arXiv:1707.04585.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 32,
        batch_norm: bool = True,
        activation: str = "relu",
        dropout: float = 0.0,
        zero_init: bool = True,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape, width)
        self.width = width
        self.batch_norm = batch_norm
        self.activation = activation
        self.dropout = dropout
        self.zero_init = zero_init
        self.couples_batch = batch_norm
        channels = max(self.in_shape[0], 1)
        self.norm = _Norm(channels, batch_norm)
        self.first = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.middle = nn.Sequential(
            _Norm(width, batch_norm),
            _activation(activation),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.Dropout2d(dropout),
            _Norm(width, batch_norm),
            _activation(activation),
        )
        self.last = nn.Conv2d(width, self.out_channels, 3, padding=1)
        if zero_init:
            nn.init.zeros_(self.last.weight)
            assert self.last.bias is not None
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        if not self.in_shape[0]:
            x = x.new_zeros(x.shape[0], 1, *self.in_shape[1:])
        # No activation on the input: half of a small image would be cut off before the first convolution.
        h = self._add_context(self.first(self.norm(x)), context)
        return self._output(self.last(self.middle(h)))

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "batch_norm": self.batch_norm,
            "activation": self.activation,
            "dropout": self.dropout,
            "zero_init": self.zero_init,
        }


_activation = activation
