"""Mean and variance of a batch, the same on every rank: what normalization layers and networks start from."""

from __future__ import annotations

import torch
from torch import Tensor

from .parts import Shape


def moments(x: Tensor, shape: Shape, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and population variance of x [batch, *event] over the batch and the axes that are 1 in `shape`.

    In float64, and over all ranks of a distributed run. weight: 1 for the entries that count, broadcast to the event.
    """
    axes = (0, *(i + 1 for i, n in enumerate(shape) if n == 1))
    value = x.double()
    w = (torch.ones_like(value[:1]) if weight is None else weight.double()).expand_as(value)
    totals = [t.sum(axes, keepdim=True)[0] for t in (w, w * value)]
    count, first = _all_reduce(torch.stack(totals)).unbind(0)
    mean = first / count.clamp(min=1)
    second = _all_reduce((w * (value - mean) ** 2).sum(axes, keepdim=True)[0])
    return mean, second / count.clamp(min=1)


def _all_reduce(t: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # The functional collective lets gradients through and compiles.
        from torch.distributed.nn.functional import all_reduce

        return all_reduce(t)  # type: ignore[no-any-return]
    return t
