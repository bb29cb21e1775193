"""What an input-convex network is made of: its activations with two derivatives, and a layer with its transpose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Jet = tuple[Tensor, Tensor, Tensor]
"""a(h), a'(h), a''(h)."""


def _softplus(h: Tensor) -> Jet:
    s = h.sigmoid()
    return -F.logsigmoid(-h), s, s * (1 - s)


def _gaussian(h: Tensor) -> Jet:
    """The integral of the distribution function of N(0, 1)."""
    density = (-0.5 * h.square()).exp() / math.sqrt(2 * math.pi)
    cumulative = torch.special.ndtr(h)
    return h * cumulative + density, cumulative, density


def _laplace(h: Tensor) -> Jet:
    # Not abs and relu: their second derivatives make torch load sympy.
    half = 0.5 * torch.where(h < 0, h, -h).exp()
    above = torch.where(h < 0, torch.zeros_like(h), h)
    return above + half, torch.where(h < 0, half, 1 - half), half


def _cauchy(h: Tensor) -> Jet:
    cumulative = torch.atan2(torch.ones_like(h), -h) / math.pi
    squares = 1 + h.square()
    return h * cumulative - squares.log() / (2 * math.pi), cumulative, 1 / (math.pi * squares)


CONVEX_ACTIVATIONS: dict[str, Callable[[Tensor], Jet]] = {
    "softplus": _softplus,
    "gaussian": _gaussian,
    "laplace": _laplace,
    "cauchy": _cauchy,
}
"""Integrals of a distribution function (the logistic one: softplus): convex, increasing, twice differentiable."""


CURVATURES: dict[str, float] = {
    "softplus": 0.25,
    "gaussian": 1 / math.sqrt(2 * math.pi),
    "laplace": 0.5,
    "cauchy": 1 / math.pi,
}
"""The largest second derivative of each."""


@dataclass(frozen=True)
class Layer:
    """h = positive z + free x + bias, rows that z does not reach last; gates scale x and z; bias holds the context."""

    free: Tensor
    positive: Tensor | None
    bias: Tensor
    gate_x: Tensor | None
    gate_z: Tensor | None

    def drive(self, x: Tensor, z: Tensor | None) -> Tensor:
        """The linear part of h; x and z [n, ...], or tangents [n, m, ...]."""
        out = _apply(self.free, _scaled(x, self.gate_x))
        if self.positive is None or z is None:
            return out
        part = _apply(self.positive, _scaled(z, self.gate_z))
        missing = len(self.free) - len(self.positive)
        return out + (
            F.pad(part, (*(0, 0) * (self.free.ndim - 2), 0, missing)) if missing else part
        )

    def to_x(self, adjoint: Tensor) -> Tensor:
        """The transposed way to x."""
        return _scaled(_transpose(self.free, adjoint), self.gate_x)

    def to_z(self, adjoint: Tensor) -> Tensor:
        """The transposed way to z."""
        assert self.positive is not None
        axis = adjoint.ndim - self.free.ndim + 1
        reached = adjoint.narrow(axis, 0, len(self.positive))
        return _scaled(_transpose(self.positive, reached), self.gate_z)


@dataclass(frozen=True)
class Linearized:
    """A convex network at x: its gradient [n, *event], and its Hessian as an operator."""

    gradient: Tensor
    layers: tuple[tuple[Layer, Tensor, Tensor], ...]
    """Layer, a'(h), and a''(h) dF/da(h), from first to last."""
    inner: tuple[int, ...]

    def _tangents(self, v: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        z = None
        for layer, slope, _ in self.layers:
            found.append(layer.drive(v, z))
            z = slope[:, None] * found[-1]
        return found

    def product(self, v: Tensor) -> Tensor:
        """H v for m vectors of each example, [n, m, D]."""
        tangents = self._tangents(v.reshape(*v.shape[:2], *self.inner))
        out: Tensor | None = None
        z: Tensor | None = None
        for (layer, slope, curvature), tangent in zip(
            reversed(self.layers), reversed(tangents), strict=True
        ):
            h = curvature[:, None] * tangent
            h = h if z is None else h + slope[:, None] * z
            part = layer.to_x(h)
            out = part if out is None else out + part
            z = None if layer.positive is None else layer.to_z(h)
        assert out is not None
        return out.reshape(v.shape)

    def dense(self) -> Tensor:
        """H, [n, D, D]."""
        n, size = len(self.gradient), math.prod(self.inner)
        basis = torch.eye(size, dtype=self.gradient.dtype, device=self.gradient.device)
        tangents = self._tangents(basis.expand(n, size, size).reshape(n, size, *self.inner))
        out = torch.zeros_like(basis)
        for (_, _, curvature), tangent in zip(self.layers, tangents, strict=True):
            j = tangent.flatten(2)
            out = out + j @ (curvature.flatten(1)[:, None] * j).mT
        return out


def _scaled(h: Tensor, gate: Tensor | None) -> Tensor:
    if gate is None:
        return h
    return h * (gate if gate.ndim == h.ndim else gate[:, None])


def _apply(weight: Tensor, h: Tensor) -> Tensor:
    """A linear map of [..., channels] or, as convolution, of [..., channels, height, width]."""
    if weight.ndim == 2:
        return F.linear(h, weight)
    out = F.conv2d(h.flatten(0, -4), weight, padding=weight.shape[-1] // 2)
    return out.reshape(*h.shape[:-3], *out.shape[1:])


def _transpose(weight: Tensor, h: Tensor) -> Tensor:
    """Its transpose."""
    if weight.ndim == 2:
        return h @ weight
    out = F.conv_transpose2d(h.flatten(0, -4), weight, padding=weight.shape[-1] // 2)
    return out.reshape(*h.shape[:-3], *out.shape[1:])


def operator_bound(weight: Tensor) -> float:
    """An upper bound on the 2-norm of the map, sqrt(largest sum of a row times that of a column)."""
    size = weight.detach().abs().flatten(2).sum(2) if weight.ndim > 2 else weight.detach().abs()
    return float((size.sum(1).max() * size.sum(0).max()).sqrt())
