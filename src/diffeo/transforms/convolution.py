"""Glow's invertible 1x1 convolution: a learned matrix over the channels, where a permutation would be fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..parts import register
from .linear import LinearMap, random_rotation, wide
from .linear_lu import inverse_of_factors, triangular_factors


@register
class InvertibleConv1x1(LinearMap):
    """z = W x along the first axis (channels of an image, entries of a vector); ladj = positions * log|det W|.

    W starts as a random rotation. form `plu`: W = P L (U + diag(sign * exp(s))), L with ones on its diagonal, U zero on
    its; P and the signs stay as they start, and log|det W| = sum s. form `direct`: the entries of W are learned, and
    log|det W| costs a factorization. Kingma & Dhariwal, Glow, 2018, arXiv:1807.03039, section 3.2.

    Raises ConfigError for another form.
    """

    def __init__(self, event_shape: Sequence[int], form: Literal["plu", "direct"] = "plu") -> None:
        super().__init__(event_shape)
        if form not in ("plu", "direct"):
            raise ConfigError(f"form must be plu or direct, got {form!r}")
        self.form = form
        start, dtype = random_rotation(self.size), torch.get_default_dtype()
        if form == "direct":
            self.weight = nn.Parameter(start.to(dtype))
            return
        p, lower, upper = torch.linalg.lu(start)
        diagonal = upper.diagonal()
        self.order: Tensor
        self.sign: Tensor
        # Row i of P M is row order(i) of M.
        self.register_buffer("order", p.argmax(1))
        self.register_buffer("sign", diagonal.sign().to(dtype))
        self.lower = nn.Parameter(lower.tril(-1).to(dtype))
        self.upper = nn.Parameter(upper.triu(1).to(dtype))
        self.log_diagonal = nn.Parameter(diagonal.abs().log().to(dtype))

    def factors(self) -> tuple[Tensor, Tensor]:
        """L and U + diag(sign * exp(s)) of the form `plu`, [n, n] each."""
        return triangular_factors(self.lower, self.upper, self.sign * self.log_diagonal.exp())

    def matrix(self) -> Tensor:
        if self.form == "direct":
            return wide(self.weight)
        lower, upper = self.factors()
        return (lower @ upper).index_select(0, self.order)

    def inverse_matrix(self) -> Tensor:
        if self.form == "direct":
            return super().inverse_matrix()
        return inverse_of_factors(*self.factors()).index_select(1, self.order)

    def log_det(self) -> Tensor:
        return super().log_det() if self.form == "direct" else self.log_diagonal.sum()

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "form": self.form}
