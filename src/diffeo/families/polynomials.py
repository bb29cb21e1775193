"""Increasing polynomials: sums of squares, and Bernstein polynomials with increasing coefficients.

Both are polynomials on [-bound, bound] and go on as their tangents outside, so they map the line to the line, and far
points move by an affine map in place of a power of x.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..parts import register
from .numeric import NumericInverse


class _Polynomial(NumericInverse):
    """`polynomial(x, params)` on [-bound, bound] gives value and slope; tangents outside."""

    def __init__(self, bound: float, minimum_slope: float) -> None:
        super().__init__()
        if not bound > 0:
            raise ConfigError(f"bound must be positive, got {bound}")
        if not 0 < minimum_slope < 1:
            raise ConfigError(f"minimum_slope must be between 0 and 1, got {minimum_slope}")
        self.bound = bound
        self.minimum_slope = minimum_slope

    def polynomial(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """Value and slope (at least minimum_slope) at x within the bounds."""
        raise ConfigError(f"{type(self).__name__} has no polynomial")

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.clamp(-self.bound, self.bound)
        value, slope = self.polynomial(inside, params)
        return value + (x - inside) * slope, slope.log()


@register
class SumOfSquares(_Polynomial):
    """y = c + int_0^x (e + sum_k p_k(u)^2) du, K polynomials p_k of degree r; e is `minimum_slope`.

    params: c, then the r + 1 coefficients of each p_k, of Legendre polynomials of u / bound, less those at zero params:
    constants p_k with different weights (equal ones would get equal gradients for ever) whose squares sum to 1 - e, so
    that y = x. Jaini, Selby, Yu, Sum-of-squares polynomial flow, 2019, arXiv:1905.02325, which has e = 0, powers of u,
    whose gradients differ by orders of magnitude, and no tangents.
    """

    def __init__(
        self,
        polynomials: int = 3,
        degree: int = 3,
        *,
        bound: float = 5.0,
        minimum_slope: float = 1e-3,
    ) -> None:
        super().__init__(bound, minimum_slope)
        if polynomials < 1 or degree < 0:
            raise ConfigError(
                f"polynomials must be >= 1 and degree >= 0, got {polynomials} and {degree}"
            )
        self.polynomials = polynomials
        self.degree = degree
        self.num_params = polynomials * (degree + 1) + 1
        self.basis: Tensor
        self.register_buffer("basis", torch.tensor(_legendre(degree)), persistent=False)

    def polynomial(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        c = params[..., 0]
        a = params[..., 1:].unflatten(-1, (self.polynomials, self.degree + 1))
        start = torch.arange(self.polynomials, 0, -1, dtype=a.dtype, device=a.device)
        start = start * (math.sqrt(1 - self.minimum_slope) / start.norm())
        a = torch.cat([a[..., :1] + start[:, None], a[..., 1:]], -1)
        # Not a matrix product, which autocast would round.
        a = (a[..., None] * self.basis.to(a.dtype)).sum(-2)
        t = x / self.bound
        p = torch.zeros_like(x)[..., None]
        for k in range(self.degree, -1, -1):
            p = p * t[..., None] + a[..., k]
        slope = self.minimum_slope + p.square().sum(-1)
        # Coefficients of sum_k p_k^2, divided by their power plus one: those of the integral.
        value = torch.zeros_like(slope)
        for n in range(2 * self.degree, -1, -1):
            low, high = max(0, n - self.degree), min(n, self.degree)
            left = a[..., low : high + 1]
            right = a[..., n - high : n - low + 1].flip(-1)
            value = value * t + (left * right).sum((-2, -1)) / (n + 1)
        return c + x * (self.minimum_slope + value), slope

    def config(self) -> dict[str, Any]:
        return {
            "polynomials": self.polynomials,
            "degree": self.degree,
            "bound": self.bound,
            "minimum_slope": self.minimum_slope,
        }

    def extra_repr(self) -> str:
        return f"polynomials={self.polynomials}, degree={self.degree}, bound={self.bound:g}"


def _legendre(degree: int) -> list[list[float]]:
    """Coefficients of the powers of t in P_0, ..., P_degree: (n + 1) P_n+1 = (2n + 1) t P_n - n P_n-1."""
    rows = [[1.0, *[0.0] * degree], [0.0, 1.0, *[0.0] * (degree - 1)]][: degree + 1]
    for n in range(1, degree):
        last, before = rows[-1], rows[-2]
        rows.append(
            [
                ((2 * n + 1) * t - n * b) / (n + 1)
                for t, b in zip([0.0, *last], before, strict=False)
            ]
        )
    return rows


@register
class Bernstein(_Polynomial):
    """y = sum_k a_k C(n, k) t^k (1 - t)^(n - k), t = (x + bound) / (2 bound), with a_k increasing.

    params: the mean of the a_k, then n raw increments: a_k - a_{k-1} = (2 bound / n) (e + (1 - e) softplus(raw) /
    log 2), e the `minimum_slope`. At zero params y = x. Sick, Hothorn, Duerr, Deep transformation models, 2020,
    arXiv:2004.00464; Ramasinghe et al., Robust normalizing flows using Bernstein-type polynomials, 2021,
    arXiv:2102.03509.
    """

    def __init__(
        self, degree: int = 15, *, bound: float = 5.0, minimum_slope: float = 1e-3
    ) -> None:
        super().__init__(bound, minimum_slope)
        if degree < 1:
            raise ConfigError(f"degree must be at least 1, got {degree}")
        self.degree = degree
        self.num_params = degree + 1

    def polynomial(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        n, e = self.degree, self.minimum_slope
        rises = e + (1 - e) * F.softplus(params[..., 1:]) / math.log(2)
        steps = 2 * self.bound / n * rises.cumsum(-1)
        a = torch.cat([torch.zeros_like(steps[..., :1]), steps], -1)
        a = a - a.mean(-1, keepdim=True) + params[..., :1]
        t = (x + self.bound) / (2 * self.bound)
        powers, rest = _powers(t, n), _powers(1 - t, n).flip(-1)
        basis = _binomials(n, x) * powers * rest
        below = _binomials(n - 1, x) * powers[..., :-1] * rest[..., 1:]
        return (basis * a).sum(-1), (below * rises).sum(-1)

    def config(self) -> dict[str, Any]:
        return {"degree": self.degree, "bound": self.bound, "minimum_slope": self.minimum_slope}

    def extra_repr(self) -> str:
        return f"degree={self.degree}, bound={self.bound:g}"


def _powers(t: Tensor, n: int) -> Tensor:
    """1, t, ..., t^n along a new last axis; by products, whose derivatives at 0 are no NaN."""
    found = [torch.ones_like(t)]
    for _ in range(n):
        found.append(found[-1] * t)
    return torch.stack(found, -1)


def _binomials(n: int, like: Tensor) -> Tensor:
    """n over k for k from 0 to n, exact as long as the dtype holds them."""
    k = torch.arange(1, n + 1, dtype=like.dtype, device=like.device)
    return F.pad(((n + 1 - k) / k).cumprod(0), (1, 0), value=1.0).round()
