"""LocationScale: independent entries z_i = loc_i + scale_i eps_i, eps_i from one standard law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..nets import NetFactory
from ..parts import sum_event
from .base import Context, Parametric, as_event, positive


class LocationScale(Parametric):
    """log p(z) = sum_i log f((z_i - loc_i) / scale_i; shape_i) - log scale_i, f symmetric about 0.

    A law defines `standard_log_prob` and `draw`; one that can be a marginal of a copula also `standard_score`, which is
    Phi^-1(F(eps)), and its inverse `standard_quantile`. loc, scale: numbers or nested sequences of event_shape, the
    first values of parameters. shape: first values of further parameters, by name. learned, net, context_shape: see
    `Parametric`.

    Raises ConfigError for a parameter that does not fit the event, or a scale that is not positive.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        loc: Any = 0.0,
        scale: Any = 1.0,
        learned: bool = True,
        *,
        shape: Mapping[str, Tensor] | None = None,
        net: nn.Module | NetFactory | None = None,
        context_shape: Any = None,
    ) -> None:
        event, name = tuple(event_shape), type(self).__name__
        start = {
            "loc": as_event(loc, event, f"{name}{event}"),
            "log_scale": positive(as_event(scale, event, f"{name}{event}"), f"{name}: scale"),
        }
        super().__init__(
            event_shape,
            start | dict(shape or {}),
            learned=learned,
            net=net,
            context_shape=context_shape,
        )

    def standard_log_prob(self, eps: Tensor, *shape: Tensor) -> Tensor:
        """log f(eps), elementwise."""
        raise ConfigError(f"{type(self).__name__} has no standard_log_prob")

    def draw(self, n: int, generator: torch.Generator | None, *shape: Tensor) -> Tensor:
        """n draws of eps, [n, *event_shape], with gradients to the shape parameters."""
        raise ConfigError(f"{type(self).__name__} has no draw")

    def standard_score(self, eps: Tensor, *shape: Tensor) -> Tensor:
        """The Gaussian score Phi^-1(F(eps)), elementwise."""
        raise ConfigError(f"{type(self).__name__} has no quantile function")

    def standard_quantile(self, score: Tensor, *shape: Tensor) -> Tensor:
        """F^-1(Phi(score)), elementwise."""
        raise ConfigError(f"{type(self).__name__} has no quantile function")

    @property
    def has_quantile(self) -> bool:
        """Whether the law can be a marginal of a copula."""
        return type(self).standard_quantile is not LocationScale.standard_quantile

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        loc, log_scale, *shape = self.values(z.shape[0], context)
        eps = (z - loc) * (-log_scale).exp()
        return sum_event(self.standard_log_prob(eps, *shape) - log_scale)

    def sample(
        self,
        n: int,
        context: Context = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        loc, log_scale, *shape = self.values(n, context)
        return loc + temperature * log_scale.exp() * self.draw(n, generator, *shape)

    def score(self, z: Tensor, context: Context = None) -> Tensor:
        """eps_i = Phi^-1(F_i(z_i)): a standard Gaussian, if z_i follows its law."""
        loc, log_scale, *shape = self.values(z.shape[0], context)
        return self.standard_score((z - loc) * (-log_scale).exp(), *shape)

    def quantile(self, score: Tensor, context: Context = None) -> Tensor:
        """z_i = F_i^-1(Phi(score_i)), the inverse of `score`."""
        loc, log_scale, *shape = self.values(score.shape[0], context)
        return loc + log_scale.exp() * self.standard_quantile(score, *shape)
