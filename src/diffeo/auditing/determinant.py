"""log|det J| of one layer by autograd alone, without its own formula: exact where possible, else an estimate.

Up to FULL entries the Jacobian is written out. Beyond, a few products J u with random u recognize, and thereby prove
with probability one, a structure whose determinant is cheap: a rearrangement of the entries; entries that pass
unchanged while the others are scaled elementwise (every coupling, whatever its network); one small matrix per pixel
(mixing of channels). Otherwise up to LARGEST entries (vectors: LARGEST_VECTOR) the Jacobian is written out after all.

Beyond that stochastic Lanczos quadrature of 1/2 tr log J^T J bounds log|det J| from above, in expectation, and the same
for the inverse bounds it from below: Ubaru, Chen, Saad, 2017, doi:10.1137/16M1104974; bidiagonalization: Golub & Kahan,
1965.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .linear import Linearization, jacobian, randn_like

Indexed = Callable[[Tensor, Tensor], Tensor]

FULL, LARGEST, LARGEST_VECTOR = 64, 256, 1024
_CHANNELS = 64
_PROBES, _STEPS = 8, 24
_SAME = 1e-9


@dataclass(frozen=True)
class LogDet:
    """log|det J| at some rows; `tolerance`, for each, is what the method leaves open. elementwise: J is diagonal."""

    rows: Tensor
    value: Tensor
    tolerance: Tensor
    method: str
    elementwise: bool = False


def log_det(
    f: Indexed,
    x: Tensor,
    generator: torch.Generator,
    inverse: tuple[Indexed, Tensor] | None = None,
) -> LogDet:
    """log|det J| of f at x; inverse: the inverse map and f(x), for the bracket of the estimate.

    f(x, rows) maps an x whose k-th row belongs to row rows[k] of the x given here.
    """
    size = x[0].numel()
    found = None
    if size > FULL:
        everything = torch.arange(len(x), device=x.device)
        j = Linearization(lambda t: f(t, everything), x)
        for recognize in (_rearrangement, _triangular, _blocks):
            found = found or recognize(j, generator)
        del j
    if found is None:
        affordable = LARGEST_VECTOR if x.ndim == 2 else LARGEST
        found = full(f, x) if size <= affordable else _bracket(f, x, inverse, generator)
    return found


def full(f: Indexed, x: Tensor) -> LogDet:
    """By LU factors of the whole matrix; at a few rows of x, the fewer the larger it is."""
    count = min(len(x), max(1, LARGEST // x[0].numel()))
    rows = torch.linspace(0, len(x) - 1, count, device=x.device).round().long()

    def at(row: Tensor) -> Tensor:
        return jacobian(lambda t: f(t, row.expand(len(t))), x[row])

    matrix = torch.stack([at(row) for row in rows])
    value = torch.linalg.slogdet(matrix)[1]
    s = torch.linalg.svdvals(matrix)
    open_ = (1e-11 * s[:, 0] / s[:, -1].clamp(min=1e-300)).clamp(max=1e-3)
    off_diagonal = matrix - torch.diag_embed(matrix.diagonal(dim1=1, dim2=2))
    return LogDet(rows, value, open_, "full Jacobian", not bool(off_diagonal.any()))


def _rearrangement(j: Linearization, generator: torch.Generator) -> LogDet | None:
    """J u holds the entries of a random u in another order, up to sign: |det J| = 1."""
    u = randn_like(j.x, generator)
    before, after = (t.flatten(1).abs().sort(1).values for t in (u, j.jvp(u)))
    if not _close(after, before):
        return None
    return _exact(j.x.new_zeros(len(j.x)), "rearrangement", elementwise=True)


def _triangular(j: Linearization, generator: torch.Generator) -> LogDet | None:
    """Some entries pass, (J u)_i = u_i; moving the others only scales each by its own d: log|det J| = sum log |d|."""
    if j.x[0].numel() != j.y[0].numel():
        return None
    passes = None
    for _ in range(2):
        u = randn_like(j.x, generator)
        gap = (j.jvp(u).flatten(1) - u.flatten(1)).abs()
        same = gap <= _SAME * u.flatten(1).abs().clamp(min=1e-3)
        passes = same if passes is None else passes & same
    assert passes is not None
    moved = (~passes).to(j.x.dtype)
    d = j.jvp(moved.reshape(j.x.shape)).flatten(1)
    u = randn_like(j.x, generator).flatten(1) * moved
    if not _close(j.jvp(u.reshape(j.x.shape)).flatten(1), d * u):
        return None
    logs = torch.where(passes, torch.zeros_like(d), d.abs().log())
    alone = not bool(passes.any())
    method = "elementwise" if alone else "triangular"
    return _exact(logs.sum(1), method, alone)


def _blocks(j: Linearization, generator: torch.Generator) -> LogDet | None:
    """J mixes the first axis only, with one matrix per place of the others."""
    shape = j.x.shape
    if j.y.shape != shape or len(shape) < 3 or shape[1] > _CHANNELS:
        return None
    columns = []
    for k in range(shape[1]):
        u = torch.zeros_like(j.x)
        u[:, k] = 1
        columns.append(j.jvp(u).flatten(2).mT)
    blocks = torch.stack(columns, -1).detach()
    u = randn_like(j.x, generator)
    expected = (blocks @ u.flatten(2).mT[..., None])[..., 0].mT
    if not _close(j.jvp(u).flatten(1), expected.flatten(1)):
        return None
    return _exact(torch.linalg.slogdet(blocks)[1].sum(1), "channel blocks")


def _exact(value: Tensor, method: str, elementwise: bool = False) -> LogDet:
    rows = torch.arange(len(value), device=value.device)
    return LogDet(rows, value, torch.zeros_like(value), method, elementwise)


def _close(found: Tensor, expected: Tensor) -> bool:
    scale = expected.abs().max()
    return bool(((found - expected).abs().max() <= _SAME * scale) & scale.isfinite())


# -- stochastic Lanczos quadrature ----------------------------------------------------------------------------------


def _bracket(
    f: Indexed, x: Tensor, inverse: tuple[Indexed, Tensor] | None, generator: torch.Generator
) -> LogDet:
    """The middle between the bounds from above of log|det J| and, by the inverse, of -log|det J|.

    tolerance: half their distance and 5 standard errors; infinite without an inverse.
    """
    rows = torch.arange(len(x), device=x.device)
    high, error = _above(f, x, generator)
    if inverse is None:
        return LogDet(rows, high, torch.full_like(high, math.inf), "upper bound only")
    low, more = _above(*inverse, generator)
    half = ((high + low) / 2).clamp(min=0)
    return LogDet(rows, (high - low) / 2, half + 5 * (error + more), "Lanczos estimate")


def _above(f: Indexed, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean over random signs and standard error; above in expectation, as Gauss quadrature of a logarithm is."""
    size = x[0].numel()
    found = []
    for row in range(len(x)):
        rows = torch.full((_PROBES,), row, device=x.device)
        j = Linearization(lambda t, rows=rows: f(t, rows), x.detach()[rows])  # type: ignore[misc]
        found.append(size * _quadrature(_bidiagonal(j, generator)))
    values = torch.stack(found)
    return values.mean(1), values.std(1) / math.sqrt(_PROBES)


