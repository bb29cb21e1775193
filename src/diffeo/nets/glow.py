"""Glow's networks: convolutions with actnorm, edge-aware padding and a zero convolution at the end.

Kingma & Dhariwal, Glow, 2018, arXiv:1807.03039; edge padding and the exp(3 l) as in the released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, InputError, ShapeError
from ..moments import moments
from ..parts import register
from .base import Conditioner, Context
from .convolutional import ContextMap, _Convolutional

RATE = 3.0
"""Gain of the zero convolution's log-scales: exp(3 l) learns three times as fast as exp(l)."""
INITIALIZE_ROWS = 512
"""Most rows of the named batch that set the actnorms of a network, whose feature maps are wide."""


class _ScaledConv(nn.Module):
    """y = (w * x + b) exp(rate l) per output channel, evaluated as one convolution with the scaled kernel.

    3x3 kernels see one more channel, 1 on the padded border and 0 inside, so that the network can tell the border.
    With std the kernel starts as N(0, std^2) and b, l are an actnorm, set by `initialize`; without, all are zero.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        std: float = 0.0,
        rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.rate = rate
        self.weight = nn.Parameter(std * torch.randn(out_channels, in_channels, kernel, kernel))
        self.edge: nn.Parameter | None = None
        if kernel > 1:
            self.edge = nn.Parameter(std * torch.randn(out_channels, 1, kernel, kernel))
        self.shift = nn.Parameter(torch.zeros(out_channels))
        self.log_scale = nn.Parameter(torch.zeros(out_channels))
        self.initialized: Tensor
        if std:
            self.register_buffer("initialized", torch.tensor(False))

    def kernels(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """w, the part of it that `_convolve` applies to the border on its own, and b, scaled.

        The border is 1 minus the inside of the picture, so that its kernel is a share of b and a kernel of the inside.
        """
        scale = (self.log_scale if self.rate == 1 else self.rate * self.log_scale).exp()
        rows = scale.view(-1, 1, 1, 1)
        if self.edge is None:
            return self.weight * rows, None, self.shift * scale
        shift = (self.shift + self.edge.sum((1, 2, 3))) * scale
        if self.weight.shape[1] < len(self.weight):
            return torch.cat((self.weight, self.edge), 1) * rows, None, shift
        # Feature maps follow the kernel's layout, in which convolutions run faster.
        weight = (self.weight * rows).to(memory_format=torch.channels_last)
        return weight, self.edge * rows, shift

    def forward(self, x: Tensor) -> Tensor:
        return _convolve(x, *self.kernels())

    @torch.no_grad()
    def frozen(self) -> _FixedConv:
        """The same with constant kernels."""
        return _FixedConv(*self.kernels())

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Set b and l so that y has mean 0 and variance 1 on x, over all ranks, once; returns y.

        Raises InputError for an empty or non-finite batch.
        """
        if not bool(self.initialized):
            if not len(x) or not bool(torch.isfinite(x).all()):
                raise InputError(
                    f"a network's actnorm cannot be initialized from {len(x)} rows"
                    + (" that hold NaN or infinite values" if len(x) else "")
                )
            self.shift.zero_()
            self.log_scale.zero_()
            y: Tensor = self(x[:INITIALIZE_ROWS])
            mean, var = (m.flatten() for m in moments(y, (y.shape[1], 1, 1)))
            self.shift.copy_(-mean)
            self.log_scale.copy_(-0.5 * torch.where(var > 0, var, torch.ones_like(var)).log())
            self.initialized.fill_(True)
        out: Tensor = self(x)
        return out


class _FixedConv(nn.Module):
    """What `_ScaledConv.frozen` returns."""

    def __init__(self, weight: Tensor, edge: Tensor | None, shift: Tensor) -> None:
        super().__init__()
        self.weight: Tensor
        self.edge: Tensor | None
        self.shift: Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("edge", edge)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        return _convolve(x, self.weight, self.edge, self.shift)


def _convolve(x: Tensor, weight: Tensor, edge: Tensor | None, shift: Tensor) -> Tensor:
    """w * x + b; edge: the kernel of the inside, else it is that of the last channel of w."""
    around = weight.shape[-1] // 2
    if edge is not None:
        # A copy of many feature maps costs more than the inside's share of a few.
        return F.conv2d(x, weight, shift, padding=around) - _inside(edge, x.shape[2], x.shape[3])
    if around:
        x = F.pad(x.movedim(1, -1), (0, 1), value=-1.0).movedim(-1, 1)
    return F.conv2d(x, weight, shift, padding=around)


