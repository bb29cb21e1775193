"""Rational-quadratic splines: the quotient of two quadratics in every bin, with a closed inverse."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ConfigError
from ...parts import register
from .base import Spline, Tails
from .binning import find, knots, pick, shares


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

    def _slope(self, raw: Tensor) -> Tensor:
        minimum = self.minima["min_slope"]
        return F.softplus(raw + math.log(math.expm1(1 - minimum))) + minimum

    def _slopes(self, raw: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The slopes at both ends of a bin; raw are all of them, before the softplus."""
        last = self.bins - 1
        if self.tails == "circular":
            following = torch.where(index == last, torch.zeros_like(index), index + 1)
            return self._slope(pick(raw, index)), self._slope(pick(raw, following))
        left = self._slope(pick(raw, (index - 1).clamp(min=0)))
        right = self._slope(pick(raw, index.clamp(max=last - 1)))
        one = torch.ones_like(left)
        return torch.where(index == 0, one, left), torch.where(index == last, one, right)

    def piece(self, x: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        k = self.bins
        xs = knots(shares(params[:k], self.minima["min_width"]), self.bound)
        ys = knots(shares(params[k : 2 * k], self.minima["min_height"]), self.bound)
        index = find(x, ys if inverse else xs)
        left, low = pick(xs, index), pick(ys, index)
        w, h = pick(xs, index + 1) - left, pick(ys, index + 1) - low
        d0, d1 = self._slopes(params[2 * k :], index)
        s = h / w
        if inverse:
            xi, q = _solve((x - low) / h, s, d0, d1)
            return left + w * xi, -_log_slope(xi, q, s, d0, d1)
        xi = (x - left) / w
        q = 1 - xi
        return low + h * (xi * (s * xi + d0 * q) / _denominator(xi, q, s, d0, d1)), _log_slope(
            xi, q, s, d0, d1
        )

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
    near_left = m >= 0
    root = (m.square() + 4 * s.square() * v * rest).sqrt() + torch.where(near_left, m, -m)
    part = 2 * s * torch.where(near_left, v, rest)
    near, far = part / (part + root), root / (part + root)
    return torch.where(near_left, near, far), torch.where(near_left, far, near)
