"""Rotations of the circle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import ConfigError
from ...parts import register
from ...properties import Domain, Properties
from ..base import Family
from .base import wrap


@register
class CircularShift(Family):
    """y = x + t modulo 2 bound, on the circle [-bound, bound]; log dy/dx = 0. params: t.

    Beside circular splines, which keep -bound where it is. Rezende et al., Normalizing flows on tori and spheres, 2020,
    arXiv:2002.02428.
    """

    num_params = 1

    def __init__(self, bound: float = 3.0) -> None:
        super().__init__()
        if bound <= 0:
            raise ConfigError(f"CircularShift needs a positive bound, got {bound}")
        self.bound = float(bound)
        circle = Domain(-self.bound, self.bound, periodic=True)
        self.properties = Properties(
            domain=circle, codomain=circle, constant_ladj=True, volume_preserving=True
        )

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return wrap(x + params[..., 0], self.bound), torch.zeros_like(x)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return wrap(y - params[..., 0], self.bound), torch.zeros_like(y)

    def config(self) -> dict[str, Any]:
        return {"bound": self.bound}

    def extra_repr(self) -> str:
        return f"[-{self.bound:g}, {self.bound:g}]"
