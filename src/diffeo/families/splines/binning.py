"""Knots from raw numbers, and the search for the bin of every input. Bins are on the first axis: [bins, *shape]."""

from __future__ import annotations

import torch
from torch import Tensor


def shares(raw: Tensor, minimum: float) -> Tensor:
    """Positive numbers that sum to 1 over the first axis, each at least `minimum`; equal for equal raw numbers."""
    return torch.softmax(raw, 0) * (1 - minimum * raw.shape[0]) + minimum


def knots(shares: Tensor, bound: float) -> Tensor:
    """[bins + 1, ...] increasing knots from exactly -bound to exactly bound, whose distances are shares of 2 bound."""
    inner = shares[:-1].cumsum(0) * (2 * bound) - bound
    end = torch.full_like(inner[:1], bound)
    return torch.cat((-end, inner, end))


def find(x: Tensor, knots: Tensor) -> Tensor:
    """The bin of each x: how many inner knots are not above it. Always a bin, also for NaN or for x at a bound."""
    # A sum of comparisons: few bins, and no search that vmap or export would refuse.
    return (x >= along(knots[1:-1], x)).sum(0)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """values[index] along the first axis, for each entry of index on its own."""
    return along(values, index).gather(0, index[None])[0]


def along(values: Tensor, x: Tensor) -> Tensor:
    """[n, *event] seen as [n, *x.shape]."""
    if values.shape[1:] == x.shape:
        return values
    return values.movedim(0, -1).expand(*x.shape, values.shape[0]).movedim(-1, 0)
