"""Splines of polynomial pieces: linear, quadratic, cubic."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...parts import register
from ...properties import Properties
from ..numeric import ROUNDINGS, solve
from .base import Spline
from .binning import ends, find, knots, pick, shares


@register
class LinearSpline(Spline):
    """y = y_k + h xi, xi = (x - x_k) / w: bins of equal width w and learned heights h; log dy/dx = log h / w.

    Continuous, with jumps of the slope at the knots, also at the bounds. params: K heights (softmax). The identity at
    zero params. min_height: share of 2 bound. Mueller et al., Neural importance sampling, 2019, arXiv:1808.03856.
    """

    def __init__(self, bins: int = 8, bound: float = 3.0, *, min_height: float = 1e-3) -> None:
        super().__init__(bins, bound, min_height=min_height)
        self.num_params = bins

    def piece(self, x: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        width, heights = 2 * self.bound / self.bins, shares(params, self.minima["min_height"])
        ys = knots(heights, self.bound)
        if inverse:
            index = find(x, ys)
            low, h = ends(heights, ys, index, self.bound)
            return (index + (x - low) / h) * width - self.bound, -(h / width).log()
        at = (x + self.bound) / width
        index = at.detach().clamp(0, self.bins - 1).long()
        low, h = ends(heights, ys, index, self.bound)
        return low + h * (at - index), (h / width).log()


@register
class QuadraticSpline(Spline):
    """y = y_k + h xi (d_k (1 + q) + d_{k+1} xi) / (d_k + d_{k+1}), xi = (x - x_k) / w, q = 1 - xi.

    The slope is linear in every bin: d_k q + d_{k+1} xi, with the inner d_k learned and scaled so that the heights
    h = w (d_k + d_{k+1}) / 2 sum to 2 bound, and 1 at both bounds, as outside. params: K widths (softmax), K - 1 slopes
    (softmax). The identity at zero params. min_width: share of 2 bound. Mueller et al., 2019, arXiv:1808.03856.
    """

    def __init__(
        self,
        bins: int = 8,
        bound: float = 3.0,
        *,
        min_width: float = 1e-3,
        min_slope: float = 1e-3,
    ) -> None:
        super().__init__(bins, bound, min_width=min_width, min_slope=min_slope)
        self.num_params = 2 * bins - 1

    def piece(self, x: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        raw_widths, raw_slopes = params.split((self.bins, self.bins - 1))
        widths = shares(raw_widths, self.minima["min_width"])
        minimum = self.minima["min_slope"]
        # The mean slope is 1; the two ends take their part of it, and the inner knots share the rest.
        weights = (widths[1:] + widths[:-1]) / 2
        inner = torch.softmax(raw_slopes, 0)
        scale = weights.sum(0) / (inner * weights).sum(0)
        one = torch.ones_like(inner[:1])
        slopes = torch.cat((one, minimum + (1 - minimum) * scale * inner, one))
        heights = widths * (slopes[1:] + slopes[:-1]) / 2
        xs, ys = knots(widths, self.bound), knots(heights, self.bound)
        index = find(x, ys if inverse else xs)
        left, w = ends(widths, xs, index, self.bound)
        low, h = ends(heights, ys, index, self.bound)
        d0, d1 = pick(slopes, index), pick(slopes, index + 1)
        if inverse:
            v = ((x - low) / h).clamp(0, 1)
            # The discriminant as a sum of positive terms, and the root without cancellation.
            xi = (d0 + d1) * v / (d0 + (d0.square() * (1 - v) + d1.square() * v).sqrt())
        else:
            xi = (x - left) / w
        ladj = (2 * h / w * (d0 * (1 - xi) + d1 * xi) / (d0 + d1)).log()
        if inverse:
            return left + w * xi, -ladj
        return low + h * xi * (d0 * (2 - xi) + d1 * xi) / (d0 + d1), ladj


OUTER = 0.4
"""The least mean slope of a cubic spline's first and last bin: above 1/3, a cubic with slope 1 at its end increases."""


@register
class CubicSpline(Spline):
    """y = y_k + h (xi^2 (3 - 2 xi) + a xi q^2 - b xi^2 q), a = d_k / s, b = d_{k+1} / s, s = h / w, q = 1 - xi.

    Monotone Hermite cubics with Steffen's slopes d_k = min(2 s_{k-1}, 2 s_k, p_k), p_k that of the parabola through
    three knots, and 1 at both bounds, as outside; for that the first and the last bin have s >= 0.4. params: K widths,
    K heights (softmax). The identity at zero params. min_width, min_height: shares of 2 bound. Inverse by safeguarded
    root finding. Steffen, 1990; Durkan et al., Cubic-spline flows, 2019, arXiv:1906.02145.
    """

    def __init__(
        self,
        bins: int = 8,
        bound: float = 3.0,
        *,
        min_width: float = 1e-3,
        min_height: float = 1e-3,
    ) -> None:
        super().__init__(bins, bound, min_width=min_width, min_height=min_height)
        self.num_params = 2 * bins
        self.properties = Properties(
            inverse="iterative", bias=f"inverse to {ROUNDINGS} roundings of the dtype"
        )

    def _heights(self, raw: Tensor, widths: Tensor) -> Tensor:
        """Shares, in the first and last bin at least OUTER times the width; equal for equal widths and raw numbers."""
        least = torch.full_like(raw[1:-1], self.minima["min_height"])
        least = torch.cat((OUTER * widths[:1], least, OUTER * widths[-1:]))
        inner = math.log(1 / self.bins - self.minima["min_height"])
        outer = math.log((1 - OUTER) / self.bins)
        offset = [outer, *[inner] * (self.bins - 2), outer]
        more = torch.stack([r + o for r, o in zip(raw.unbind(0), offset, strict=True)])
        return least + (1 - least.sum(0)) * torch.softmax(more, 0)

    def piece(self, x: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        widths = shares(params[: self.bins], self.minima["min_width"])
        heights = self._heights(params[self.bins :], widths)
        mean = heights / widths
        parabola = (mean[:-1] * widths[1:] + mean[1:] * widths[:-1]) / (widths[:-1] + widths[1:])
        inner = torch.minimum(2 * torch.minimum(mean[:-1], mean[1:]), parabola)
        one = torch.ones_like(inner[:1])
        slopes = torch.cat((one, inner, one))
        xs, ys = knots(widths, self.bound), knots(heights, self.bound)
        index = find(x, xs)
        left, w = ends(widths, xs, index, self.bound)
        low, h = ends(heights, ys, index, self.bound)
        s = h / w
        a, b = pick(slopes, index) / s, pick(slopes, index + 1) / s
        xi = (x - left) / w
        q = 1 - xi
        y = low + h * xi * (xi * (3 - 2 * xi) + q * (a * q - b * xi))
        return y, (s * (a * q * q + b * xi * xi + 2 * xi * q * (3 - a - b))).log()

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        inside = y.clamp(-self.bound, self.bound)
        x, ladj = solve(lambda x: self(x, params), inside, name=type(self).__name__)
        within = y.abs() < self.bound
        return torch.where(within, x, y), torch.where(within, ladj, torch.zeros_like(ladj))
