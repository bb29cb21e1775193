"""p-norms of vectors, their duals, and bounds between induced norms."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def dual(p: Any) -> Any:
    """p* with 1/p + 1/p* = 1."""
    if isinstance(p, Tensor):
        return p / (p - 1)
    return math.inf if p == 1 else 1.0 if p == math.inf else p / (p - 1)


def norm_along(a: Tensor, p: Any, dim: int) -> Tensor:
    """(sum |a_i|^p)^(1/p) along an axis; p may be a tensor."""
    if not isinstance(p, Tensor):
        out: Tensor = torch.linalg.vector_norm(a, p, dim=dim)
        return out
    # |a|^p has no gradient by p at 0.
    safe = torch.where(a == 0, torch.ones_like(a), a.abs())
    powers = torch.where(a == 0, torch.zeros_like(a), safe**p)
    return powers.sum(dim) ** (1 / p)


def length(a: Tensor, p: float) -> Tensor:
    """The norm of every a[i]."""
    out: Tensor = torch.linalg.vector_norm(a.flatten(1), p, dim=1)
    return out


def unit(a: Tensor, p: float) -> Tensor:
    """J_p(a[i]): the vector of dual norm 1 whose product with a[i] is its p-norm; a[i] itself if it is zero."""
    shape, a, tiny = a.shape, a.flatten(1), torch.finfo(a.dtype).tiny
    if p != 2:
        a = a / a.abs().amax(1, keepdim=True).clamp(min=tiny)
    # At least 1, except that of zero, now that the greatest entry is 1.
    norm = torch.linalg.vector_norm(a, p, dim=1, keepdim=True).clamp(min=tiny if p == 2 else 1)
    if p == 2:
        a = a / norm
    elif p == 1:
        a = a.sign()
    elif p == math.inf:
        top = (a.abs() == 1).to(a)
        a = a.sign() * top / top.sum(1, keepdim=True).clamp(min=1)
    else:
        a = a.sign() * a.abs() ** (p - 1) / norm ** (p - 1)
    return a.reshape(shape)


def induced_bound(
    p: float, q: float, two: float, columns: Tensor, rows: Tensor, sizes: tuple[int, int]
) -> float:
    """An upper bound on ||W||_{p -> q} = max ||W x||_q / ||x||_p of W, m x n.

    two: a bound on its 2-norm. columns, rows: those of W, or longer ones that hold them. sizes: n and m. The norm is
    known for p = 1, the largest q-norm of a column, and for q = inf, the largest p*-norm of a row. Between these and
    the 2-norm its logarithm is convex in (1/p, 1/q), by Riesz and Thorin, which is for q >= p; for q < p the bounds of
    (p, p) and (q, q) hold with the factors that norms differ by.
    """
    n, m = sizes
    found: float = two * n ** max(0.0, 0.5 - 1 / p) * m ** max(0.0, 1 / q - 0.5)
    if q < p:
        longer = 1 / q - 1 / p
        by_p = m**longer * induced_bound(p, p, two, columns, rows, sizes)
        by_q = n**longer * induced_bound(q, q, two, columns, rows, sizes)
        found = min(found, by_p, by_q)
        return found
    a, b = 1 / p - 0.5, 1 / q - 0.5
    share = 2 * max(a, -b)
    if share == 0:
        return found
    end = _longest(columns, 0.5 + b / share) if a >= -b else _longest(rows, 0.5 - a / share)
    found = min(found, two ** (1 - share) * end**share)
    return found


def _longest(rows: Tensor, reciprocal: float) -> float:
    """The largest norm of a row, for 1/p; of p beyond 100 that for 100, which is larger."""
    peak = float(rows.abs().amax())
    exponent = 1 / max(reciprocal, 0.01)
    return peak * float(norm_along(rows / peak, exponent, 1).amax()) if peak else 0.0