def _inside(kernel: Tensor, height: int, width: int) -> Tensor:
    """w * 1, [C, H, W], for a picture of ones with zeros around it and kernels [C, 1, k, k]; channels-last."""
    k = kernel.shape[-1]
    ones = F.pad(kernel.new_ones(height, width), (k // 2,) * 4)
    patches = ones.unfold(0, k, 1).unfold(1, k, 1).reshape(height * width, k * k)
    return (patches @ kernel.flatten(1).mT).view(height, width, -1).movedim(-1, 0)


@register
class GlowConv(_Convolutional):
    """Glow's coupling network: 3x3, actnorm, ReLU, 1x1, actnorm, ReLU, 3x3 zero convolution with exp(3 l).

    Images [C, H, W] to parameters [C', H, W, P]. width: feature maps. dropout: probability, of whole feature maps,
    before the last convolution, not published. The context is added before the first ReLU. The actnorms wait for
    `initialize`, which a Coupling calls. Hidden kernels start as N(0, 0.05^2), the output at zero.
    Raises ShapeError for events that are no images.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape, width)
        if width < 1:
            raise ConfigError(f"GlowConv needs width >= 1, got {width}")
        self.width = width
        self.dropout = dropout
        channels = max(self.in_shape[0], 1)
        self.first = _ScaledConv(channels, width, 3, std=0.05)
        self.middle = _ScaledConv(width, width, 1, std=0.05)
        self.last = _ScaledConv(width, self.out_channels, 3, rate=RATE)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        h = self._add_context(self.first(_something(x)), context).relu_()
        h = F.dropout2d(self.middle(h).relu_(), self.dropout, self.training)
        return self._output(self.last(h))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> None:
        """Set the actnorms, the first before the second, from a batch of inputs, once."""
        h = self._add_context(self.first.initialize(_something(x)), context).relu_()
        self.middle.initialize(h)

    def config(self) -> dict[str, Any]:
        return super().config() | {"width": self.width, "dropout": self.dropout}


@register
class ZeroConv(_Convolutional):
    """Glow's split prior: one 3x3 zero convolution with exp(3 l), from [C, H, W] to parameters [C', H, W, P].

    A context is added to the output, by a map that is zero at first, too.
    """

    def __init__(
        self, in_shape: Sequence[int], out_shape: Sequence[int], context_shape: Any = None
    ) -> None:
        channels = int(out_shape[0]) * (int(out_shape[3]) if len(out_shape) == 4 else 1)
        super().__init__(in_shape, out_shape, context_shape, channels)
        self.conv = _ScaledConv(max(self.in_shape[0], 1), channels, 3, rate=RATE)
        if self.context_map is not None:
            _zero(self.context_map.map)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        return self._output(self._add_context(self.conv(_something(x)), context))


@register
class PerChannel(Conditioner):
    """Parameters [C, H, W, P] from the context alone, the same in every pixel: linear with exp(3 l), zero at first.

    Raises ShapeError for events that are no images, ConfigError without a context.
    """

    def __init__(
        self, in_shape: Sequence[int], out_shape: Sequence[int], context_shape: Any = None
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        if len(self.out_shape) != 4:
            raise ShapeError(
                f"PerChannel gives parameters [channels, height, width, params], got {self.out_shape}"
            )
        if self.context_shape is None:
            raise ConfigError("PerChannel needs a context_shape to read")
        channels = self.out_shape[0] * self.out_shape[3]
        self.map = ContextMap(self.context_shape, channels, (0, 0))
        _zero(self.map)
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        c, h, w, p = self.out_shape
        out: Tensor = self.map(context).flatten(1) * (RATE * self.log_scale).exp()
        return out.reshape(-1, p, c, 1, 1).expand(-1, p, c, h, w).movedim(1, -1)


def _something(x: Tensor) -> Tensor:
    """An image of no channels as one of zeros, which a convolution takes."""
    return x if x.shape[1] else x.new_zeros(x.shape[0], 1, *x.shape[2:])


def _zero(module: nn.Module) -> None:
    for p in module.parameters():
        nn.init.zeros_(p)
