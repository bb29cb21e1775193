"""The inverse of the gradient of a strongly convex function: x with grad G(x) = y, by Newton's method, row by row.

A Newton step lowers |grad G(x) - y| along its direction wherever the Hessian is positive definite, so that halving the
step until it does leads to the solution from any start; near it, full steps double the digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import ConvergenceError, DirectionError
from ..krylov import Product, conjugate_gradients, widened
from ..tracing import apart

At = Callable[..., tuple[Tensor, Callable[[], Tensor], Product]]
"""(x [n, D], rows of the batch or None) -> grad G [n, D], its Jacobian [n, D, D] when called, and as a product."""

STEPS = 100
"""Newton steps before the search gives up."""
HALVINGS = 40
ROUNDINGS = 512
"""The largest residual, in roundings of the largest term of it: 6e-5 in float32, 1e-13 in float64."""
MOST = 0.05
"""The largest one in any precision."""
_AIM = 4  # roundings at which a row is done; between the two it is done when no step lowers its residual


@torch.no_grad()
@apart
def find(at: At, y: Tensor, *, direct: bool, name: str) -> Tensor:
    """x [n, D] with grad G(x) = y [n, D]; no gradients. direct: by the matrix, else by conjugate gradients.

    Each row is solved by itself. Raises ConvergenceError, with the worst residual and the count.
    """
    eps = torch.finfo(y.dtype).eps
    limit = min(ROUNDINGS * eps, MOST)
    x = y.detach().clone()
    left = torch.arange(len(y), device=y.device)
    failed = torch.zeros(len(y), dtype=torch.bool, device=y.device)
    residual = torch.zeros_like(y[:, 0]) if y.shape[1] else y.new_zeros(len(y))
    for _ in range(STEPS):
        if not len(left):
            break
        here, target = x[left], y[left]
        value, hessian, product = at(here, left)
        r = value - target
        norm = r.norm(dim=1)
        step, size = _direction(r, norm, hessian, product, direct)
        scale = target.norm(dim=1) + value.norm(dim=1) + size * here.norm(dim=1) + eps
        residual[left] = norm / scale
        done = norm <= _AIM * eps * scale
        moved, better = _search(at, here, step, target, norm, left, done)
        x[left] = torch.where(better[:, None], moved, here)
        stuck = ~better & ~done
        failed[left] = stuck & ~(norm <= limit * scale)
        left = left[better & ~done]
    failed[left] = ~(residual[left] <= limit)
    if bool(failed.any()):
        raise ConvergenceError(
            f"{name}: the inverse of {int(failed.sum())} of {len(y)} examples was not found in {STEPS} Newton steps, "
            f"worst relative residual {float(residual[failed].max()):.3g}, tolerance {limit:.1e}: the "
            "potential is too curved or too flat there for this dtype"
        )
    return x


def cholesky(h: Tensor) -> Tensor:
    """The factors of symmetric positive definite matrices, in float32 at least; NaN in one example is its own."""
    out: Tensor = torch.linalg.cholesky_ex(widened(h))[0]
    return out


def _direction(
    r: Tensor, norm: Tensor, hessian: Callable[[], Tensor], product: Product, direct: bool
) -> tuple[Tensor, Tensor]:
    """-H^-1 r, and a size of H, [n]."""
    if direct:
        h = hessian()
        step = -torch.cholesky_solve(widened(r)[..., None], cholesky(h))[..., 0]
        return step.to(r.dtype), h.abs().sum(-1).amax(-1)
    found = conjugate_gradients(
        product, -r[:, None], tolerance=norm[:, None].sqrt().clamp(max=0.1, min=1e-8)
    )
    return found.x[:, 0], found.diagonal[:, 0].amax(-1)


def _search(
    at: At, x: Tensor, step: Tensor, y: Tensor, norm: Tensor, rows: Tensor, done: Tensor
) -> tuple[Tensor, Tensor]:
    """x + t step for the first t of 1, 1/2, 1/4 ... that lowers the residual, and whether there is one; done: rows that
    do not search."""
    found, better = x, done.clone()
    open_ = (~better).nonzero()[:, 0]
    t = 1.0
    for _ in range(HALVINGS):
        if not len(open_):
            break
        tried = x[open_] + t * step[open_]
        value = at(tried, rows[open_])[0]
        good = (value - y[open_]).norm(dim=1) <= (1 - 1e-4 * t) * norm[open_]
        found = found.index_copy(0, open_, torch.where(good[:, None], tried, found[open_]))
        better[open_] = good
        open_, t = open_[~good], t / 2
    return found, better


def direct_newton(at: At, x: Tensor, y: Tensor) -> Tensor:
    """x, with the derivatives of x - H^-1 (grad G(x) - y)."""
    value, hessian, _ = at(x)
    residual = (value - value.detach()) - (y - y.detach())
    step = torch.linalg.solve_ex(widened(hessian()), widened(residual)[..., None])[0][..., 0]
    out: Tensor = x - step.to(x.dtype)
    return out


def implicit_step(at: At, x: Tensor, y: Tensor) -> Tensor:
    """The same with H^-1 by conjugate gradients, of which the backward pass makes one run more; first derivatives."""
    value, _, product = at(x)
    residual = (value - value.detach()) - (y - y.detach())
    out: Tensor = x - _Solve.apply(residual, product)  # type: ignore[no-untyped-call]
    return out


def first_only() -> None:
    """Raises DirectionError in a backward pass that is itself recorded."""
    if torch.is_grad_enabled():
        raise DirectionError(
            "an estimate of log|det|, and the inverse beside it, have first derivatives only: for second ones use "
            'estimator="exact"'
        )


class FirstOnly(torch.autograd.Function):
    """Its argument."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        first_only()
        return grad


class _Solve(torch.autograd.Function):
    """H^-1 r of r = 0."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, product: Product) -> Tensor:
        ctx.product = product
        return torch.zeros_like(r)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        first_only()
        with torch.autocast(grad.device.type, enabled=False):
            return conjugate_gradients(ctx.product, grad[:, None]).x[:, 0], None
