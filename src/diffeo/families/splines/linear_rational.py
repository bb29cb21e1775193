"""Linear-rational splines: two quotients of linear functions in every bin, both directions equally cheap."""

from __future__ import annotations

import torch
from torch import Tensor

from ...parts import register
from .base import Spline
from .binning import ends, find, knots, pick, shares
from .slopes import inner_slopes

EDGE = 0.025
"""The least distance of a middle knot from the ends of its bin, as a share of the bin's width."""


@register
class LinearRationalSpline(Spline):
    """In each half of a bin v = b t / (a (1 - t) + b t): t and v the shares of the half's width and height.

    A middle knot at the share l of the width has the share l u / (1 - l + l u) of the height, u = sqrt(d_k / d_{k+1});
    the knots' weights are 1, c = (l d_k + (1 - l) u d_{k+1}) / s and u, so (a, b) = (1, c) to its left and (c, u) to
    its right: slopes d_k and d_{k+1} at the ends, s = h / w the mean slope, continuous with its derivative, also at the
    bounds, where it is 1 as outside. params: K widths, K heights (softmax), K - 1 slopes (softplus), K middles
    (sigmoid). The identity at zero params. min_width, min_height: shares of 2 bound.

    Fuhr and Kallay, 1992; Dolatabadi et al., Invertible generative modeling using linear rational splines, 2020,
    arXiv:2001.05168.
    """

    def __init__(
        self,
        bins: int = 8,
        bound: float = 3.0,
        *,
        min_width: float = 1e-3,
        min_height: float = 1e-3,
        min_slope: float = 1e-3,
    ) -> None:
        super().__init__(
            bins, bound, min_width=min_width, min_height=min_height, min_slope=min_slope
        )
        self.num_params = 4 * bins - 1

    def piece(self, x: Tensor, params: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        k = self.bins
        widths, heights, slopes, middles = params.split((k, k, k - 1, k))
        widths = shares(widths, self.minima["min_width"])
        heights = shares(heights, self.minima["min_height"])
        xs, ys = knots(widths, self.bound), knots(heights, self.bound)
        index = find(x, ys if inverse else xs)
        left, w = ends(widths, xs, index, self.bound)
        low, h = ends(heights, ys, index, self.bound)
        d0, d1 = inner_slopes(slopes, index, self.minima["min_slope"])
        across = EDGE + (1 - 2 * EDGE) * pick(middles, index).sigmoid()
        u = (d0 / d1).sqrt()
        c = (across * d0 + (1 - across) * u * d1) * (w / h)
        up = across * u / (1 - across + across * u)

        at = (x - low) / h if inverse else (x - left) / w
        first = at < (up if inverse else across)
        zero, one = torch.zeros_like(at), torch.ones_like(at)
        a, b = torch.where(first, one, c), torch.where(first, c, u)
        x0, dx = torch.where(first, zero, across), torch.where(first, across, 1 - across)
        y0, dy = torch.where(first, zero, up), torch.where(first, up, 1 - up)
        if inverse:
            v = ((at - y0) / dy).clamp(0, 1)
            t = a * v / (b * (1 - v) + a * v)
        else:
            t = ((at - x0) / dx).clamp(0, 1)
        bottom = a * (1 - t) + b * t
        ladj = ((h / w) * (dy / dx) * (a / bottom) * (b / bottom)).log()
        if inverse:
            return left + w * (x0 + dx * t), -ladj
        return low + h * (y0 + dy * (b * t / bottom)), ladj
