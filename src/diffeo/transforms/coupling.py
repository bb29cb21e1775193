"""Coupling: z = x with the changed part mapped by a family whose parameters come from the visible part.

z_v = x_v, z_c = f(x_c; net(x_v, context)); ladj = sum log df/dx_c. Dinh et al., NICE, 2014, arXiv:1410.8516; Real NVP,
2016, arXiv:1605.08803.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DomainError, ShapeError
from ..families import Affine, Family
from ..nets import MLP, NetFactory, make_net
from ..parts import Shape, register
from ..properties import REAL
from .base import Context, Transform
from .partitions import Halves, Partition


@register
class Coupling(Transform):
    """z_v = x_v, z_c = f(x_c; net(x_v, context)), for any partition, family and network.

    event_shape: shape of x and z. family: a Family. net: a module, or a callable `(in_shape, out_shape,
    context_shape) -> module`, such as `functools.partial(MLP, hidden=(64, 64))`; its output holds the parameters,
    [batch, *changed_shape, num_params]. partition: a Partition, or a callable that makes one from the shape.

    Raises ShapeError where partition or network do not fit, DomainError for a family that leaves the visible part in
    another domain.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        family: Family | None = None,
        net: nn.Module | NetFactory = MLP,
        partition: Partition | Callable[[Shape], Partition] = Halves,
        *,
        context_shape: Any = None,
    ) -> None:
        super().__init__(event_shape, context_shape=context_shape)
        self.family = Affine() if family is None else family
        if not isinstance(self.family, Family):
            raise ConfigError(f"{self.name} takes a Family, got {family!r}")
        if self.family.num_params < 1:
            raise ConfigError(
                f"{self.name} cannot use {type(self.family).__name__}, which has no parameters: use Elementwise"
            )
        promised = self.family.properties
        if promised.domain != promised.codomain:
            raise DomainError(
                f"{self.name} cannot use {type(self.family).__name__}: it maps {promised.domain} to "
                f"{promised.codomain}, and the visible part would stay where it is"
            )
        self.partition = (
            partition if isinstance(partition, Partition) else partition(self.event_shape)
        )
        if self.partition.event_shape != self.event_shape:
            raise ShapeError(
                f"{self.name} got a {type(self.partition).__name__} for {self.partition.event_shape}"
            )
        self.net = make_net(
            net,
            self.partition.visible_shape,
            (*self.partition.changed_shape, self.family.num_params),
            self.context_shape,
            owner=self.name,
        )
        self.properties = replace(
            promised,
            # The parameters depend on x, so only a log-derivative of zero is the same everywhere.
            constant_ladj=promised.volume_preserving,
            domain=REAL if promised.domain is None else promised.domain,
            codomain=REAL if promised.codomain is None else promised.codomain,
            lipschitz=None,
            inverse_lipschitz=None,
            couples_batch=bool(getattr(self.net, "couples_batch", False)),
        )

    def _params(self, visible: Tensor, changed: Tensor, context: Context) -> Tensor:
        params: Tensor = self.net(visible, context)
        params = params.reshape(
            visible.shape[0], *self.partition.changed_shape, self.family.num_params
        )
        mask = self.partition.mask()
        if mask is not None:
            params = torch.where(mask[..., None], torch.zeros_like(params), params)
        # Networks may run in low precision under autocast; the flow's own arithmetic does not.
        return params.to(changed.dtype)

    def _map(self, x: Tensor, context: Context, inverse: bool) -> tuple[Tensor, Tensor]:
        visible, changed = self.partition.split(x)
        params = self._params(visible, changed, context)
        apply = self.family.inverse if inverse else self.family
        value, ladj = self._named(apply, changed, params)
        return self.partition.merge(x, visible, value), self._total(x, ladj)

    def _total(self, x: Tensor, ladj: Tensor) -> Tensor:
        exact_zero = self.family.properties.volume_preserving
        return x.new_zeros(x.shape[0]) if exact_zero else self.partition.sum(ladj)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._map(x, context, inverse=False)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._map(z, context, inverse=True)

    def recompute(
        self, z: Tensor, context: Context = None
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """One evaluation of the network, to which z shows what x does; leaves: the event as seen, and as changed."""
        seen = z.detach().requires_grad_()
        visible, changed = self.partition.split(seen)
        params = self._params(visible, changed, context)
        with torch.no_grad():
            value, _ = self._named(self.family.inverse, changed, params)
            x = self.partition.merge(z, visible, value)
        x = x.detach().requires_grad_()
        value, ladj = self._named(self.family, self.partition.split(x)[1], params)
        return (seen, x), self.partition.merge(seen, visible, value), self._total(x, ladj)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        self._initialize_net(x, context)
        return super().initialize(x, context)

    @torch.no_grad()
    def initialize_inverse(self, z: Tensor, context: Context = None) -> Tensor:
        self._initialize_net(z, context)
        return super().initialize_inverse(z, context)

    def _initialize_net(self, event: Tensor, context: Context) -> None:
        initialize = getattr(self.net, "initialize", None)
        if initialize is not None:
            initialize(self.partition.split(event)[0], context)

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "family": self.family,
            "net": self.net,
            "partition": self.partition,
            "context_shape": self.context_shape,
        }
