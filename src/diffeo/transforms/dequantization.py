"""Variational dequantization: the noise that is added to integers is itself a flow, conditioned on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, DomainError, ShapeError
from ..nets import Conditioner, make_net
from ..noise import draw
from ..parts import as_context_shape, register, sum_event
from ..properties import REAL
from .base import Context, Noise, Transform
from .surjective import Dequantize


@register
class VariationalDequantize(Dequantize):
    """v = x + u, u = Phi(g(eps; h(x))), eps ~ N(0, I): log P(x) >= E log p(v) - log q(u | x), ladj = -log q(u | x).

    transform: g, a bijection of the noise, conditioned on h(x). features: h, a network of the integers, rescaled to
    (-1, 1), and of the context; without it g sees the context alone. q is a density on (0, 1)^D, exact as that of any
    flow, trained with the model, and uniform where g is the identity. encode takes u = 1/2; the inverse is floor.
    Ho et al., Flow++, 2019, arXiv:1902.00275, with Phi, the distribution function of N(0, 1), for the sigmoid.

    Raises ConfigError, ShapeError or DomainError for a transform or features that do not fit.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        levels: int = 256,
        *,
        transform: Transform,
        features: Conditioner | None = None,
        context_shape: Any = None,
    ) -> None:
        super().__init__(event_shape, levels)
        self.context_shape = as_context_shape(context_shape)
        seen = self.context_shape
        if features is not None:
            make_net(features, self.event_shape, features.out_shape, seen, owner=self.name)
            seen = features.out_shape
        self._check(transform, seen)
        self.transform = transform
        self.features = features
        inner = transform.properties
        self.properties = replace(
            self.properties,
            constant_ladj=False,
            bias=inner.bias if inner.forward == "iterative" else "none",
            forward=inner.forward,
            couples_batch=inner.couples_batch or bool(getattr(features, "couples_batch", False)),
        )

    def _check(self, transform: Transform, seen: Any) -> None:
        if not isinstance(transform, Transform):
            raise ConfigError(f"{self.name} takes a Transform of its noise, got {transform!r}")
        if (transform.event_shape, transform.latent_shape) != (self.event_shape, self.event_shape):
            raise ShapeError(
                f"{self.name}: its transform goes from {transform.event_shape} to {transform.latent_shape}"
            )
        if transform.context_shape not in (None, seen):
            raise ShapeError(
                f"{self.name}: its transform takes the context {transform.context_shape}, but is given {seen}"
            )
        if transform.stochastic or transform.properties.kind != "exact":
            raise ConfigError(f"{self.name}: the likelihood of its {transform.name} is not exact")
        if transform.properties.domain not in (None, REAL):
            raise DomainError(
                f"{self.name}: its noise is real, but {transform.name} takes {transform.properties.domain}"
            )

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        center: bool = False,
        like: Tensor | None = None,
    ) -> Noise:
        if center:
            # u in the place of eps: the median of q can be so near the bin's edge that encode would leave the bin.
            return (super().draw(n, center=True, like=like),)
        like = self.like if like is None else like
        return draw((n, *self.event_shape), like, generator)

    def _seen(self, x: Tensor, context: Context) -> Context:
        if self.features is None:
            return context
        features: Tensor = self.features((2 * x + 1) / self.quanta - 1, context)
        return features.reshape(x.shape[0], *self.features.out_shape)

    def forward(
        self, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        if isinstance(noise, tuple):
            return super().forward(x, context, noise[0])
        x, inside, eps = self._number(x, noise)
        y, ladj = self.transform(eps, self._seen(x, context))
        share = 1 - self._slack(eps.dtype)
        # log N(y) - log N(eps): the constants cancel.
        ratio = 0.5 * (eps - y) * (eps + y) + math.log(share)
        ratio = torch.where(inside, ratio, torch.full_like(ratio, -math.inf))
        return x + share * torch.special.ndtr(y), ladj + sum_event(ratio)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        number, _, eps = self._number(x, None)
        initialize = getattr(self.features, "initialize", None)
        if initialize is not None:
            initialize((2 * number + 1) / self.quanta - 1, context)
        self.transform.initialize(eps, self._seen(number, context))
        z: Tensor = self(x, context, eps)[0]
        return z

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "transform": self.transform,
            "features": self.features,
            "context_shape": self.context_shape,
        }
