"""Rearrangements of the entries: flatten, and squeeze of space into channels; ladj = 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError
from ..parts import Shape, as_shape, register
from ..properties import KEEPS
from .base import Context, Inverse, Level, Transform


@register
class Flatten(Transform):
    """z = x as one vector, ladj = 0."""

    properties = KEEPS

    def __init__(self, event_shape: Sequence[int]) -> None:
        shape = as_shape(event_shape)
        super().__init__(shape, latent_shape=(math.prod(shape),))

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return x.reshape(x.shape[0], *self.latent_shape), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return z.reshape(z.shape[0], *self.event_shape), z.new_zeros(z.shape[0])

    @property
    def levels(self) -> tuple[Level, ...]:
        return (Level(slice(0, self.latent_shape[0]), self.event_shape),)


@register
class Squeeze(Transform):
    """[C, H, W] to [C f^2, H/f, W/f]: each f x f block of pixels becomes channels, ladj = 0.

    order `plain`: channel c and position (i, j) go to c f^2 + f i + j. order `checkerboard` (Real NVP's alternative
    order): positions with i + j even come first, then the others, grouped by position, so that the first half of the
    channels is the even half of the checkerboard. Dinh et al., 2016, arXiv:1605.08803.

    Raises ShapeError where f does not divide the height or the width, or the event is no image.
    """

    properties = KEEPS

    def __init__(
        self,
        event_shape: Sequence[int],
        factor: int = 2,
        order: Literal["plain", "checkerboard"] = "plain",
    ) -> None:
        shape = as_shape(event_shape)
        if order not in ("plain", "checkerboard"):
            raise ConfigError(f"order must be plain or checkerboard, got {order!r}")
        if len(shape) != 3 or factor < 1 or shape[1] % factor or shape[2] % factor:
            raise ShapeError(
                f"Squeeze by {factor} takes images [channels, height, width] whose sides {factor} divides, got {shape}"
            )
        c, h, w = shape
        super().__init__(shape, latent_shape=(c * factor**2, h // factor, w // factor))
        self.factor = factor
        self.ordering = order
        positions = sorted(
            ((i, j) for i in range(factor) for j in range(factor)),
            key=lambda p: ((p[0] + p[1]) % 2, p),
        )
        channels = [k * factor**2 + i * factor + j for i, j in positions for k in range(c)]
        index = torch.tensor(channels) if order == "checkerboard" else None
        self.order: Tensor | None
        self.back: Tensor | None
        self.register_buffer("order", index)
        self.register_buffer("back", None if index is None else index.argsort())

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        # Not pixel_unshuffle, which leaves an empty batch in its old shape.
        c, h, w = self.event_shape
        f = self.factor
        z = x.reshape(x.shape[0], c, h // f, f, w // f, f).permute(0, 1, 3, 5, 2, 4)
        z = z.reshape(x.shape[0], *self.latent_shape)
        if self.order is not None:
            z = z.index_select(1, self.order)
        return z, x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if self.back is not None:
            z = z.index_select(1, self.back)
        c, h, w = self.event_shape
        f = self.factor
        x = z.reshape(z.shape[0], c, f, f, h // f, w // f).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(z.shape[0], *self.event_shape), z.new_zeros(z.shape[0])

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "factor": self.factor, "order": self.ordering}

    def extra_repr(self) -> str:
        return f"{self.event_shape}, factor={self.factor}, order={self.ordering!r}"


def unsqueeze(
    event_shape: Shape, factor: int = 2, order: Literal["plain", "checkerboard"] = "plain"
) -> Inverse:
    """The inverse of `Squeeze`: [C f^2, H, W] to [C, H f, W f]. Raises ShapeError where f^2 does not divide C."""
    shape = as_shape(event_shape)
    if len(shape) != 3 or shape[0] % factor**2:
        raise ShapeError(
            f"unsqueeze by {factor} takes images whose {factor**2} divides the channels, got {shape}"
        )
    c, h, w = shape
    return Inverse(Squeeze((c // factor**2, h * factor, w * factor), factor, order))
