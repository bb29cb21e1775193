"""Additive and affine families, with the published parametrizations of the scale."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..parts import register
from ..properties import Properties
from .base import Family

Scale = Literal["exp", "tanh", "sigmoid", "clamp"]


@register
class Additive(Family):
    """y = x + t, log dy/dx = 0. params: t. Dinh et al., NICE, 2014, arXiv:1410.8516."""

    num_params = 1
    properties = Properties(
        constant_ladj=True, volume_preserving=True, lipschitz=1.0, inverse_lipschitz=1.0
    )

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return x + params[..., 0], torch.zeros_like(x)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return y - params[..., 0], torch.zeros_like(y)


@register
class Scaling(Family):
    """y = exp(s) x, log dy/dx = s. params: s. The diagonal layer of NICE, 2014, arXiv:1410.8516."""

    num_params = 1
    properties = Properties(constant_ladj=True)

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        s = params[..., 0]
        return x * s.exp(), s.expand_as(x)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        s = params[..., 0]
        return y * (-s).exp(), (-s).expand_as(y)


@register
class Affine(Family):
    """y = exp(s) x + t, log dy/dx = s. params: t and raw, with s from raw by `scale`:

    - `exp`: s = raw;
    - `tanh`: s = c tanh(raw), c one learned number, at first `initial` (Real NVP, 2016, arXiv:1605.08803);
    - `sigmoid`: exp(s) = sigmoid(raw + 2) (Glow, 2018, arXiv:1807.03039);
    - `clamp`: s = bound tanh(raw / bound), smooth, |s| < bound.

    All but `sigmoid` are the identity at zero params.
    """

    num_params = 2
    properties = Properties(constant_ladj=True)

    def __init__(self, scale: Scale = "clamp", *, bound: float = 3.0, initial: float = 1.0) -> None:
        super().__init__()
        if scale not in ("exp", "tanh", "sigmoid", "clamp"):
            raise ConfigError(f"scale must be exp, tanh, sigmoid or clamp, got {scale!r}")
        if bound <= 0:
            raise ConfigError(f"bound must be positive, got {bound}")
        self.scale = scale
        self.bound = bound
        self.initial = initial
        if scale == "clamp":
            steepest = math.exp(bound)
            self.properties = replace(
                self.properties, lipschitz=steepest, inverse_lipschitz=steepest
            )
        # A product with a number takes twice as long as one with a tensor, which counts when x is a single entry.
        self.limit: Tensor
        self.register_buffer("limit", torch.tensor(float(bound)), persistent=False)
        if scale == "tanh":
            self.magnitude = nn.Parameter(torch.tensor(float(initial)))

    def log_scale(self, raw: Tensor) -> Tensor:
        """s, the elementwise log-derivative, from the raw output of a conditioner."""
        if self.scale == "exp":
            return raw
        if self.scale == "tanh":
            return self.magnitude * _tanh(raw)
        if self.scale == "sigmoid":
            return F.logsigmoid(raw + 2)
        return self.limit * _tanh(raw / self.limit)

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        t, raw = _columns(params)
        s = self.log_scale(raw)
        return torch.addcmul(t, x, s.exp()), s if s.shape == x.shape else s.expand_as(x)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        t, raw = _columns(params)
        s = -self.log_scale(raw)
        return (y - t) * s.exp(), s if s.shape == y.shape else s.expand_as(y)

    def config(self) -> dict[str, Any]:
        return {"scale": self.scale, "bound": self.bound, "initial": self.initial}

    def extra_repr(self) -> str:
        return f"scale={self.scale!r}" + (
            f", bound={self.bound:g}" if self.scale == "clamp" else ""
        )


def _columns(params: Tensor) -> tuple[Tensor, ...]:
    """The entries of the last axis. Networks store it next to the batch, and there the gradients join at once."""
    if not torch.is_grad_enabled():
        return params.unbind(-1)
    axis = min(1, params.ndim - 1)
    return params.movedim(-1, axis).unbind(axis)


def _tanh(x: Tensor) -> Tensor:
    """tanh x; inductor's own is slow on a CPU, and 2 sigmoid(2x) - 1 is as near to it as a log-scale needs."""
    return 2 * (2 * x).sigmoid() - 1 if torch.compiler.is_compiling() else x.tanh()
