"""A picture as context: its features at the size of every scale, and networks that read those of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import ContextShape, Part, Shape, as_context_shape, as_shape, register
from .base import Conditioner, Context, NetFactory
from .glow import RATE, _ScaledConv, _zero


@register
class Pyramid(Part):
    """An embedding: a picture [c, h, w] as features of several sizes, fine to coarse, each made of those before.

    out_shape: a name for each size, and (features, H, W). h <- fit(h), h <- h + g(h), with g two 3x3 convolutions, and
    fit a bilinear interpolation to the next multiple of (H, W), if h has another size, and a convolution with stride
    down to it: no pixel is lost, and the picture may be smaller than what it is the context of. levels: of integer
    pictures, which become c / levels - 1/2; None: real numbers, taken as they are.

    Raises ShapeError for what is no picture.
    """

    def __init__(
        self,
        context_shape: Sequence[int],
        out_shape: Mapping[str, Sequence[int]],
        *,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        self.context_shape: Shape = as_shape(context_shape, "context_shape")
        self.out_shape = {name: as_shape(s, "out_shape") for name, s in out_shape.items()}
        for shape in (self.context_shape, *self.out_shape.values()):
            if len(shape) != 3 or 0 in shape:
                raise ShapeError(
                    f"Pyramid turns a picture (channels, height, width) into others, got {shape}"
                )
        if not self.out_shape:
            raise ConfigError("Pyramid needs a size or more to give features of")
        self.levels = levels
        width = next(iter(self.out_shape.values()))[0]
        self.first = nn.Conv2d(self.context_shape[0], width, 3, padding=1)
        steps = []
        before = (width, *self.context_shape[1:])
        for shape in self.out_shape.values():
            steps.append(_Scale(before, shape))
            before = shape
        self.scales = nn.ModuleList(steps)

    def forward(self, context: Context) -> dict[str, Tensor]:
        assert isinstance(context, Tensor)
        x = context.to(self.first.weight.dtype)
        h = self.first(x if self.levels is None else x / self.levels - 0.5)
        features = {}
        for name, scale in zip(self.out_shape, self.scales, strict=True):
            h = features[name] = scale(h)
        return features

    def config(self) -> dict[str, Any]:
        return {
            "context_shape": self.context_shape,
            "out_shape": self.out_shape,
            "levels": self.levels,
        }


class _Scale(nn.Module):
    """Features of one size to those of the next."""

    def __init__(self, before: Shape, after: Shape) -> None:
        super().__init__()
        stride = (-(-before[1] // after[1]), -(-before[2] // after[2]))
        self.size = (stride[0] * after[1], stride[1] * after[2])
        self.fit = nn.Conv2d(before[0], after[0], stride, stride)
        self.first = nn.Conv2d(after[0], after[0], 3, padding=1)
        self.second = nn.Conv2d(after[0], after[0], 3, padding=1)

    def forward(self, h: Tensor) -> Tensor:
        if tuple(h.shape[2:]) != self.size:
            h = F.interpolate(h, self.size, mode="bilinear", align_corners=False)
        h = self.fit(h)
        out: Tensor = h + self.second(self.first(h.relu()).relu())
        return out


@register
class Entry(Conditioner):
    """net(x, context[key]): a Conditioner that reads one of the contexts in a dict."""

    def __init__(self, net: Conditioner, key: str, context_shape: Any) -> None:
        shapes = as_context_shape(context_shape)
        if not isinstance(shapes, dict) or shapes.get(key) != net.context_shape:
            raise ShapeError(
                f"Entry has {key!r} among its contexts {shapes}, of the shape {net.context_shape} that its "
                f"{type(net).__name__} takes"
            )
        super().__init__(net.in_shape, net.out_shape, shapes)
        self.net = net
        self.key = key
        self.couples_batch = net.couples_batch

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        out: Tensor = self.net(x, self._own(context))
        return out

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> None:
        """The network's own, if it has one."""
        own = getattr(self.net, "initialize", None)
        if own is not None:
            own(x, self._own(context))

    def _own(self, context: Context) -> Tensor:
        if not isinstance(context, dict):
            raise ConfigError(f"this network takes a dict of contexts with the key {self.key!r}")
        return context[self.key]

    def config(self) -> dict[str, Any]:
        return {"net": self.net, "key": self.key, "context_shape": self.context_shape}


def reading(net: Any, key: str) -> NetFactory:
    """A network factory for a dict of contexts, from one for the context under the key."""

    def make(in_shape: Shape, out_shape: Shape, context_shape: ContextShape) -> Entry:
        assert isinstance(context_shape, dict)
        return Entry(net(in_shape, out_shape, context_shape[key]), key, context_shape)

    return make


@register
class PerPixel(Conditioner):
    """Parameters [C, H, W, P] from features [k, H, W] of the context alone: a 1x1 convolution, exp(3 l), zero at first.

    Raises ShapeError for features of another size.
    """

    def __init__(
        self, in_shape: Sequence[int], out_shape: Sequence[int], context_shape: Any = None
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        seen = self.context_shape
        if (
            not isinstance(seen, tuple)
            or len(self.out_shape) != 4
            or seen[1:] != self.out_shape[1:3]
        ):
            raise ShapeError(
                f"PerPixel turns features (k, H, W) into parameters (C, H, W, P) of the same size, got {seen} and "
                f"{self.out_shape}"
            )
        self.conv = _ScaledConv(seen[0], self.out_shape[0] * self.out_shape[3], 1, rate=RATE)
        _zero(self.conv)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        assert isinstance(context, Tensor)
        c, h, w, p = self.out_shape
        out: Tensor = self.conv(context)
        return out.reshape(-1, p, c, h, w).movedim(1, -1)
