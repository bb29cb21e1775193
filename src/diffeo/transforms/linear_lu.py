"""LU-linear: an invertible matrix by its triangular factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..parts import register
from .linear import LinearMap, wide


@register
class LULinear(LinearMap):
    """z = L U x + b along the first axis (entries of a vector, channels of an image); ladj = positions * sum log U_ii.

    L is lower triangular with ones on its diagonal, U upper triangular with exp(s_i) on its; the identity at first.
    A Permutation beside it makes it general. Oliva et al., 2018, arXiv:1801.09819; Durkan et al., 2019,
    arXiv:1906.04032.
    """

    def __init__(self, event_shape: Sequence[int], bias: bool = True) -> None:
        super().__init__(event_shape)
        n = self.size
        self.lower = nn.Parameter(torch.zeros(n, n))
        self.upper = nn.Parameter(torch.zeros(n, n))
        self.log_diagonal = nn.Parameter(torch.zeros(n))
        self.bias = nn.Parameter(torch.zeros(n, 1)) if bias else None

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U, [n, n] each."""
        return triangular_factors(self.lower, self.upper, self.log_diagonal.exp())

    def matrix(self) -> Tensor:
        """L U, [n, n]."""
        lower, upper = self.factors()
        return lower @ upper

    def inverse_matrix(self) -> Tensor:
        return inverse_of_factors(*self.factors())

    def log_det(self) -> Tensor:
        return self.log_diagonal.sum()

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "bias": self.bias is not None}


def triangular_factors(lower: Tensor, upper: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor]:
    """L, with ones on its diagonal, and U, with `diagonal` on its; the other halves of the matrices are not read."""
    lower, upper, diagonal = wide(lower), wide(upper), wide(diagonal)
    eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    return lower.tril(-1) + eye, upper.triu(1) + eye * diagonal


def inverse_of_factors(lower: Tensor, upper: Tensor) -> Tensor:
    """(L U)^-1 by triangular solves, L with ones on its diagonal."""
    eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
    below = torch.linalg.solve_triangular(lower, eye, upper=False, unitriangular=True)
    inverse: Tensor = torch.linalg.solve_triangular(upper, below, upper=True)
    return inverse
