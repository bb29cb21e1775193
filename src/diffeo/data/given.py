"""Pictures made of pictures: what a conditional model is given, such as the grey values, or half the size."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..errors import DataError, InputError
from ..parts import Shape

Given = Literal["grey", "half", "quarter"]
GIVEN: tuple[str, ...] = ("grey", "half", "quarter")
_SIDE = {"half": 2, "quarter": 4}
# Of Pillow's conversion to grey, in 1/65536: 0.299 R + 0.587 G + 0.114 B (ITU-R 601), halves rounded up.
_LUMA = (19595, 38470, 7471)


def given_of(x: Tensor, given: str) -> Tensor:
    """What is given of pictures [*batch, C, H, W]: `grey` [*batch, 1, H, W]; `half`, `quarter` [*batch, C, H/n, W/n].

    grey: the luma, as Pillow computes it. half and quarter: means of squares of 2 and of 4 pixels. Of integers the
    result is rounded, halves up, and of the same type. Raises InputError for another name, DataError for pictures of
    another shape.
    """
    shape = given_shape(tuple(x.shape[-3:]), given)
    real = x.is_floating_point()
    if given == "grey":
        weights = torch.tensor(_LUMA, device=x.device).reshape(3, 1, 1)
        if real:
            return (x * weights.to(x.dtype)).sum(-3, keepdim=True) / 65536
        luma: Tensor = ((x.long() * weights).sum(-3, keepdim=True) + 32768) >> 16
        return luma.to(x.dtype)
    n = _SIDE[given]
    squares = x.reshape(*x.shape[:-2], shape[1], n, shape[2], n)
    if real:
        mean: Tensor = squares.mean((-3, -1))
        return mean
    total: Tensor = squares.long().sum((-3, -1))
    return ((total + n * n // 2) // (n * n)).to(x.dtype)


def given_shape(event_shape: Shape, given: str) -> Shape:
    """The shape of what is given of pictures [C, H, W]. Raises InputError, or DataError for another shape."""
    if given not in GIVEN:
        raise InputError(f"given must be {', '.join(GIVEN[:-1])} or {GIVEN[-1]}, got {given!r}.")
    shape = tuple(event_shape)
    if len(shape) != 3:
        raise DataError(
            f"given = {given} is for pictures [channels, height, width], got rows of {shape}."
        )
    c, h, w = shape
    if given == "grey":
        if c != 3:
            raise DataError(
                f"given = grey is for pictures in colour [3, height, width], got {shape}."
            )
        return (1, h, w)
    n = _SIDE[given]
    if h % n or w % n:
        raise DataError(
            f"given = {given} needs a height and a width that {n} divides, got {h}x{w}."
        )
    return (c, h // n, w // n)
