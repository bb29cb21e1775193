"""Residual transforms z = x + g(x), g a contraction: i-ResNet, residual flows, i-DenseNet.

Behrmann et al., Invertible residual networks, 2019, arXiv:1811.00995; Chen et al., Residual flows for invertible
generative modeling, 2019, arXiv:1906.02735.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..fixed_points import Method, Solution, fixed_point, solve
from ..nets import make_net
from ..nets.lipschitz import LipschitzNet
from ..parts import register
from ..properties import Properties
from .base import Bounds, Context, Noise, Transform
from .logdet import LogDet, Roulette

Net = LipschitzNet | Callable[..., nn.Module]


def method_of(method: Method, owner: Transform) -> Method:
    """Raises ConfigError for one that is not known."""
    if method not in get_args(Method):
        known = ", ".join(get_args(Method))
        raise ConfigError(f"{owner.name}: method must be one of {known}, got {method!r}")
    return method


def contraction(net: Net, owner: Transform) -> LipschitzNet:
    """The network of a transform, from one or from a callable. Raises ConfigError unless its constant is below 1."""
    made = make_net(
        net, owner.event_shape, owner.event_shape, owner.context_shape, owner=owner.name
    )
    if not isinstance(made, LipschitzNet):
        given = type(net if isinstance(net, nn.Module) else made).__name__
        raise ConfigError(
            f"{owner.name} needs a network with a Lipschitz constant, such as LipschitzMLP, got {given}"
        )
    if not made.lipschitz < 1:
        raise ConfigError(
            f"{owner.name} needs a Lipschitz constant below 1, and that of its network is {made.lipschitz:g}"
        )
    return made


@register
class Residual(Transform):
    """z = x + g(x) with |g(a) - g(b)| <= L |a - b|, L < 1; ladj = log det(I + dg/dx), found by `estimator`.

    net: g, a LipschitzNet or a callable `(in_shape, out_shape, context_shape) -> LipschitzNet`. estimator: Exact(),
    PowerSeries() or Roulette(), the default. method: of the inverse, the fixed point x = z - g(x): picard, anderson or
    broyden, to the rounding of the dtype; the error is at most L / (1 - L) times the last step. Its gradient is
    implicit, its ladj exact with Exact() and NaN otherwise: an estimate takes noise, which forward is given at x.

    Raises ConfigError for another network, or one whose constant is not below 1.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        net: Net,
        *,
        estimator: LogDet | None = None,
        context_shape: Any = None,
        method: Method = "picard",
    ) -> None:
        super().__init__(event_shape, context_shape=context_shape)
        self.net = made = contraction(net, self)
        # Of its own, as every other part of it.
        self.estimator = Roulette() if estimator is None else copy.deepcopy(estimator)
        self.method = method_of(method, self)
        ours, two = made.lipschitz, made.norm == 2
        self.properties = Properties(
            kind=self.estimator.kind,
            overestimates=self.estimator.overestimates,
            bias=self.estimator.bias(ours, math.prod(self.event_shape)),
            lipschitz=1 + ours if two else None,
            inverse_lipschitz=1 / (1 - ours) if two else None,
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
        """Probes and the weights of the terms of each example; the centre has neither, as z needs none."""
        if not self.stochastic:
            return None
        like = next(self.net.parameters()).detach() if like is None else like
        if center:
            return like.new_zeros(n, 0, *self.event_shape), like.new_zeros(n, 0)
        return self.estimator.draw(n, self.event_shape, generator=generator, like=like)

    def forward(
        self, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        if self.stochastic and noise is None:
            noise = self.draw(len(x), like=x)
        # g is the flow's own arithmetic, and the inverse needs its every digit: full precision under autocast.
        with torch.autocast(x.device.type, enabled=False):
            y, ladj = self.estimator(self.net, x, context, noise)
        return x + y, ladj

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        constant = self.net.lipschitz
        with torch.autocast(z.device.type, enabled=False):
            step = self._step(z, context)
            x = fixed_point(step, z, name=self.name, method=self.method, lipschitz=constant)
            if self.stochastic:
                return x, torch.full_like(z.flatten(1)[:, :1].sum(1), math.nan)
            return x, -self.estimator(self.net, x, context)[1]

    def preimage(self, z: Tensor, context: Context = None) -> Solution:
        """x with residual and steps of every example; `.error_bound(L)` bounds the error. No gradients."""
        with torch.autocast(z.device.type, enabled=False):
            return solve(self._step(z, context), z, name=self.name, method=self.method)

    def _step(self, z: Tensor, context: Context) -> Callable[[Tensor], Tensor]:
        g = self.net.at(context)
        return lambda x: z - g(x)

    def lipschitz_bounds(self) -> Bounds:
        if self.net.norm != 2:
            return super().lipschitz_bounds()
        bound = self.net.lipschitz_bound
        return 1 + bound, 1 / (1 - bound) if bound < 1 else None

    def estimate_bias(self) -> float:
        return self.estimator.unseen(self.net.lipschitz, math.prod(self.event_shape))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            y: Tensor = self.net(x, context)
        return x + y

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "net": self.net,
            "estimator": self.estimator,
            "context_shape": self.context_shape,
            "method": self.method,
        }
