"""Samples as files: a grid of pictures, an array, or a table."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..files import write_atomically

SUFFIXES = (".png", ".npy", ".csv")


def check_output(path: Path, event_shape: tuple[int, ...] | None = None) -> None:
    """Raise InputError if samples of this shape cannot be written under this name."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"samples are written as {', '.join(SUFFIXES)}, got {path.name!r}")
    if event_shape is None:
        return
    if path.suffix == ".png" and (len(event_shape) != 3 or event_shape[0] not in (1, 3)):
        raise InputError(
            f"only images of 1 or 3 channels make a .png, not events of shape {event_shape}"
        )
    if path.suffix == ".csv" and len(event_shape) != 1:
        raise InputError(f"only vectors make a .csv, not events of shape {event_shape}: use .npy")


def write_samples(
    path: Path, x: Tensor, *, levels: int | None, columns: tuple[str, ...] | None = None
) -> Path:
    """Write samples [n, *event_shape], by the suffix of the path, atomically."""
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, x.numpy(), allow_pickle=False)
    elif path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(columns or [f"x{i}" for i in range(x.shape[1])])
        writer.writerows(x.tolist())
        buffer.write(text.getvalue().encode())
    else:
        from PIL import Image

        Image.fromarray(grid(x, levels)).save(buffer, format="PNG")
    return write_atomically(path, buffer.getvalue())


def grid(x: Tensor, levels: int | None, *, side: int = 8, gap: int = 1) -> np.ndarray:
    """Images [n, C, H, W] as one picture [rows, columns(, 3)], uint8, small images enlarged."""
    scaled = x.double() / ((levels or 2) - 1)
    pixels = (scaled.clamp(0, 1) * 255).round().to(torch.uint8)
    n, c, h, w = pixels.shape
    zoom = max(1, 32 // max(h, w))
    across = min(side, n)
    rows = math.ceil(n / across)
    sheet = torch.full(
        (c, rows * (h + gap) - gap, across * (w + gap) - gap), 255, dtype=torch.uint8
    )
    for i in range(n):
        top, left = (i // across) * (h + gap), (i % across) * (w + gap)
        sheet[:, top : top + h, left : left + w] = pixels[i]
    sheet = sheet.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    picture = sheet.permute(1, 2, 0).numpy()
    return picture[:, :, 0] if c == 1 else picture
