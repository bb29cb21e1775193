"""Masked convolutions: images in raster order, channels of a pixel one after another; series in time.

van den Oord, Kalchbrenner, Kavukcuoglu. Pixel recurrent neural networks. 2016, arXiv:1601.06759 (PixelCNN, whose
masks leave a blind spot to the upper right). Dilated in time: WaveNet, 2016, arXiv:1609.03499.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import ContextShape, register
from .base import Context
from .base import activation as make_activation
from .convolutional import ContextMap
from .masked import AutoregressiveConditioner
from .mlp import zero_
from .ordering import CPU


class MaskedConv(nn.Module):
    """A convolution over the pixels above and to the left, and the channels of the same pixel that `centre` allows.

    centre: [outputs, inputs]. above, left, right: how far the kernel reaches; right only in the rows above.
    """

    def __init__(
        self, centre: Tensor, above: int, left: int, right: int, dilation: int = 1
    ) -> None:
        super().__init__()
        outputs, inputs = centre.shape
        mask = torch.ones(outputs, inputs, above + 1, left + 1 + right, device=CPU)
        mask[:, :, above, left + 1 :] = 0
        mask[:, :, above, left] = centre.float()
        self.dilation = dilation
        self.padding = tuple(dilation * n for n in (left, right, above, 0))
        bound = 1 / math.sqrt(max(float(mask.sum()) / outputs, 1.0))
        self.weight = nn.Parameter(torch.empty(mask.shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.mask: Tensor
        self.register_buffer("mask", mask.to(self.weight), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.padding)
        return F.conv2d(x, self.weight * self.mask, self.bias, dilation=self.dilation)


class _MaskedConvolutional(AutoregressiveConditioner):
    """h = conv(x) + context; h <- h + conv act(conv act(h)), `blocks` times; act and a last layer, zero at first.

    Each hidden channel sees all earlier pixels and the first channels of its own: as many as its group. Pictures inside
    are [channels, height, width], with height 1 for series.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 32,
        blocks: int = 4,
        kernel: int = 3,
        activation: str = "elu",
        zero_init: bool = True,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        self.width, self.blocks, self.kernel = width, blocks, kernel
        self.activation, self.zero_init = activation, zero_init
        self.picture = self._picture()
        channels, h, w = self.picture
        if width < channels or kernel < 2 or blocks < 0:
            raise ConfigError(
                f"{type(self).__name__} needs width >= {channels} (the channels), kernel >= 2 and blocks >= 0, got "
                f"{width}, {kernel} and {blocks}"
            )
        self.stages = tuple(
            ((c * h + y) * w + x,) for y in range(h) for x in range(w) for c in range(channels)
        )
        group = torch.arange(width, device=CPU) * channels // width
        channel = torch.arange(channels, device=CPU)
        self.first = self._conv(channel < group[:, None])
        same = group <= group[:, None]
        self.act = make_activation(activation)
        self.layers = nn.ModuleList(
            nn.Sequential(self.act, self._conv(same), self.act, self._conv(same, self._dilation(i)))
            for i in range(blocks)
        )
        rows = channel.repeat(self.per_entry)
        self.last = MaskedConv(group <= rows[:, None], 0, 0, 0)
        if zero_init:
            zero_(self.last)
        self.context_map: ContextMap | None = None
        if self.context_shape is not None:
            self.context_map = ContextMap(self._context_shape(), width, (h, w))

    def _picture(self) -> tuple[int, int, int]:
        raise ConfigError(f"{type(self).__name__} does not say how it lays an event out")

    def _context_shape(self) -> ContextShape:
        return self.context_shape

    def _conv(self, centre: Tensor, dilation: int = 1) -> MaskedConv:
        raise ConfigError(f"{type(self).__name__} has no convolution")

    def _dilation(self, block: int) -> int:
        return 1

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        h = self.first(x.reshape(x.shape[0], *self.picture))
        if self.context_map is not None:
            if isinstance(context, Tensor) and self.context_map.spatial:
                context = context.reshape(context.shape[0], context.shape[1], *self.picture[1:])
            h = h + self.context_map(context)
        for block in self.layers:
            h = h + block(h)
        out: Tensor = self.last(self.act(h))
        return out.reshape(x.shape[0], self.per_entry, *self.in_shape).movedim(1, -1)

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "blocks": self.blocks,
            "kernel": self.kernel,
            "activation": self.activation,
            "zero_init": self.zero_init,
        }


@register
class MaskedConvNet(_MaskedConvolutional):
    """Images [C, H, W] to parameters [C, H, W, P], each entry from the pixels before it in raster order.

    width: feature maps. blocks: residual blocks of two convolutions. kernel: side, odd. The order: pixels row by
    row, the channels of each one after another. A context [k, H, W] goes through a 1x1 convolution, any other
    through a linear layer, and is added to the first features.

    Raises ShapeError for events that are no images.
    """

    def _picture(self) -> tuple[int, int, int]:
        if len(self.in_shape) != 3:
            raise ShapeError(
                f"MaskedConvNet takes images [channels, height, width], got {self.in_shape}"
            )
        c, h, w = self.in_shape
        return c, h, w

    def _conv(self, centre: Tensor, dilation: int = 1) -> MaskedConv:
        reach = self.kernel // 2
        return MaskedConv(centre, reach, reach, reach)


@register
class CausalConvNet(_MaskedConvolutional):
    """Series [T] or [C, T] to parameters [..., P], each entry from the times before it.

    width: feature maps. blocks: residual blocks of two convolutions, the second with dilation 1, 2, 4, ... kernel:
    taps. The order: time by time, the channels of each one after another. A context [k, T] goes through a 1x1
    convolution, any other through a linear layer, and is added to the first features.

    Raises ShapeError for events that are no series.
    """

    def _picture(self) -> tuple[int, int, int]:
        if len(self.in_shape) not in (1, 2):
            raise ShapeError(
                f"CausalConvNet takes series [time] or [channels, time], got {self.in_shape}"
            )
        channels = 1 if len(self.in_shape) == 1 else self.in_shape[0]
        return channels, 1, self.in_shape[-1]

    def _context_shape(self) -> ContextShape:
        shape = self.context_shape
        if isinstance(shape, tuple) and len(shape) == 2 and shape[1] == self.in_shape[-1]:
            return (shape[0], 1, shape[1])
        return shape

    def _conv(self, centre: Tensor, dilation: int = 1) -> MaskedConv:
        return MaskedConv(centre, 0, self.kernel - 1, 0, dilation)

    def _dilation(self, block: int) -> int:
        return int(2**block)
