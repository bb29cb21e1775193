"""Bins from raw numbers, the search for the bin of every input, and the two knots at its ends.

Bins are on the first axis, [bins, *shape], so that each of them is contiguous. These few lines decide the speed of a
spline; on CPUs a selection by `torch.where` costs as much as twenty additions, hence the arithmetic in its place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def shares(raw: Tensor, minimum: float) -> Tensor:
    """Positive numbers that sum to 1 over the first axis, each at least `minimum`; equal for equal raw numbers."""
    return torch.softmax(raw, 0) * (1 - minimum * raw.shape[0]) + minimum


def knots(shares: Tensor, bound: float) -> Tensor:
    """[bins + 1, ...] increasing knots from exactly -bound to exactly bound, whose distances are shares of 2 bound.

    Without gradient: `ends` has it.
    """
    first, *inner = (shares.detach() * (2 * bound)).unbind(0)[:-1]
    ends = torch.full_like(first, bound)
    at = [-ends, first - bound]
    for width in inner:
        at.append(at[-1] + width)
    return torch.stack((*at, ends))


def find(x: Tensor, knots: Tensor) -> Tensor:
    """The bin of each x: how many inner knots are not above it. Always a bin, also for NaN or for x at a bound."""
    # A sum of comparisons: few bins, and no search that vmap or export would refuse.
    return (x.detach() - along(knots[1:-1], x)).ge(0).sum(0)


def ends(shares: Tensor, knots: Tensor, index: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """The left knot and the width of a bin, with gradients for the shares from which `knots` were made."""
    left: Tensor
    width: Tensor
    left, width = _Ends.apply(  # type: ignore[no-untyped-call]
        along(shares, index), along(knots, index), index, bound
    )
    return left, width


class _Ends(torch.autograd.Function):
    """left = 2 bound sum_{j < k} share_j - bound, width = 2 bound share_k, from the knots; linear in the shares."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        shares: Tensor, knots: Tensor, index: Tensor, bound: float
    ) -> tuple[Tensor, Tensor]:
        left = pick(knots, index)
        return left, pick(knots, index + 1) - left

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        shares, _, index, ctx.bound = inputs
        ctx.bins = shares.shape[0]
        ctx.save_for_backward(index)

    @staticmethod
    def backward(ctx: Any, left: Tensor, width: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors
        at = left.new_zeros((ctx.bins, *left.shape)).scatter(0, index[None], left[None]).unbind(0)
        before = [torch.zeros_like(left)]
        for j in range(ctx.bins - 1, 0, -1):
            before.append(before[-1] + at[j])
        grad = torch.stack(before[::-1]).scatter_add(0, index[None], width[None])
        return grad * (2 * ctx.bound), None, None, None


def pick(values: Tensor, index: Tensor) -> Tensor:
    """values[index] along the first axis, for each entry of index on its own."""
    return along(values, index).gather(0, index[None])[0]


def along(values: Tensor, x: Tensor) -> Tensor:
    """[n, *event] seen as [n, *x.shape]."""
    if values.shape[1:] == x.shape:
        return values
    return values.movedim(0, -1).expand(*x.shape, values.shape[0]).movedim(-1, 0)
