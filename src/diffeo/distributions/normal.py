"""Gaussian bases: standard, diagonal (fixed, learned or conditional on the context), and mixtures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..nets import MLP, NetFactory
from ..parts import register, sum_event
from .base import Context, Distribution, Parametric
from .location_scale import LocationScale

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def normal_log_prob(eps: Tensor) -> Tensor:
    """Elementwise log-density of a standard Gaussian."""
    return -0.5 * eps.square() - _HALF_LOG_2PI


@register
class StandardNormal(Distribution):
    """N(0, I): log p = -1/2 |z|^2 - D/2 log 2 pi."""

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        return sum_event(normal_log_prob(z))


@register
class DiagonalNormal(LocationScale):
    """N(loc, diag exp(2 log_scale)): log p = sum -1/2 eps^2 - log_scale - 1/2 log 2 pi.

    loc, scale: numbers or nested sequences of event_shape. learned, net, context_shape: see `Parametric`.
    """

    def standard_log_prob(self, eps: Tensor, *shape: Tensor) -> Tensor:
        return normal_log_prob(eps)

    def draw(self, n: int, generator: torch.Generator | None, *shape: Tensor) -> Tensor:
        return self._randn(n, generator)

    def standard_score(self, eps: Tensor, *shape: Tensor) -> Tensor:
        return eps

    def standard_quantile(self, score: Tensor, *shape: Tensor) -> Tensor:
        return score


@register
class ConditionalNormal(DiagonalNormal):
    """N(mu(c), diag sigma(c)^2), mu and log sigma from a network of the context; N(0, I) at first.

    net: see `Parametric`; its output is mu, then log sigma.
    """

    def __init__(
        self, event_shape: Sequence[int], context_shape: Any, net: nn.Module | NetFactory = MLP
    ) -> None:
        super().__init__(event_shape, net=net, context_shape=context_shape)

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "context_shape": self.context_shape,
            "net": self.net,
        }


@register
class GaussianMixture(Parametric):
    """sum_k w_k N(loc_k, diag sigma_k^2), all learned; the centres start at random, with deviation `spread`.

    The choice of a component has no derivative, so samples are not reparameterized. net, context_shape: see
    `Parametric`; the network's output is added to the K logits, the K centres and their log-deviations.
    """

    reparameterized = False

    def __init__(
        self,
        event_shape: Sequence[int],
        components: int = 8,
        *,
        spread: float = 2.0,
        net: nn.Module | NetFactory | None = None,
        context_shape: Any = None,
    ) -> None:
        if components < 1:
            raise ConfigError(f"GaussianMixture needs at least one component, got {components}")
        shape = (components, *event_shape)
        start = {
            "logits": torch.zeros(components),
            "loc": spread * torch.randn(shape),
            "log_scale": torch.zeros(shape),
        }
        super().__init__(event_shape, start, net=net, context_shape=context_shape)
        self.components = components
        self.spread = spread

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        logits, loc, log_scale = self.values(z.shape[0], context)
        eps = (z[:, None] - loc) * (-log_scale).exp()
        each = normal_log_prob(eps) - log_scale
        each = each.flatten(2).sum(-1) if self.event_shape else each
        return torch.logsumexp(each + logits.log_softmax(1), dim=1)

    def sample(
        self,
        n: int,
        context: Context = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        eps = temperature * self._randn(n, generator)
        if not n:
            return eps
        logits, loc, log_scale = self.values(n, context)
        if self.net is None:
            which = torch.multinomial(
                logits[0].softmax(0), n, replacement=True, generator=generator
            )
            return loc[0, which] + log_scale[0, which].exp() * eps
        which = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
        row = torch.arange(n, device=which.device)
        return loc[row, which] + log_scale[row, which].exp() * eps

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "components": self.components,
            "spread": self.spread,
            "net": self.net,
            "context_shape": self.context_shape,
        }
