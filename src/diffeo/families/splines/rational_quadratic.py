"""Rational-quadratic splines: the quotient of two quadratics in every bin, with a closed inverse."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...errors import ConfigError
from ...parts import register
from .base import Spline, Tails
from .binning import ends, find, knots, shares
from .slopes import circular_slopes, inner_slopes


@register
class RationalQuadraticSpline(Spline):
    """y = y_k + h xi (s xi + d_k q) / (q (s q + d_k xi) + xi (s xi + d_{k+1} q)), xi = (x - x_k) / w, q = 1 - xi.

    w, h: width and height of bin k; s = h / w; d_k: slope at knot k. Continuous with its derivative, everywhere.
    params: K widths, K heights (softmax), and the slopes (softplus): the K - 1 inner ones with tails `linear`, where
    those at the ends are 1 as outside; K with tails `circular`, where the two ends are one knot. The identity at zero
    params. min_width, min_height: shares of 2 bound.

    Gregory and Delbourgo, 1982; Durkan et al., Neural Spline Flows, 2019, arXiv:1906.04032; on the circle Rezende et
    al., 2020, arXiv:2002.02428.
    """

    def __init__(
        self,
        bins: int = 8,
        bound: float = 3.0,
        *,
        tails: Tails = "linear",
        min_width: float = 1e-3,
        min_height: float = 1e-3,
        min_slope: float = 1e-3,
    ) -> None:
        if tails not in ("linear", "circular"):
            raise ConfigError(f"tails must be linear or circular, got {tails!r}")
        super().__init__(
            bins,
            bound,
            tails=tails,
            min_width=min_width,
            min_height=min_height,
            min_slope=min_slope,
        )
        self.num_params = 3 * bins if tails == "circular" else 3 * bins - 1

    def piece(self, x: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        widths, heights, slopes = params.split(
            (self.bins, self.bins, self.num_params - 2 * self.bins)
        )
        widths = shares(widths, self.minima["min_width"])
        heights = shares(heights, self.minima["min_height"])
        xs, ys = knots(widths, self.bound), knots(heights, self.bound)
        index = find(x, ys if inverse else xs)
        left, w = ends(widths, xs, index, self.bound)
        low, h = ends(heights, ys, index, self.bound)
        both = circular_slopes if self.tails == "circular" else inner_slopes
        d0, d1 = both(slopes, index, self.minima["min_slope"])
        s = h / w
        if inverse:
            xi, q = _solve((x - low) / h, s, d0, d1)
            return left + w * xi, -_log_slope(xi, q, s, d0, d1)
        xi = (x - left) / w
        q = 1 - xi
        y = low + h * (xi * (s * xi + d0 * q) / _denominator(xi, q, s, d0, d1))
        return y, _log_slope(xi, q, s, d0, d1)

    def config(self) -> dict[str, Any]:
        return super().config() | {"tails": self.tails}


def _denominator(xi: Tensor, q: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    """s + (d0 + d1 - 2 s) xi q, as a sum of positive terms: nothing cancels, and it is 1 where s = d0 = d1 = 1."""
    return q * (s * q + d0 * xi) + xi * (s * xi + d1 * q)


def _log_slope(xi: Tensor, q: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    ratio = s / _denominator(xi, q, s, d0, d1)
    return (ratio.square() * (q * (s * xi + d0 * q) + xi * (s * q + d1 * xi))).log()


def _solve(v: Tensor, s: Tensor, d0: Tensor, d1: Tensor) -> tuple[Tensor, Tensor]:
    """xi and 1 - xi of the share v of a bin's height.

    The quadratic's discriminant is m^2 + 4 s^2 v (1 - v), m = d0 (1 - v) - d1 v: never negative. The root is taken from
    the end of the bin at which no terms cancel.
    """
    v = v.clamp(0, 1)
    rest = 1 - v
    m = d0 * rest - d1 * v
    left = (m >= 0).to(m.dtype)
    right = 1 - left
    root = (m.square() + 4 * s.square() * v * rest).sqrt() + m * (left - right)
    part = 2 * s * (left * v + right * rest)
    near, far = part / (part + root), root / (part + root)
    return left * near + right * far, left * far + right * near
