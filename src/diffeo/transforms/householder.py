"""Householder: a learned orthogonal matrix as a product of reflections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..parts import register
from .linear import ORTHOGONAL, LinearMap, wide


@register
class Householder(LinearMap):
    """z = H_1 H_2 ... H_K x along the first axis (entries of a vector, channels of an image), ladj = 0.

    H_k = I - 2 v_k v_k^T / |v_k|^2, v_k learned and random at first; K = `reflections`, n if None, which reaches every
    orthogonal matrix whose determinant is (-1)^n. Tomczak & Welling, 2016, arXiv:1611.09630.

    Raises ConfigError for fewer than one reflection.
    """

    properties = ORTHOGONAL

    def __init__(self, event_shape: Sequence[int], reflections: int | None = None) -> None:
        super().__init__(event_shape)
        k = self.size if reflections is None else reflections
        if k < 1:
            raise ConfigError(f"{self.name} needs at least one reflection, got {reflections}")
        self.directions = nn.Parameter(torch.randn(k, self.size))

    def matrix(self) -> Tensor:
        """H_1 ... H_K, [n, n]."""
        v = nn.functional.normalize(wide(self.directions), dim=1)
        # The product in one piece, I - V^T S^-1 V with S = I/2 + the upper part of V V^T: Joffrain et al., Accumulating
        # Householder transformations, revisited, ACM TOMS 32 (2006).
        eye = torch.eye(len(v), dtype=v.dtype, device=v.device)
        s = 0.5 * eye + (v @ v.mT).triu(1)
        solved: Tensor = torch.linalg.solve_triangular(s, v, upper=True)
        return torch.eye(self.size, dtype=v.dtype, device=v.device) - v.mT @ solved

    def inverse_matrix(self) -> Tensor:
        return self.matrix().mT

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "reflections": len(self.directions)}