def _bidiagonal(j: Linearization, generator: torch.Generator) -> Tensor:
    """B of J V = U B, [n, k, k], from random signs."""
    steps = min(_STEPS, j.x[0].numel())
    sign = torch.where(randn_like(j.x, generator) < 0, -1.0, 1.0).to(j.x.dtype).flatten(1)
    v = [sign / math.sqrt(sign.shape[1])]
    u: list[Tensor] = []
    b = j.x.new_zeros(len(sign), steps, steps)
    for k in range(steps):
        p = _against(j.jvp(v[k].reshape(j.x.shape)).flatten(1), u)
        b[:, k, k] = p.norm(dim=1)
        u.append(p / b[:, k, k, None].clamp(min=1e-300))
        if k + 1 < steps:
            r = _against(j.vjp(u[k].reshape(j.y.shape)).flatten(1), v)
            b[:, k, k + 1] = r.norm(dim=1)
            v.append(r / b[:, k, k + 1, None].clamp(min=1e-300))
    return b


def _against(p: Tensor, basis: list[Tensor]) -> Tensor:
    """p without its part along the basis; twice, for the sake of rounding."""
    for _ in range(2):
        for q in basis:
            p = p - (p * q).sum(1, keepdim=True) * q
    return p


def _quadrature(b: Tensor) -> Tensor:
    """e_1^T log(B^T B)/2 e_1, [n]."""
    _, s, right = torch.linalg.svd(b)
    weight = right[:, :, 0].square()
    return torch.where(weight > 1e-20, weight * s.clamp(min=1e-300).log(), 0.0).sum(1)
