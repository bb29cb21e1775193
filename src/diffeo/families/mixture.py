"""Mixture CDFs: x through the distribution function of a mixture, and back to a line by the base's quantiles.

A component with mean m and scale s sees u = (x - m) / s. All is computed from logarithms of the distribution function
F and of the survival function 1 - F, and slopes from their hazard rates, so that no difference of large numbers is
taken however far x is from every component.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..parts import register
from .base import Family
from .numeric import NumericInverse

_LOG_2PI_HALF = 0.5 * math.log(2 * math.pi)


class _MixtureCDF(NumericInverse):
    """Weights, means and scales of `components` components from 3 K params: logits, means, log-scales."""

    def __init__(self, components: int = 8, *, spread: float = 2.0, bound: float = 7.0) -> None:
        super().__init__()
        if components < 1:
            raise ConfigError(f"components must be at least 1, got {components}")
        if spread < 0 or bound <= 0:
            raise ConfigError(f"spread must be >= 0 and bound > 0, got {spread} and {bound}")
        self.components = components
        self.spread = spread
        self.bound = bound
        self.num_params = 3 * components
        self.places: Tensor
        places = torch.linspace(-spread, spread, components) if components > 1 else torch.zeros(1)
        self.register_buffer("places", places, persistent=False)

    def _mixture(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales, [..., K] each."""
        logits, means, raw = params.unflatten(-1, (3, self.components)).unbind(-2)
        log_scales = self.bound * (raw / self.bound).tanh()
        return logits.log_softmax(-1), means + self.places.to(means.dtype), log_scales

    def params_of(self, means: Tensor, scales: Tensor) -> Tensor:
        """The params [..., 3 K] of equally weighted components with these means and scales, [..., K].

        A scale beyond 0.99 of the bound of its logarithm becomes that.
        """
        raw = self.bound * (scales.log() / self.bound).clamp(-0.99, 0.99).atanh()
        return torch.cat([torch.zeros_like(means), means - self.places.to(means.dtype), raw], -1)

    def guess(self, y: Tensor, params: Tensor) -> Tensor:
        # Each component alone would map m + s y to y; the root is between the least and the largest of these.
        log_weights, means, log_scales = self._mixture(params)
        return (log_weights.exp() * (means + y[..., None] * log_scales.exp())).sum(-1)

    def config(self) -> dict[str, Any]:
        return {"components": self.components, "spread": self.spread, "bound": self.bound}

    def extra_repr(self) -> str:
        return f"components={self.components}"


@register
class LogisticMixtureCDF(_MixtureCDF):
    """y = logit F(x), F = sum_k pi_k sigmoid((x - m_k) / s_k); with an affine map after it, the coupling of Flow++.

    params: K logits of pi, K means less their places, K raw scales with log s = bound tanh(raw / bound). The places are
    evenly spaced over [-spread, spread]: at zero params all s are 1, and y = x exactly if spread is 0 or K is 1; else
    y = x + O(spread), because components that start equal get equal gradients for ever. Far out y is linear in x.
    Ho et al., Flow++, 2019, arXiv:1902.00275. The family with its 2 + 3K numbers:
    `Composition([LogisticMixtureCDF(K), Affine("clamp", bound=1.0)])`.
    """

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_weights, means, log_scales = self._mixture(params)
        u = (x[..., None] - means) * (-log_scales).exp()
        log_below, log_above = F.logsigmoid(u), F.logsigmoid(-u)
        below, above = log_weights + log_below, log_weights + log_above
        y = below.logsumexp(-1) - above.logsumexp(-1)
        # d log F - d log(1 - F), each the mean of the components' own under their shares of the mass.
        rise = below.log_softmax(-1) + log_above - log_scales
        fall = above.log_softmax(-1) + log_below - log_scales
        return y, torch.cat([rise, fall], -1).logsumexp(-1)


