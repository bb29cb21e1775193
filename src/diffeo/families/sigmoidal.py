"""Deep and dense sigmoidal families of neural autoregressive flows: logits of mixtures of sigmoids.

Huang, Krueger, Lacoste, Courville. Neural autoregressive flows. 2018, arXiv:1804.00779.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..parts import register
from .numeric import NumericInverse


def mixture_logit(u: Tensor, du: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """y = logit(sum_k w_k sigmoid(u_k)) and dy/dx, over the last axis, for w = softmax(logits) and du = du_k/dx > 0.

    With the shares p_k = w_k sigmoid(u_k) / c and q_k = w_k sigmoid(-u_k) / (1 - c) of the mixture c and of 1 - c,
    dy/dx = sum_k du_k (p_k sigmoid(-u_k) + q_k sigmoid(u_k)): nothing overflows or cancels, however far out x is.
    """
    inside, outside = F.logsigmoid(u), F.logsigmoid(-u)
    below, above = logits + inside, logits + outside
    y = below.logsumexp(-1) - above.logsumexp(-1)
    rates = below.softmax(-1) * outside.exp() + above.softmax(-1) * inside.exp()
    return y, (du * rates).sum(-1)


def positive(raw: Tensor) -> Tensor:
    """softplus(raw + log(e - 1)): 1 at zero."""
    return F.softplus(raw + math.log(math.e - 1))


class _Sigmoidal(NumericInverse):
    """What the two share: y = s x + (1 - s) g(x), s = min_slope, so that no map is flatter than the dtype resolves."""

    def __init__(self, units: int, layers: int, spread: float, min_slope: float) -> None:
        super().__init__()
        if units < 2 or layers < 1:
            raise ConfigError(
                f"{type(self).__name__} needs at least 2 units and 1 layer, got {units} and {layers}"
            )
        if not 0 < min_slope < 1:
            raise ConfigError(f"min_slope must be in (0, 1), got {min_slope}")
        self.units = units
        self.layers = layers
        self.spread = spread
        self.min_slope = min_slope

    def _offsets(self, like: Tensor) -> Tensor:
        """Even on [-spread, spread]: with equal offsets the units would get equal gradients, and stay equal."""
        s = self.spread
        return torch.linspace(-s, s, self.units, dtype=like.dtype, device=like.device)

    def _soften(self, x: Tensor, y: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
        s = self.min_slope
        return s * x + (1 - s) * y, (s + (1 - s) * dy).log()

    def config(self) -> dict[str, Any]:
        return {"units": self.units, "spread": self.spread, "min_slope": self.min_slope}

    def extra_repr(self) -> str:
        return f"units={self.units}, layers={self.layers}"


@register
class DeepSigmoid(_Sigmoidal):
    """y = s x + (1 - s) logit(sum_k w_k sigmoid(a_k x + b_k)), a_k = softplus(.) > 0, sum_k w_k = 1 (DSF).

    params, `units` of each: a_k, b_k, log w_k, raw. s = min_slope bounds dy/dx from below, as in splines; the
    publication has s = 0. At zero params a_k = 1, w_k = 1 / units, and b_k are even on [-spread, spread]: within
    `spread` of the identity, odd, of slope 1 far out; with spread=0 the identity. Inverse by safeguarded root finding.
    """

    def __init__(self, units: int = 16, *, spread: float = 1.0, min_slope: float = 1e-3) -> None:
        super().__init__(units, 1, spread, min_slope)
        self.num_params = 3 * units

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raw_a, raw_b, raw_w = params.split(self.units, -1)
        a = positive(raw_a)
        u = a * x[..., None] + raw_b + self._offsets(x)
        return self._soften(x, *mixture_logit(u, a, raw_w))


@register
class DenseSigmoid(_Sigmoidal):
    """h <- logit(W sigmoid(a (U h) + b)), `layers` times from h = x to one output; y = s x + (1 - s) h (DDSF).

    The rows of W and U are softmax. Every layer has `units` sigmoids and, but for the last, `units` outputs. Each
    matrix has learned entries shared by all scalars, to which the params add one number per column. params: a, b, w,
    `units` of each, for the first layer; the same and u for each further one: (4 layers - 1) units in sum. min_slope,
    and every layer at zero params, as in DeepSigmoid.
    """

    def __init__(
        self, units: int = 16, layers: int = 2, *, spread: float = 1.0, min_slope: float = 1e-3
    ) -> None:
        super().__init__(units, layers, spread, min_slope)
        self.num_params = (4 * layers - 1) * units
        # U of all layers but the first, whose input is one number; W of each.
        self.inner = nn.ParameterList(
            torch.empty(units, units).uniform_(-1e-3, 1e-3) for _ in range(layers - 1)
        )
        self.outer = nn.ParameterList(
            torch.empty(units if i < layers - 1 else 1, units).uniform_(-1e-3, 1e-3)
            for i in range(layers)
        )

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        raw = iter(params.split(self.units, -1))
        h, dh = x[..., None], torch.ones_like(x)[..., None]
        for i, outer in enumerate(self.outer):
            a, b = positive(next(raw)), next(raw) + self._offsets(x)
            logits = outer + next(raw)[..., None, :]
            if i:
                u = (self.inner[i - 1] + next(raw)[..., None, :]).softmax(-1)
                h, dh = (u * h[..., None, :]).sum(-1), (u * dh[..., None, :]).sum(-1)
            h, dh = mixture_logit((a * h + b)[..., None, :], (a * dh)[..., None, :], logits)
        return self._soften(x, h[..., 0], dh[..., 0])

    def config(self) -> dict[str, Any]:
        return super().config() | {"layers": self.layers}
