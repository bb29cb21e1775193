"""Input-convex networks: scalar functions F(x) with gradient and Hessian in closed form.

    h_k = exp(s_k) (P_k a(h_{k-1}) + V_k x + b_k),  P_k >= 0,  a convex and increasing;  F = w . a(h_L) + v . x,  w >= 0

Convex increasing functions of convex functions are convex. The gradient is one backward sweep, and the Hessian
sum_k J_k^T diag(c_k) J_k, with J_k = dh_k/dx and c_k = a''(h_k) dF/da(h_k) >= 0: each term positive semi-definite, in
floating point, too. Both are plain arithmetic: they work wherever a network does, and have gradients themselves.
Amos, Xu, Kolter, Input convex neural networks, 2017, arXiv:1609.07152; Huang et al., 2021, arXiv:2012.05942.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, InputError, ShapeError
from ..moments import moments
from ..parts import register
from .base import Conditioner, Context
from .convex_layers import (
    CONVEX_ACTIVATIONS,
    CURVATURES,
    Jet,
    Layer,
    Linearized,
    operator_bound,
)
from .mlp import MLP


class InputConvex(Conditioner):
    """A function F(x, context), [batch, 1], convex in x; a subclass says what the linear maps are."""

    kernel: tuple[int, ...] = ()
    decayed = ("free",)

    def __init__(
        self,
        in_shape: Sequence[int],
        context_shape: Any = None,
        *,
        hidden: Sequence[int],
        activation: str,
        augmented: bool,
        symmetric: bool,
        actnorm: bool,
        context_width: int,
        kernel: tuple[int, ...] = (),
    ) -> None:
        super().__init__(in_shape, (1,), context_shape)
        if activation not in CONVEX_ACTIVATIONS:
            raise ConfigError(
                f"activation must be one of {', '.join(CONVEX_ACTIVATIONS)}, got {activation!r}"
            )
        self.hidden = tuple(hidden)
        least = 2 if augmented else 1
        if not self.hidden or min(self.hidden) < least:
            raise ConfigError(
                f"{type(self).__name__} needs hidden layers of {least} units or more, got {self.hidden}"
            )
        self.activation, self.augmented = activation, augmented
        self.symmetric, self.actnorm, self.context_width = symmetric, actnorm, context_width
        self.kernel = kernel
        channels = self.inner[0]
        free, raw, fan = [], [], math.prod(kernel)
        for k, n in enumerate(self.hidden):
            bound = 1 / math.sqrt(max(channels * fan, 1))
            free.append(torch.empty(n, channels, *kernel).uniform_(-bound, bound))
            if k:
                # Half of an augmented layer is fresh functions of x alone.
                fed = n - n // 2 if augmented else n
                raw.append(torch.randn(fed, self.hidden[k - 1], *kernel))
        self.free = nn.ParameterList(free)
        self.raw = nn.ParameterList(raw)
        self.bias = nn.ParameterList(torch.zeros(n) for n in self.hidden)
        self.log_scale = nn.ParameterList(torch.zeros(n) for n in self.hidden[1:] if actnorm)
        self.last = nn.Parameter(torch.zeros(self.hidden[-1]))
        self.shift = nn.Parameter(torch.zeros(channels))
        self.context_net: MLP | None = None
        if self.context_shape is not None:
            sizes = self._context_sizes()
            self.context_net = MLP(
                (0,), (sum(sizes),), self.context_shape, hidden=(context_width,), activation="silu"
            )
        if actnorm:
            self.initialized: Tensor
            self.register_buffer("initialized", torch.tensor(False))

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape in which the linear maps take x."""
        return self.in_shape if self.kernel else (math.prod(self.in_shape),)

    def _context_sizes(self) -> list[int]:
        """What a context sets: v, and for each layer a bias, a gate of x and, after the first, one of z."""
        channels = self.inner[0]
        widths = zip(self.hidden, (0, *self.hidden[:-1]), strict=True)
        return [channels, *(size for n, before in widths for size in (n, channels, before))]

    def _layers(self, context: Context) -> tuple[list[Layer], Tensor]:
        """The layers with their constraints, and v, [n or 1, channels, ...]."""
        given: list[Tensor] | None = None
        shift = self._at(self.shift)[None]
        if self.context_net is not None:
            out = self.context_net(self._nothing(context), context).to(shift.dtype)
            given = [self._at(t) for t in out.split(self._context_sizes(), 1)]
            shift = shift + given[0]
        layers: list[Layer] = []
        for k in range(len(self.hidden)):
            free, bias = self.free[k], self.bias[k]
            positive: Tensor | None = None
            if k:
                fan_in = self.raw[k - 1][0].numel()
                positive = F.softplus(self.raw[k - 1]) / fan_in
                if self.actnorm:
                    scale = self.log_scale[k - 1].exp()
                    positive = positive * self._rows(scale[: len(positive)])
                    free, bias = free * self._rows(scale), bias * scale
            bias = self._at(bias)[None]
            gate_x: Tensor | None = None
            gate_z: Tensor | None = None
            if given is not None:
                more, gate_x, gate_z = given[1 + 3 * k : 4 + 3 * k]
                bias, gate_x = bias + more, 1 + gate_x
                # softplus(0.5413...) = 1: closed by no context at first.
                gate_z = F.softplus(gate_z + math.log(math.e - 1)) if k else None
            layers.append(Layer(free, positive, bias, gate_x, gate_z))
        return layers, shift

    def _nothing(self, context: Context) -> Tensor:
        """An input without entries: the network of the context sees that alone."""
        first = next(iter(context.values())) if isinstance(context, dict) else context
        if first is None:
            raise ConfigError(
                f"this network was built for a context of shape {self.context_shape}, but got none"
            )
        return first.new_zeros((len(first), 0))

    def _at(self, t: Tensor) -> Tensor:
        """[..., channels] beside [..., channels, height, width]."""
        return t.reshape(*t.shape, *(1 for _ in self.kernel))

    def _rows(self, t: Tensor) -> Tensor:
        return t.reshape(-1, 1, *(1 for _ in self.kernel))

    def _jet(self, k: int, h: Tensor) -> Jet:
        value, slope, curvature = CONVEX_ACTIVATIONS[self.activation](h)
        if k == 0 and self.symmetric:
            # Even functions: the first layer may decrease.
            return value - 0.5 * h, slope - 0.5, curvature
        return value, slope, curvature

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        """F(x), [batch, 1]."""
        layers, shift = self._layers(context)
        x = x.reshape(len(x), *self.inner)
        z: Tensor | None = None
        for k, layer in enumerate(layers):
            z = self._jet(k, layer.drive(x, z) + layer.bias)[0]
        assert z is not None
        return ((self._last() * z).flatten(1).sum(1) + (shift * x).flatten(1).sum(1))[:, None]

    def _last(self) -> Tensor:
        return self._at(F.softplus(self.last) / len(self.last))

    def linearize(self, x: Tensor, context: Context = None) -> Linearized:
        """Gradient and Hessian at x by x, with graphs of their own."""
        layers, shift = self._layers(context)
        shape, x = x.shape, x.reshape(len(x), *self.inner)
        z: Tensor | None = None
        jets: list[Jet] = []
        for k, layer in enumerate(layers):
            jets.append(self._jet(k, layer.drive(x, z) + layer.bias))
            z = jets[-1][0]
        assert z is not None
        adjoint = self._last().expand_as(z)
        gradient = shift.expand_as(x)
        found: list[tuple[Layer, Tensor, Tensor]] = []
        for layer, (_, slope, curvature) in zip(reversed(layers), reversed(jets), strict=True):
            found.append((layer, slope, curvature * adjoint))
            adjoint = slope * adjoint
            gradient = gradient + layer.to_x(adjoint)
            if layer.positive is not None:
                adjoint = layer.to_z(adjoint)
        return Linearized(gradient.reshape(shape), tuple(reversed(found)), self.inner)

    @torch.no_grad()
    def curvature_bound(self) -> float | None:
        """A number that no eigenvalue of the Hessian exceeds, at any x; None with a context, which may scale it.

        sum_k |J_k|^2 max a'' max dF/da(h_k), with |J_k| <= |P_k| |J_k-1| + |V_k| and 0 <= a' <= 1.
        """
        if self.context_shape is not None:
            return None
        layers, _ = self._layers(None)
        jacobians: list[float] = []
        for k, layer in enumerate(layers):
            norm = operator_bound(layer.free)
            if k and layer.positive is not None:
                steepest = 0.5 if k == 1 and self.symmetric else 1.0
                norm += operator_bound(layer.positive) * steepest * jacobians[-1]
            jacobians.append(norm)
        adjoint = self._last().flatten()
        total = 0.0
        for layer, norm in zip(reversed(layers), reversed(jacobians), strict=True):
            total += norm**2 * float(adjoint.max()) * CURVATURES[self.activation]
            if layer.positive is not None:
                sums = layer.positive.flatten(2).sum(2) if self.kernel else layer.positive
                adjoint = adjoint[: len(sums)] @ sums
        return total

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> None:
        """Set b and s of the layers after the first so that h has mean 0 and variance 1 per unit, once, from a batch.

        Raises InputError for an empty or non-finite batch.
        """
        if not self.actnorm or bool(self.initialized):
            return
        if not len(x) or not bool(x.isfinite().all()):
            raise InputError(
                f"{type(self).__name__} cannot be initialized from {len(x)} rows, or from NaN"
            )
        flat = x.reshape(len(x), *self.inner)
        z: Tensor | None = None
        for k in range(len(self.hidden)):
            if k:
                self.bias[k].zero_()
                self.log_scale[k - 1].zero_()
                h = self._layers(context)[0][k].drive(flat, z)
                mean, var = moments(h, (h.shape[1], *(1 for _ in self.kernel)))
                var = torch.where(var > 0, var, torch.ones_like(var))
                self.bias[k].copy_(-mean.flatten())
                self.log_scale[k - 1].copy_(-0.5 * var.flatten().log())
            layer = self._layers(context)[0][k]
            z = self._jet(k, layer.drive(flat, z) + layer.bias)[0]
        self.initialized.fill_(True)

    def config(self) -> dict[str, Any]:
        return {
            "in_shape": self.in_shape,
            "context_shape": self.context_shape,
            "hidden": self.hidden,
            "activation": self.activation,
            "augmented": self.augmented,
            "symmetric": self.symmetric,
            "actnorm": self.actnorm,
            "context_width": self.context_width,
        }


