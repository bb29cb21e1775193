"""Conjugate gradients for symmetric positive definite operators, and what their coefficients say of log A.

From b, conjugate gradients and the Lanczos process build the same Krylov space: the step sizes of the first are the
tridiagonal matrix T of the second, without its vectors. So one run in O(1) vectors gives A^-1 b, and a Gauss quadrature
of b^T log(A) b. Golub & Meurant, Matrices, Moments and Quadrature, 2010; Ubaru, Chen, Saad, Fast estimation of tr(f(A))
via stochastic Lanczos quadrature, SIAM J. Matrix Anal. 38, 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .tracing import eager

Product = Callable[[Tensor], Tensor]
"""v [*batch, D] -> A v, with a matrix A of its own for every row."""

_MARGIN = 1e-3  # a bound of the spectrum is lowered by this share, so that rounding cannot pass it


@dataclass(frozen=True)
class Krylov:
    """x with A x ~ b, [*batch, D]; residual: |A x - b|, [*batch]; steps: products taken, [*batch].

    diagonal, off_diagonal: of T, [*batch, m]; the last entry of off_diagonal couples T to the step not taken. Entries
    beyond an example's own steps are zero. norm: |b|, [*batch].
    """

    x: Tensor
    residual: Tensor
    steps: Tensor
    diagonal: Tensor
    off_diagonal: Tensor
    norm: Tensor


def conjugate_gradients(
    product: Product,
    b: Tensor,
    *,
    steps: int | None = None,
    tolerance: float | Tensor | None = None,
) -> Krylov:
    """A x = b for A symmetric and positive definite, row by row, from x = 0; no gradients.

    A row ends when |A x - b| <= tolerance |b| (default: 4 roundings of the dtype), or after `steps` products (default
    D + 10, ten more than exact arithmetic needs); its result does not depend on the other rows. Where values cannot be
    looked at (torch.compile, torch.export, torch.func) all steps are taken, those of finished rows without effect.
    """
    with torch.no_grad():
        return _conjugate_gradients(product, b.detach(), steps, tolerance)


def _conjugate_gradients(
    product: Product, b: Tensor, steps: int | None, tolerance: float | Tensor | None
) -> Krylov:
    if steps is None:
        steps = b.shape[-1] + 10
    if tolerance is None:
        tolerance = 4 * torch.finfo(b.dtype).eps
    x, r, p = torch.zeros_like(b), b, b
    rr = b.square().sum(-1)
    norm = rr.sqrt()
    limit = (tolerance * norm).square()
    done = rr <= limit
    taken = torch.zeros_like(rr, dtype=torch.long)
    nothing, one = torch.zeros_like(rr), torch.ones_like(rr)
    diagonal, off_diagonal = [nothing], [nothing]
    carried = nothing
    for _ in range(steps):
        if _all(done):
            break
        q = product(p)
        curvature = (p * q).sum(-1)
        # No positive curvature: rounding has taken over, or A is not what it should be; the row keeps its x.
        done = done | ~(curvature > 0)
        alpha = torch.where(done, nothing, rr / torch.where(done, one, curvature))
        x = x + alpha[..., None] * p
        r = r - alpha[..., None] * q
        new = torch.where(done, rr, r.square().sum(-1))
        beta = torch.where(done, nothing, new / torch.where(done, one, rr))
        inverse = torch.where(done, nothing, 1 / torch.where(done, one, alpha))
        diagonal.append(inverse + torch.where(done, nothing, carried))
        off_diagonal.append(beta.sqrt() * inverse)
        carried = beta * inverse
        taken = taken + ~done
        p, rr = r + beta[..., None] * p, new
        done = done | (rr <= limit)
    first = 1 if len(diagonal) > 1 else 0
    return Krylov(
        x,
        rr.sqrt(),
        taken,
        torch.stack(diagonal[first:], -1),
        torch.stack(off_diagonal[first:], -1),
        norm,
    )


def log_quadratic_form(found: Krylov, floor: float | Tensor | None = None) -> Tensor:
    """b^T log(A) b, [*batch], by the quadrature of the space that conjugate gradients have built from b.

    Without a floor the Gauss rule, which is never below the truth. With one, a positive lower bound of the eigenvalues
    of A ([*batch] or a number), the Gauss-Radau rule with a node there, which is never above it. Both are exact, up to
    the tolerance of the run, once the space is complete: after at most D steps. The mean over random b with E b b^T = I
    estimates log det A, with the bias that these inequalities bound.
    """
    alpha, beta, steps = found.diagonal, found.off_diagonal, found.steps
    m = alpha.shape[-1]
    # An entry beyond an example's space, coupled to nothing, has no weight.
    spare = torch.where(steps > 0, alpha[..., 0], torch.ones_like(alpha[..., 0]))
    eps = torch.finfo(alpha.dtype).eps
    entries, couplings = [], []
    node = previous = spare
    for j in range(m + 1):
        live = steps > j
        if floor is not None and j:
            # The last entry that makes `low` an eigenvalue: low + beta^2 / (last pivot of T - low I).
            low = torch.as_tensor(floor).to(alpha) * (1 - _MARGIN)
            pivot = alpha[..., j - 1] - low
            if j > 1:
                pivot = pivot - beta[..., j - 2].square() / previous
            previous = torch.maximum(pivot, eps * spare)
            node = torch.where(steps == j, low + beta[..., j - 1].square() / previous, spare)
        entries.append(torch.where(live, alpha[..., j], node) if j < m else node)
        if j < m:
            # The Gauss rule ends where the steps do; the other has one entry more.
            coupled = steps > j + (1 if floor is None else 0)
            couplings.append(torch.where(coupled, beta[..., j], torch.zeros_like(beta[..., j])))
    off = torch.diag_embed(torch.stack(couplings, -1), 1)
    t = torch.diag_embed(torch.stack(entries, -1)) + off + off.mT
    values, vectors = (a.to(t.dtype) for a in torch.linalg.eigh(widened(t)))
    weights = vectors[..., 0, :].square()
    form: Tensor = found.norm.square() * (weights * values.clamp(min=eps * eps).log()).sum(-1)
    return form


def widened(a: Tensor) -> Tensor:
    """In float32 at least, which decompositions need."""
    return a if torch.finfo(a.dtype).bits >= 32 else a.float()


def _all(done: Tensor) -> bool:
    return eager() and bool(done.all())