@register
class GaussianMixtureCDF(_MixtureCDF):
    """y = Phi^-1(F(x)), F = sum_k pi_k Phi((x - m_k) / s_k): a mixture of Gaussians turned into N(0, 1).

    params and zero params as for `LogisticMixtureCDF`. Between components far apart both are flat: y is the same for
    all x there in floating point, and the inverse is one of them. Chen, Gopinath, Gaussianization, NIPS 2000.
    """

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_weights, means, log_scales = self._mixture(params)
        u = (x[..., None] - means) * (-log_scales).exp()
        # Mirrored where more than half of the mass is below: all that follows happens in the lower tail.
        with torch.no_grad():
            median = (log_weights + log_ndtr(u)).logsumexp(-1) < -math.log(2)
            sign = torch.where(median, 1.0, -1.0).to(x.dtype)
        u = sign[..., None] * u
        below = log_weights + log_ndtr(u)
        y = ndtri_of_log(below.logsumexp(-1))
        hazards = below.log_softmax(-1) + log_hazard(u) - log_scales
        return sign * y, hazards.logsumexp(-1) - log_hazard(y)


@register
class LogisticToNormal(Family):
    """y = Phi^-1(sigmoid(x)): a standard logistic turned into N(0, 1); no params. Far out y is about sqrt(2 |x|).

    After a `LogisticMixtureCDF`, the kernel layer of Meng et al., Gaussianization flows, 2020, arXiv:2003.01941.
    """

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        sign = torch.where(x < 0, 1.0, -1.0).to(x.dtype)
        y = ndtri_of_log(F.logsigmoid(sign * x))
        return sign * y, F.logsigmoid(-sign * x) - log_hazard(y)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        below, above = log_ndtr(y), log_ndtr(-y)
        return below - above, torch.logaddexp(log_hazard(y), log_hazard(-y))


def _log_erfcx(u: Tensor) -> Tensor:
    """log erfcx(-u / sqrt 2) for u < 0, where Phi(u) = exp(-u^2 / 2) erfcx(-u / sqrt 2) / 2; of u = 0 elsewhere."""
    lower: Tensor = torch.special.erfcx(-u.clamp(max=0) * math.sqrt(0.5))
    return lower.log()


def _log_upper(u: Tensor) -> Tensor:
    """log Phi(u) for u > 0; of u = 0 elsewhere."""
    return torch.log1p(-0.5 * torch.special.erfc(u.clamp(min=0) * math.sqrt(0.5)))


def log_ndtr(u: Tensor) -> Tensor:
    """log Phi(u), and derivatives of it, to the rounding of the dtype at any distance."""
    lower = _log_erfcx(u) - math.log(2) - 0.5 * u.clamp(max=0).square()
    return torch.where(u < 0, lower, _log_upper(u))


def log_hazard(u: Tensor) -> Tensor:
    """log(phi(u) / Phi(u)), phi the density: about log(-u) for u far below 0."""
    lower = 0.5 * math.log(2 / math.pi) - _log_erfcx(u)
    upper = -0.5 * u.clamp(min=0).square() - _LOG_2PI_HALF - _log_upper(u)
    return torch.where(u < 0, lower, upper)


def ndtri_of_log(log_p: Tensor) -> Tensor:
    """Phi^-1(p) from log p, for p up to 1/2."""
    with torch.no_grad():
        lp = log_p.detach().clamp(max=-math.log(2))
        # Below exp(-30), the leading terms of Phi's expansion; two of Newton's steps make either guess exact.
        far = -(-2 * lp - (-4 * math.pi * lp).log()).clamp(min=0).sqrt()
        y = torch.where(lp < -30, far, torch.special.ndtri(lp.clamp(min=-30).exp()))
        for _ in range(2):
            y = y - (log_ndtr(y) - lp) * (-log_hazard(y)).exp()
    # Newton's steps that change no value, as for a numeric inverse, give the derivatives.
    change = log_p - log_p.detach()
    start = log_ndtr(y)
    y = y + change * (-log_hazard(y)).exp()
    return y - (log_ndtr(y) - start - change) * (-log_hazard(y)).exp()
