"""Elementwise: z_i = f(x_i; p_i), the parameters learned, or given by a network of the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..families import Family
from ..nets import NetFactory, make_net
from ..parts import register, sum_event
from .base import Bounds, Context, Transform, extremes


@register
class Elementwise(Transform):
    """z_i = f(x_i; p_i), ladj = sum log df/dx_i.

    Without `net` the parameters p are learned, zero at first (or the family has none); with `net` they come from the
    context: a module, or a callable `(in_shape, out_shape, context_shape) -> module`, called with an empty in_shape.

    Raises ConfigError for a net without a context.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        family: Family,
        net: nn.Module | NetFactory | None = None,
        *,
        context_shape: Any = None,
    ) -> None:
        super().__init__(event_shape, context_shape=context_shape)
        if not isinstance(family, Family):
            raise ConfigError(f"{self.name} takes a Family, got {family!r}")
        self.family = family
        self.properties = family.properties
        shape = (*self.event_shape, family.num_params)
        self.params: nn.Parameter | None = None
        self.net: nn.Module | None = None
        if net is not None:
            if self.context_shape is None:
                raise ConfigError(f"{self.name} has a net but no context_shape to feed it")
            self.net = make_net(net, (0,), shape, self.context_shape, owner=self.name)
            # The parameters, and with them ladj, differ from context to context.
            self.properties = replace(
                self.properties, constant_ladj=family.properties.volume_preserving
            )
        elif family.num_params:
            self.params = nn.Parameter(torch.zeros(shape))

    def _params(self, x: Tensor, context: Context) -> Tensor:
        if self.params is not None:
            return self.params
        if self.net is None:
            return x.new_empty((*self.event_shape, 0))
        params: Tensor = self.net(x.new_empty((x.shape[0], 0)), context)
        return params.reshape(x.shape[0], *self.event_shape, self.family.num_params).to(x.dtype)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        z, ladj = self._named(self.family, x, self._params(x, context))
        return z, sum_event(ladj)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        x, ladj = self._named(self.family.inverse, z, self._params(z, context))
        return x, sum_event(ladj)

    @torch.no_grad()
    def lipschitz_bounds(self) -> Bounds:
        if self.net is not None or not self.family.properties.constant_ladj:
            return super().lipschitz_bounds()
        # The log-derivative depends on the parameters alone.
        x = torch.zeros(self.event_shape) if self.params is None else self.params[..., 0]
        return extremes(self.family(x, self._params(x, None))[1])

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "family": self.family,
            "net": self.net,
            "context_shape": self.context_shape,
        }