@register
class ICNN(InputConvex):
    """Input-convex network of a flat event, partially so with a context: convex in x for every context.

    hidden: widths. activation: softplus, gaussian, laplace or cauchy, see `CONVEX_ACTIVATIONS`. augmented: half of each
    layer after the first is fresh functions of x. symmetric: a(h) - h/2 in the first layer. actnorm: scales s_k, set by
    `initialize`; 1 otherwise. A context, seen by an MLP with one layer of context_width units, moves b_k and v, and
    scales the inputs x and a(h) of each layer, the latter by positive numbers.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        context_shape: Any = None,
        *,
        hidden: Sequence[int] = (64, 64, 64),
        activation: str = "softplus",
        augmented: bool = True,
        symmetric: bool = True,
        actnorm: bool = True,
        context_width: int = 32,
    ) -> None:
        super().__init__(
            in_shape,
            context_shape,
            hidden=hidden,
            activation=activation,
            augmented=augmented,
            symmetric=symmetric,
            actnorm=actnorm,
            context_width=context_width,
        )


@register
class ConvICNN(InputConvex):
    """The same of images (channels, height, width), by convolutions with zero padding; F sums over the pixels.

    size: of the kernels, odd. Otherwise as `ICNN`, whose scales, gates and biases are here those of a channel.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        context_shape: Any = None,
        *,
        hidden: Sequence[int] = (64, 64, 64),
        size: int = 3,
        activation: str = "softplus",
        augmented: bool = True,
        symmetric: bool = True,
        actnorm: bool = True,
        context_width: int = 32,
    ) -> None:
        if len(in_shape) != 3:
            raise ShapeError(
                f"ConvICNN takes images (channels, height, width), got {tuple(in_shape)}"
            )
        if size < 1 or size % 2 == 0:
            raise ConfigError(f"ConvICNN needs an odd size of its kernels, got {size}")
        super().__init__(
            in_shape,
            context_shape,
            hidden=hidden,
            activation=activation,
            augmented=augmented,
            symmetric=symmetric,
            actnorm=actnorm,
            context_width=context_width,
            kernel=(size, size),
        )
        self.size = size

    def config(self) -> dict[str, Any]:
        return super().config() | {"size": self.size}
