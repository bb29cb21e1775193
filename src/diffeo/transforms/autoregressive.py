"""Autoregressive: z_i = f(x_i; net(x_<i, context)) for any family and any masked network.

Papamakarios, Pavlakou, Murray. Masked autoregressive flow. 2017, arXiv:1705.07057.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..families import Affine, Family
from ..nets import MADE, AutoregressiveConditioner, make_net
from ..nets.filling import recorded
from ..nets.masked import Masked
from ..nets.ordering import Order
from ..parts import ContextShape, Shape, register, sum_event
from .autoregressive_inverse import blocked, fixed_point, incremental, sequential
from .base import Context, Transform

Solver = Literal["auto", "incremental", "fixed_point", "sequential"]
SOLVERS = {"incremental": incremental, "fixed_point": fixed_point, "sequential": sequential}


@register
class Autoregressive(Transform):
    """z_i = f(x_i; net(x_<i, context)), ladj = sum log df/dx_i; forward in one pass, inverse entry by entry.

    event_shape: of any number of axes; entries are those of the flat event. family: a Family with parameters, by
    default Affine. net: an AutoregressiveConditioner, or a callable `(in_shape, out_shape, context_shape) -> net` such
    as `functools.partial(MADE, hidden=(64, 64))`; its output holds the parameters, [batch, *event, num_params]. order:
    passed on to that callable. The order, or causal graph, is the network's. solver: of the inverse, see
    `autoregressive_inverse`; auto: `incremental` for networks that allow it, but `fixed_point` for more than 64 stages
    or other networks. Where gradients are recorded, `fixed_point` gives way to one that has them; under
    torch.compile, to `blocked`.

    Raises ConfigError for a network that does not say in which order its outputs depend on its inputs.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        family: Family | None = None,
        net: nn.Module | Callable[..., nn.Module] = MADE,
        *,
        order: Order | None = None,
        context_shape: Any = None,
        solver: Solver = "auto",
    ) -> None:
        super().__init__(event_shape, context_shape=context_shape)
        if solver not in ("auto", *SOLVERS):
            raise ConfigError(f"solver must be auto, {', '.join(SOLVERS)}, got {solver!r}")
        self.solver = solver
        self.family = Affine() if family is None else family
        if not isinstance(self.family, Family):
            raise ConfigError(f"{self.name} takes a Family, got {family!r}")
        if self.family.num_params < 1:
            raise ConfigError(
                f"{self.name} cannot use {type(self.family).__name__}, which has no parameters: use Elementwise"
            )
        self.net = make_net(
            _with_order(net, order, self.name),
            self.event_shape,
            (*self.event_shape, self.family.num_params),
            self.context_shape,
            owner=self.name,
        )
        if not isinstance(self.net, AutoregressiveConditioner):
            raise ConfigError(
                f"{self.name} needs a network that declares its order, an AutoregressiveConditioner such as MADE, got "
                f"{type(self.net).__name__}"
            )
        entries = sorted(i for stage in self.net.stages for i in stage)
        if entries != list(range(math.prod(self.event_shape))):
            raise ConfigError(
                f"{self.name} needs stages that hold every entry once, got {self.net.stages}"
            )
        promised = self.family.properties
        self.properties = replace(
            promised,
            # The parameters depend on x, so only a log-derivative of zero is the same everywhere.
            constant_ladj=promised.volume_preserving,
            lipschitz=None,
            inverse_lipschitz=None,
            inverse="sequential" if promised.inverse == "analytic" else promised.inverse,
            couples_batch=promised.couples_batch or self.net.couples_batch,
        )

    def _params(self, x: Tensor, context: Context) -> Tensor:
        # Networks may run in low precision under autocast; the flow's own arithmetic does not.
        params: Tensor = self.net(x, context).to(x.dtype)
        return params

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        z, ladj = self._named(self.family, x, self._params(x, context))
        return z, sum_event(ladj)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        assert isinstance(self.net, AutoregressiveConditioner)
        x, ladj = self._named(
            self._solver(z.device.type), self.family.inverse, self.net, z, context
        )
        return x, sum_event(ladj)

    def _solver(self, device: str) -> Callable[..., tuple[Tensor, Tensor]]:
        assert isinstance(self.net, AutoregressiveConditioner)
        stepwise = self.net.incremental
        exact = incremental if stepwise else sequential
        if self.solver in ("incremental", "sequential"):
            return SOLVERS[self.solver]
        # A family without a closed inverse would be solved anew in every sweep.
        sweeps = self.family.properties.inverse == "analytic"
        if torch.compiler.is_compiling() and not torch.is_grad_enabled():
            return blocked if sweeps and isinstance(self.net, Masked) else exact
        if recorded(device):
            return exact  # sweeps end when nothing moves: a branch on values, without gradients
        # Measured at 32 and 128 stages.
        few = len(self.net.stages) <= 64 or not sweeps
        return incremental if self.solver == "auto" and stepwise and few else fixed_point

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        self._initialize_net(x, context)
        return super().initialize(x, context)

    def _initialize_net(self, x: Tensor, context: Context) -> None:
        initialize = getattr(self.net, "initialize", None)
        if initialize is not None:
            initialize(x, context)

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "family": self.family,
            "net": self.net,
            "context_shape": self.context_shape,
            "solver": self.solver,
        }


def _with_order(
    net: nn.Module | Callable[..., nn.Module], order: Order | None, owner: str
) -> nn.Module | Callable[[Shape, Shape, ContextShape], nn.Module]:
    if order is None:
        return net
    if isinstance(net, nn.Module):
        raise ConfigError(f"{owner} got an order and a network that has its own: give one of them")
    return lambda inputs, outputs, context: net(inputs, outputs, context, order=order)
