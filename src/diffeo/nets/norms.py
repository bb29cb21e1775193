"""Norms of vectors, and a bound on those that they induce of matrices."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

MOST = 100.0
"""An exponent from which on a norm is taken as this one, which is larger."""


def dual(p: float) -> float:
    """p* with 1/p + 1/p* = 1."""
    return math.inf if p == 1 else 1.0 if p == math.inf else p / (p - 1)


def length(a: Tensor) -> Tensor:
    """The 2-norm of every a[i]."""
    out: Tensor = torch.linalg.vector_norm(a.flatten(1), dim=1)
    return out


def unit(a: Tensor) -> Tensor:
    """a[i] of norm 1, or zero."""
    norm = length(a).clamp(min=torch.finfo(a.dtype).tiny)
    return a / norm.reshape(-1, *[1] * (a.ndim - 1))


def induced_bound(
    p: Any, q: Any, two: Tensor, columns: Tensor, rows: Tensor, sizes: tuple[int, int]
) -> Tensor:
    """An upper bound on ||W||_{p -> q} = max ||W x||_q / ||x||_p of W, m x n; p and q may be tensors.

    two: its 2-norm. columns, rows: those of W, or longer ones that hold them. sizes: n and m. The norm is known for
    p = 1, the largest q-norm of a column, and for q = inf, the largest p*-norm of a row. Between these and the 2-norm
    its logarithm is convex in (1/p, 1/q), by Riesz and Thorin, which is for q >= p; for q < p the bounds of (p, p) and
    (q, q) hold with the factors that norms differ by.
    """
    n, m = (math.log(max(size, 1)) for size in sizes)
    a, b = (1 / torch.as_tensor(t, dtype=two.dtype, device=two.device) for t in (p, q))
    tiny = torch.finfo(two.dtype).tiny
    log_two = two.clamp(min=tiny).log()

    def between(a: Tensor, b: Tensor) -> Tensor:
        """The logarithm, for b <= a."""
        first, last = a - 0.5, b - 0.5
        right = first >= -last
        share = 2 * torch.where(right, first, -last)
        safe = torch.where(share > 0, share, torch.ones_like(share))
        ends = _longest(columns, 0.5 + last / safe), _longest(rows, 0.5 - first / safe)
        log_end = torch.where(right, *ends).clamp(min=tiny).log()
        return torch.lerp(log_two, log_end, share)

    more = (b - a).clamp(min=0)
    usual = log_two + n * (0.5 - a).clamp(min=0) + m * (b - 0.5).clamp(min=0)
    above = torch.minimum(m * more + between(a, a), n * more + between(b, b))
    inside = torch.where(b > a, above, between(a, torch.minimum(a, b)))
    return torch.minimum(usual, inside).exp()


def _longest(rows: Tensor, reciprocal: Tensor) -> Tensor:
    """The largest norm of a row, for 1/p."""
    peak = rows.detach().abs().amax().clamp(min=torch.finfo(rows.dtype).tiny)
    p = 1 / reciprocal.clamp(min=1 / MOST)
    size = (rows / peak).abs()
    safe = torch.where(size == 0, torch.ones_like(size), size)
    powers = torch.where(size == 0, torch.zeros_like(size), safe**p).sum(1).amax()
    out: Tensor = peak * powers.clamp(min=torch.finfo(rows.dtype).tiny) ** (1 / p)
    return out
