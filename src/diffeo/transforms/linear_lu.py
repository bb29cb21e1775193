"""LU-linear: an invertible matrix by its triangular factors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from ..parts import register
from ..properties import Properties
from .base import Context, Transform


@register
class LULinear(Transform):
    """z = L U x + b along the first axis (entries of a vector, channels of an image); ladj = positions * sum log U_ii.

    L is lower triangular with ones on its diagonal, U upper triangular with exp(s_i) on its; the identity at first.
    A Permutation beside it makes it general. Oliva et al., 2018, arXiv:1801.09819; Durkan et al., 2019,
    arXiv:1906.04032.
    """

    properties = Properties(constant_ladj=True)

    def __init__(self, event_shape: Sequence[int], bias: bool = True) -> None:
        super().__init__(event_shape)
        if not self.event_shape:
            raise ShapeError("LULinear needs at least one axis, got ()")
        n = self.event_shape[0]
        self.lower = nn.Parameter(torch.zeros(n, n))
        self.upper = nn.Parameter(torch.zeros(n, n))
        self.log_diagonal = nn.Parameter(torch.zeros(n))
        self.bias = nn.Parameter(torch.zeros(n, 1)) if bias else None

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U, [n, n] each."""
        eye = torch.eye(len(self.lower), dtype=self.lower.dtype, device=self.lower.device)
        return self.lower.tril(-1) + eye, self.upper.triu(1) + eye * self.log_diagonal.exp()

    def matrix(self) -> Tensor:
        """L U, [n, n]."""
        lower, upper = self.factors()
        return lower @ upper

    def _ladj(self, x: Tensor) -> Tensor:
        positions = math.prod(self.event_shape[1:])
        return (positions * self.log_diagonal.sum()).to(x.dtype).expand(x.shape[0])

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            z = self.matrix().to(x.dtype) @ _columns(x)
            if self.bias is not None:
                z = z + self.bias.to(x.dtype)
        return _events(z, x), self._ladj(x)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        lower, upper = (m.to(z.dtype) for m in self.factors())
        with torch.autocast(z.device.type, enabled=False):
            x = _columns(z)
            if self.bias is not None:
                x = x - self.bias.to(z.dtype)
            x = torch.linalg.solve_triangular(lower, x, upper=False, unitriangular=True)
            x = torch.linalg.solve_triangular(upper, x, upper=True)
        return _events(x, z), -self._ladj(z)

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "bias": self.bias is not None}


def _columns(x: Tensor) -> Tensor:
    """[batch, n, *positions] as n rows, one column for each position of each example."""
    return x.movedim(1, 0).reshape(x.shape[1], -1)


def _events(columns: Tensor, like: Tensor) -> Tensor:
    n, *positions = like.shape[1:]
    return columns.reshape(n, like.shape[0], *positions).movedim(0, 1)
