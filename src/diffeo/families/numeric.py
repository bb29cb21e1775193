"""Numeric inverses: the root x of f(x) = y for increasing f, to the rounding of the dtype, with exact gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import ConvergenceError
from ..properties import Properties
from ..tracing import apart
from .base import Family

Map = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x -> (y, log dy/dx), elementwise and increasing; what it closes over (parameters, weights) gets gradients."""

ROUNDINGS = 16
"""The tolerance of a root, in units of the dtype's rounding: 2e-6 in float32, 4e-15 in float64, times max(1, |x|)."""

STEPS = 200
"""Evaluations of f before the search gives up; a bracket doubles at each of them that does not enclose the root."""


def solve(
    f: Map,
    y: Tensor,
    *,
    name: str,
    guess: Tensor | None = None,
    tolerance: float | None = None,
) -> tuple[Tensor, Tensor]:
    """x with f(x) = y elementwise, and log dx/dy; both in the shape of y, an element's result alone its own.

    Newton steps, bisection where they leave the bracket or do not halve, and a bracket that doubles until it encloses
    the root. tolerance: of x, relative to max(1, |x|). guess: where to start, y if not given. name: of the layer.
    Gradients by y and by all that f closes over are those of the implicit function, to third order, in every mode.
    torch.compile leaves the search itself out of its graphs, whose length depends on the values; vmap cannot enter it.
    Elements of y that are not finite come back as they are.

    Raises ConvergenceError where there is no root, or f is no number there.

    >>> x, ladj = solve(
    ...     lambda x: (x**3 + x, (3 * x**2 + 1).log()),
    ...     torch.tensor([0.0, 2.0, 30.0]),
    ...     name="cubic",
    ... )
    >>> x
    tensor([0., 1., 3.])
    """
    finite = y.isfinite()
    # The search sees a 0 in place of what is not finite, so that no NaN reaches a gradient.
    target = torch.where(finite, y, torch.zeros_like(y))
    start = target if guess is None else torch.where(finite, guess, torch.zeros_like(y))
    x = _root(f, target.detach(), start.detach(), tolerance, name)
    if torch.is_grad_enabled():
        # Two Newton steps that change no value: each doubles the order to which the derivatives are those of the root.
        x = _newton(f, _newton(f, x, target), target)
    ladj = -f(x)[1]
    return torch.where(finite, x, y), torch.where(finite, ladj, torch.full_like(ladj, torch.nan))


def solve_triangular(
    f: Map, y: Tensor, *, name: str, guess: Tensor | None = None, tolerance: float | None = None
) -> tuple[Tensor, Tensor]:
    """x with f(x) = y for f of [..., D] with y_i increasing in x_i and without x_j for j > i; log dx_i/dy_i.

    f gives y and the diagonal's log-derivatives. Row by row: D roots, each of which evaluates f as a whole. Otherwise
    as `solve`.
    """
    start = y if guess is None else guess
    found: list[Tensor] = []
    for i in range(y.shape[-1]):

        def row(x: Tensor, i: int = i) -> tuple[Tensor, Tensor]:
            rest = start[..., i + 1 :].detach()
            value, slope = f(torch.cat([torch.stack([*found, x], -1), rest], -1))
            return value[..., i], slope[..., i]

        named = f"{name}, entry {i}"
        x, _ = solve(row, y[..., i], name=named, guess=start[..., i], tolerance=tolerance)
        found.append(x)
    x = torch.stack(found, -1) if found else y
    return x, -f(x)[1]


class NumericInverse(Family):
    """A family whose inverse is found by `solve`: a subclass defines `forward` alone, increasing in x."""

    properties = Properties(
        inverse="iterative",
        bias=f"inverse to {ROUNDINGS} roundings of the dtype",
    )

    def guess(self, y: Tensor, params: Tensor) -> Tensor:
        """Where the search for the inverse starts."""
        return y

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            guess = self.guess(y, params)
        return solve(lambda x: self(x, params), y, name=type(self).__name__, guess=guess)


def _newton(f: Map, x: Tensor, y: Tensor) -> Tensor:
    """x, with the derivatives of x - (f(x) - y) / f'(x)."""
    value, slope = f(x)
    # A slope whose inverse is beyond the dtype would turn the zero below into NaN.
    largest = 0.9 * math.log(torch.finfo(y.dtype).max)
    residual = (value - value.detach()) - (y - y.detach())
    return x - residual * (-slope).clamp(max=largest).exp()


@torch.no_grad()
@apart
def _root(f: Map, y: Tensor, x: Tensor, tolerance: float | None, name: str) -> Tensor:
    eps = torch.finfo(y.dtype).eps
    tolerance = ROUNDINGS * eps if tolerance is None else tolerance
    infinity = torch.full_like(y, torch.inf)
    low, high, last, start = -infinity, infinity, infinity, x
    width = 1 + x.abs()
    done = torch.zeros_like(y, dtype=torch.bool)
    failed = done
    residual = infinity
    for _ in range(STEPS):
        value, slope = f(x)
        r = value - y
        # Where f is no number, as when it overflows, the root is taken to be nearer to the start.
        r = torch.where(r.isnan(), torch.where(x > start, infinity, -infinity), r)
        residual = torch.where(done, residual, r.abs())
        low, high = torch.where(r < 0, x, low), torch.where(r > 0, x, high)
        step = -r * (-slope).exp()
        unit = tolerance * x.abs().clamp(min=1)
        newton = x + step
        fits = (newton >= low) & (newton <= high)
        near = fits & (step.abs() <= unit)
        converged = near | (r.abs() <= 2 * eps * y.abs())
        closed = high - low <= unit
        # A bracket also closes on a jump of f, which is no root.
        most = 100 * (unit * slope.exp() + tolerance * y.abs().clamp(min=1))
        failed = failed | (closed & ~done & ~converged & ~(r.abs() <= most))
        bounded = (high - low).isfinite()
        outward = x + width.copysign(-r)
        halves = fits & (step.abs() <= last / 2)
        newton = torch.where(bounded | near, newton, x + step.clamp(-width, width))
        after = torch.where(halves, newton, torch.where(bounded, low + (high - low) / 2, outward))
        after = torch.where(near, newton, torch.where(converged | closed, x, after))
        last = (after - x).abs()
        width = torch.where(bounded, width, 2 * width)
        x = torch.where(done, x, after)
        done = done | converged | closed
        if bool(done.all()):
            break
    wrong = failed | ~done | ~x.isfinite()
    if bool(wrong.any()):
        n = int(wrong.sum())
        worst = float(residual[wrong].max())
        example = float(y[wrong].flatten()[0])
        raise ConvergenceError(
            f"{name}: the inverse of {n} of {y.numel()} values was not found to {tolerance:.1e} in {STEPS} steps, "
            f"worst residual {worst:.3g}, for example of {example:.6g}: the map does not reach such values, or is flat "
            "there in this dtype"
        )
    return x.detach()
