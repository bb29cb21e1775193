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

    def _mixture(self, params: Tensor, ndim: int) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales, [K, ...] each, to go with numbers of ndim axes.

        The components stand first: sums over them then run over whole rows of memory.
        """
        first = params.movedim(-1, 0)
        first = first.reshape(
            3, self.components, *(1,) * (ndim - params.ndim + 1), *first.shape[1:]
        )
        logits, means, raw = first.unbind(0)
        log_scales = self.bound * (raw / self.bound).tanh()
        places = self.places.to(means.dtype).reshape(-1, *(1,) * ndim)
        return logits.log_softmax(0), means + places, log_scales

    def params_of(self, means: Tensor, scales: Tensor) -> Tensor:
        """The params [..., 3 K] of equally weighted components with these means and scales, [..., K].

        A scale beyond 0.99 of the bound of its logarithm becomes that.
        """
        raw = self.bound * (scales.log() / self.bound).clamp(-0.99, 0.99).atanh()
        return torch.cat([torch.zeros_like(means), means - self.places.to(means.dtype), raw], -1)

    def guess(self, y: Tensor, params: Tensor) -> Tensor:
        # Each component alone would map m + s y to y; the root is between the least and the largest of these.
        log_weights, means, log_scales = self._mixture(params, y.ndim)
        return (log_weights.exp() * (means + y * log_scales.exp())).sum(0)

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
        log_weights, means, log_scales = self._mixture(params, x.ndim)
        u = (x - means) * (-log_scales).exp()
        log_below, log_above = F.logsigmoid(u), F.logsigmoid(-u)
        log_cdf, below = _total(log_weights + log_below)
        log_survival, above = _total(log_weights + log_above)
        # d log F - d log(1 - F), each the mean of the components' own under their shares of the mass.
        rise, _ = _total(below + log_above - log_scales)
        fall, _ = _total(above + log_below - log_scales)
        return log_cdf - log_survival, torch.logaddexp(rise, fall)


@register
class GaussianMixtureCDF(_MixtureCDF):
    """y = Phi^-1(F(x)), F = sum_k pi_k Phi((x - m_k) / s_k): a mixture of Gaussians turned into N(0, 1).

    params and zero params as for `LogisticMixtureCDF`. Between components far apart both are flat: y is the same for
    all x there in floating point, and the inverse is one of them. Chen, Gopinath, Gaussianization, NIPS 2000.
    """

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_weights, means, log_scales = self._mixture(params, x.ndim)
        u = (x - means) * (-log_scales).exp()
        # Mirrored where more than half of the mass is below: all that follows happens in the lower tail.
        with torch.no_grad():
            median = _total(log_weights + log_ndtr(u))[0] < -math.log(2)
            sign = torch.where(median, 1.0, -1.0).to(x.dtype)
        u = sign * u
        log_cdf, shares = _total(log_weights + log_ndtr(u))
        y = ndtri_of_log(log_cdf)
        hazard, _ = _total(shares + log_hazard(u) - log_scales)
        return sign * y, hazard - _log_hazard_below(y)


@register
class LogisticToNormal(Family):
    """y = Phi^-1(sigmoid(x)): a standard logistic turned into N(0, 1); no params. Far out y is about sqrt(2 |x|).

    After a `LogisticMixtureCDF`, the kernel layer of Meng et al., Gaussianization flows, 2020, arXiv:2003.01941.
    """

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        sign = torch.where(x < 0, 1.0, -1.0).to(x.dtype)
        y = ndtri_of_log(F.logsigmoid(sign * x))
        return sign * y, F.logsigmoid(-sign * x) - _log_hazard_below(y)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        below, above = log_ndtr(y), log_ndtr(-y)
        return below - above, torch.logaddexp(log_hazard(y), log_hazard(-y))


def _total(logs: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the sum over the first axis, and the logarithms of the shares in it, exact to rounding."""
    most = logs.detach().amax(0)
    less = logs - most
    total = less.exp().sum(0).log()
    return most + total, less - total


def _log_erfcx(u: Tensor) -> Tensor:
    """log erfcx(-u / sqrt 2) for u <= 0, where Phi(u) = exp(-u^2 / 2) erfcx(-u / sqrt 2) / 2."""
    scaled: Tensor = torch.special.erfcx(u * -math.sqrt(0.5))
    return scaled.log()


def _log_hazard_below(u: Tensor) -> Tensor:
    """log(phi(u) / Phi(u)) for u <= 0."""
    return 0.5 * math.log(2 / math.pi) - _log_erfcx(u)


def _log_upper(u: Tensor) -> Tensor:
    """log Phi(u) for u >= 0."""
    return torch.log1p(-0.5 * torch.special.erfc(u * math.sqrt(0.5)))


def log_ndtr(u: Tensor) -> Tensor:
    """log Phi(u), and derivatives of it, to the rounding of the dtype at any distance."""
    low, high = u.clamp(max=0), u.clamp(min=0)
    return torch.where(u < 0, _log_erfcx(low) - math.log(2) - 0.5 * low.square(), _log_upper(high))


def log_hazard(u: Tensor) -> Tensor:
    """log(phi(u) / Phi(u)), phi the density: about log(-u) for u far below 0."""
    low, high = u.clamp(max=0), u.clamp(min=0)
    upper = -0.5 * high.square() - _LOG_2PI_HALF - _log_upper(high)
    return torch.where(u < 0, _log_hazard_below(low), upper)


class _NdtriOfLog(torch.autograd.Function):
    """y with log Phi(y) = log_p <= log 1/2; dy/dlog_p = Phi(y) / phi(y), a function of y that can be derived again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(log_p: Tensor) -> Tensor:
        lp = log_p.clamp(max=-math.log(2))
        # Below exp(-30), the leading terms of Phi's expansion; two of Newton's steps make either guess exact.
        far = -(-2 * lp - (-4 * math.pi * lp).log()).clamp(min=0).sqrt()
        y = torch.where(lp < -30, far, torch.special.ndtri(lp.clamp(min=-30).exp()))
        for _ in range(2):
            log_erfcx = _log_erfcx(y)
            excess = log_erfcx - math.log(2) - 0.5 * y.square() - lp
            y = (y - excess * (log_erfcx - 0.5 * math.log(2 / math.pi)).exp()).clamp(max=0)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * (-_log_hazard_below(y)).exp()


def ndtri_of_log(log_p: Tensor) -> Tensor:
    """Phi^-1(p) from log p, for p up to 1/2."""
    return _NdtriOfLog.apply(log_p)  # type: ignore[no-any-return, no-untyped-call]
