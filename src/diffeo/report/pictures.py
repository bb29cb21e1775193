"""Grids of small images as PNG: grey or RGB, blown up without smoothing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """Data values to grey values 0 .. 255: `low` is black, `high` is white."""

    low: float
    high: float

    @classmethod
    def of(cls, train: Tensor, levels: int | None) -> Scaling:
        """0 .. levels - 1 for integers, the range of the training data for real numbers."""
        if levels is not None:
            return cls(0.0, levels - 1.0)
        low, high = train.min().item(), train.max().item()
        return cls(low, high if high > low else low + 1.0)

    def __call__(self, x: Tensor) -> Tensor:
        grey = (x.detach().cpu().double() - self.low) * (255 / (self.high - self.low))
        return grey.nan_to_num(nan=0.0, posinf=255.0, neginf=0.0).round().clamp(0, 255).byte()


def image_grid(x: Tensor, scaling: Scaling, columns: int, cell: int = 64) -> bytes:
    """Images [n, C, H, W] row by row as one PNG; every pixel becomes a square, so that a side is about `cell`.

    RGB for three channels, else the first channel in grey. The gaps and a last row that is not full are transparent.
    """
    from PIL import Image

    pixels = scaling(x)
    n, channels, h, w = pixels.shape
    pixels = pixels if channels == 3 else pixels[:, :1].expand(n, 3, h, w)
    factor = max(1, round(cell / max(h, w)))
    gap = 4
    rows = -(-n // columns)
    big_h, big_w = h * factor, w * factor
    sheet = torch.zeros((rows * (big_h + gap) - gap, columns * (big_w + gap) - gap, 4)).byte()
    for k in range(n):
        top, left = k // columns * (big_h + gap), k % columns * (big_w + gap)
        image = pixels[k].permute(1, 2, 0)
        image = image.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
        sheet[top : top + big_h, left : left + big_w, :3] = image
        sheet[top : top + big_h, left : left + big_w, 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(sheet.numpy(), "RGBA").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def is_image(event_shape: Sequence[int]) -> bool:
    """Whether events are drawn as pictures: [C, H, W] with both sides above 1."""
    return len(event_shape) == 3 and min(event_shape[1:]) > 1
