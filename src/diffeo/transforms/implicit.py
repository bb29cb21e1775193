"""Implicit transforms z + g_z(z) = x + g_x(x): a residual transform, then the inverse of another one.

Lu, Chen, Li, Wang, Zhu. Implicit normalizing flows. 2021, arXiv:2103.09527.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..fixed_points import ROUNDINGS, Method, fixed_point
from ..nets.lipschitz import LipschitzNet
from ..parts import register
from ..properties import Properties
from .base import Bounds, Context, Noise, Transform
from .logdet import LogDet, Roulette
from .residual import Net, contraction, method_of


@register
class Implicit(Transform):
    """z + g_z(z) = x + g_x(x), ladj = log det(I + dg_x/dx) - log det(I + dg_z/dz), both g with a constant L below 1.

    Its slopes range over ((1 - L_x) / (1 + L_z), (1 + L_x) / (1 - L_z)), where a residual transform has (1 - L, 1 + L).
    Both directions solve a fixed point to the rounding of the dtype, by `method`: picard, anderson or broyden, as
    published; gradients are implicit.

    net_x, net_z: LipschitzNets, or callables `(in_shape, out_shape, context_shape) -> LipschitzNet`; net_z as net_x if
    not given, with weights of its own. estimator: of both log-determinants, Exact(), PowerSeries() or Roulette(), the
    default; with the last two the inverse has ladj NaN: an estimate takes noise, which forward is given. torch.compile
    breaks its graph at the search.

    Raises ConfigError for other networks, or a constant that is not below 1.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        net_x: Net,
        net_z: Net | None = None,
        *,
        estimator: LogDet | None = None,
        context_shape: Any = None,
        method: Method = "broyden",
    ) -> None:
        super().__init__(event_shape, context_shape=context_shape)
        if net_z is None and isinstance(net_x, nn.Module):
            raise ConfigError(f"{self.name} needs a network for z, beside the one given for x")
        self.net_x = contraction(net_x, self)
        self.net_z = contraction(net_x if net_z is None else net_z, self)
        self.estimator = Roulette() if estimator is None else copy.deepcopy(estimator)
        self.method = method_of(method, self)
        up, down = self.net_x.lipschitz, self.net_z.lipschitz
        size = math.prod(self.event_shape)
        both = (self.estimator.bias(constant, size) for constant in (up, down))
        biases = [b for b in dict.fromkeys(both) if b != "none"]
        known = self.net_x.norm == self.net_z.norm == 2
        self.properties = Properties(
            kind=self.estimator.kind,
            overestimates=self.estimator.overestimates,
            bias="; ".join([*biases, f"fixed points to {ROUNDINGS} roundings of the dtype"]),
            lipschitz=(1 + up) / (1 - down) if known else None,
            inverse_lipschitz=(1 + down) / (1 - up) if known else None,
            forward="iterative",
            inverse="iterative",
        )

    @property
    def stochastic(self) -> bool:
        return self.estimator.stochastic

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        center: bool = False,
        like: Tensor | None = None,
    ) -> Noise:
        """Probes and weights of terms for g_x, and for g_z; the centre has neither, as z needs none."""
        if not self.stochastic:
            return None
        like = next(self.net_x.parameters()).detach() if like is None else like
        if center:
            none = (like.new_zeros(n, 0, *self.event_shape), like.new_zeros(n, 0))
            return none, none
        first, second = (
            self.estimator.draw(n, self.event_shape, generator=generator, like=like)
            for _ in range(2)
        )
        return first, second

    def forward(
        self, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        if self.stochastic and noise is None:
            noise = self.draw(len(x), like=x)
        for_x, for_z = noise if isinstance(noise, tuple) else (None, None)
        with torch.autocast(x.device.type, enabled=False):
            y, up = self.estimator(self.net_x, x, context, for_x)
            z = self._solve(self.net_z, x + y, context)
            down = self.estimator(self.net_z, z, context, for_z)[1]
        return z, up - down

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(z.device.type, enabled=False):
            if self.stochastic:
                x = self._solve(self.net_x, z + self.net_z(z, context), context)
                return x, torch.full_like(z.flatten(1)[:, :1].sum(1), math.nan)
            y, up = self.estimator(self.net_z, z, context)
            x = self._solve(self.net_x, z + y, context)
            return x, up - self.estimator(self.net_x, x, context)[1]

    def _solve(self, net: LipschitzNet, right: Tensor, context: Context) -> Tensor:
        """v with v + net(v) = right."""
        g = net.at(context)

        def step(v: Tensor) -> Tensor:
            return right - g(v)

        constant = net.lipschitz
        return fixed_point(step, right, name=self.name, method=self.method, lipschitz=constant)

    def lipschitz_bounds(self) -> Bounds:
        if not self.net_x.norm == self.net_z.norm == 2:
            return super().lipschitz_bounds()
        up, down = self.net_x.lipschitz_bound, self.net_z.lipschitz_bound
        first = (1 + up) / (1 - down) if down < 1 else None
        return first, (1 + down) / (1 - up) if up < 1 else None

    def estimate_bias(self) -> float:
        size = math.prod(self.event_shape)
        return sum(self.estimator.unseen(g.lipschitz, size) for g in (self.net_x, self.net_z))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        y: Tensor = self.net_x(x, context)
        return self._solve(self.net_z, x + y, context)

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "net_x": self.net_x,
            "net_z": self.net_z,
            "estimator": self.estimator,
            "context_shape": self.context_shape,
            "method": self.method,
        }
