"""Slopes at knots: positive numbers, 1 at raw zero, and 1 at the two outer knots."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from .binning import pick


def slope(raw: Tensor, minimum: float) -> Tensor:
    """softplus(raw + c) + minimum, which is 1 at raw = 0."""
    return F.softplus(raw + math.log(math.expm1(1 - minimum))) + minimum


def inner_slopes(raw: Tensor, index: Tensor, minimum: float) -> tuple[Tensor, Tensor]:
    """The slopes at both ends of a bin; raw: those of the inner knots, [bins - 1, ...]; the outer ones are 1."""
    last = raw.shape[0]
    # The softplus of two slopes, not of all.
    left = slope(pick(raw, (index - 1).clamp(min=0)), minimum)
    right = slope(pick(raw, index.clamp(max=last - 1)), minimum)
    return _or_one(left, index > 0), _or_one(right, index < last)


def circular_slopes(raw: Tensor, index: Tensor, minimum: float) -> tuple[Tensor, Tensor]:
    """The same on a circle, where the last knot is the first; raw: [bins, ...]."""
    return slope(pick(raw, index), minimum), slope(pick(raw, (index + 1) % raw.shape[0]), minimum)


def _or_one(value: Tensor, condition: Tensor) -> Tensor:
    """value where the condition holds, 1 elsewhere."""
    return value * condition + ~condition
