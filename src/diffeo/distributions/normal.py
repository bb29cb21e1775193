"""Gaussian bases: standard, diagonal (fixed or learned), mixtures, and conditional on the context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..nets import MLP, NetFactory, make_net
from ..parts import register, sum_event
from .base import Context, Distribution

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
class DiagonalNormal(Distribution):
    """N(loc, diag exp(2 log_scale)): log p = sum -1/2 eps^2 - log_scale - 1/2 log 2 pi.

    loc, scale: numbers or nested sequences of event_shape. learned: whether they are parameters.
    """

    def __init__(
        self, event_shape: Sequence[int], loc: Any = 0.0, scale: Any = 1.0, learned: bool = True
    ) -> None:
        super().__init__(event_shape)
        start = torch.as_tensor(loc, dtype=torch.get_default_dtype())
        width = torch.as_tensor(scale, dtype=torch.get_default_dtype())
        try:
            start, width = start.expand(self.event_shape), width.expand(self.event_shape)
        except RuntimeError as error:
            raise ConfigError(
                f"DiagonalNormal{self.event_shape} got loc of shape {tuple(start.shape)} and scale of shape "
                f"{tuple(width.shape)}"
            ) from error
        self.learned = learned
        self.loc: Tensor
        self.log_scale: Tensor
        if learned:
            self.loc = nn.Parameter(start.clone())
            self.log_scale = nn.Parameter(width.log())
        else:
            self.register_buffer("loc", start.clone())
            self.register_buffer("log_scale", width.log())

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        eps = (z - self.loc) * (-self.log_scale).exp()
        return sum_event(normal_log_prob(eps) - self.log_scale)

    def place(self, noise: Tensor, context: Context) -> Tensor:
        return self.loc + self.log_scale.exp() * noise

    def config(self) -> dict[str, Any]:
        # The numbers themselves are in the weights.
        return {"event_shape": self.event_shape, "learned": self.learned}


@register
class ConditionalNormal(Distribution):
    """N(mu(c), diag sigma(c)^2), mu and log sigma from a network of the context; N(0, I) at first.

    net: a module, or a callable `(in_shape, out_shape, context_shape) -> module`, called with an empty in_shape.
    """

    def __init__(
        self, event_shape: Sequence[int], context_shape: Any, net: nn.Module | NetFactory = MLP
    ) -> None:
        super().__init__(event_shape, context_shape)
        if self.context_shape is None:
            raise ConfigError(f"ConditionalNormal{self.event_shape} needs a context_shape")
        shape = (*self.event_shape, 2)
        owner = f"ConditionalNormal{self.event_shape}"
        self.net = make_net(net, (0,), shape, self.context_shape, owner=owner)

    def _moments(self, n: int, context: Context) -> tuple[Tensor, Tensor]:
        out: Tensor = self.net(self.like.new_empty((n, 0)), context)
        loc, log_scale = out.reshape(n, *self.event_shape, 2).to(self.like.dtype).unbind(-1)
        return loc, log_scale

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        loc, log_scale = self._moments(z.shape[0], context)
        return sum_event(normal_log_prob((z - loc) * (-log_scale).exp()) - log_scale)

    def place(self, noise: Tensor, context: Context) -> Tensor:
        loc, log_scale = self._moments(noise.shape[0], context)
        return loc + log_scale.exp() * noise

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "context_shape": self.context_shape,
            "net": self.net,
        }


@register
class GaussianMixture(Distribution):
    """sum_k w_k N(loc_k, diag sigma_k^2), all learned; the centres start at random, with deviation `spread`.

    The choice of a component has no derivative, so samples are not reparameterized.
    """

    reparameterized = False

    def __init__(
        self, event_shape: Sequence[int], components: int = 8, *, spread: float = 2.0
    ) -> None:
        super().__init__(event_shape)
        if components < 1:
            raise ConfigError(f"GaussianMixture needs at least one component, got {components}")
        self.components = components
        self.spread = spread
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(spread * torch.randn(components, *self.event_shape))
        self.log_scale = nn.Parameter(torch.zeros(components, *self.event_shape))

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        eps = (z[:, None] - self.loc) * (-self.log_scale).exp()
        each = normal_log_prob(eps) - self.log_scale
        each = each.flatten(2).sum(-1) if self.event_shape else each
        return torch.logsumexp(each + self.logits.log_softmax(0), dim=1)

    def sample(
        self,
        n: int,
        context: Context = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        # multinomial refuses to draw nothing.
        which = torch.multinomial(
            self.logits.softmax(0), max(n, 1), replacement=True, generator=generator
        )[:n]
        eps = temperature * self._randn(n, generator)
        return self.loc[which] + self.log_scale[which].exp() * eps

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "components": self.components,
            "spread": self.spread,
        }
