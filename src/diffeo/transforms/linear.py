"""Linear mixing of entries or channels: permutations and rotations, ladj = 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import register
from ..properties import KEEPS, REAL
from .base import Context, Transform


@register
class Permutation(Transform):
    """z_i = x_order(i) along the first axis (entries of a vector, channels of an image), ladj = 0.

    order: `random` (drawn once, saved as an integer buffer), `reverse`, `swap` (second half first), `odd_first` (odd
    entries, then even ones: halves are then what alternating entries were), or the indices.
    Raises ConfigError if the indices are no permutation.
    """

    properties = KEEPS

    def __init__(
        self, event_shape: Sequence[int], order: str | Sequence[int] | None = "random"
    ) -> None:
        super().__init__(event_shape)
        if not self.event_shape:
            raise ShapeError("Permutation needs at least one axis, got ()")
        n = self.event_shape[0]
        if order == "random" or order is None:
            index = torch.randperm(n)
        elif order == "reverse":
            index = torch.arange(n - 1, -1, -1)
        elif order == "swap":
            index = torch.arange(n).roll(-(n // 2))
        elif order == "odd_first":
            index = torch.cat((torch.arange(1, n, 2), torch.arange(0, n, 2)))
        elif isinstance(order, str) or sorted(order) != list(range(n)):
            raise ConfigError(
                f"order must be random, reverse, swap, odd_first or the {n} indices, got {order!r}"
            )
        else:
            index = torch.tensor(list(order))
        self.order: Tensor
        self.back: Tensor
        self.register_buffer("order", index)
        self.register_buffer("back", index.argsort())

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return x.index_select(1, self.order), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return z.index_select(1, self.back), z.new_zeros(z.shape[0])


@register
class Rotation(Transform):
    """z = Q x along the first axis (entries of a vector, channels of an image), Q orthogonal, ladj = 0.

    Q is drawn once, uniformly, and saved; with `learned` it turns by exp(A - A^T), exactly orthogonal, A at first zero.
    """

    properties = replace(KEEPS, domain=REAL, codomain=REAL)

    def __init__(self, event_shape: Sequence[int], learned: bool = False) -> None:
        super().__init__(event_shape)
        if not self.event_shape:
            raise ShapeError("Rotation needs at least one axis, got ()")
        n = self.event_shape[0]
        q, r = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))
        self.start: Tensor
        # The sign of R's diagonal makes the distribution of Q uniform.
        self.register_buffer("start", (q * r.diagonal().sgn()).to(torch.get_default_dtype()))
        self.skew = nn.Parameter(torch.zeros(n, n)) if learned else None

    def matrix(self) -> Tensor:
        """Q, [n, n]."""
        # matrix_exp has no kernel for low precision on every device, and a wrong one on some.
        wide = torch.promote_types(self.start.dtype, torch.float32)
        q = self.start.to(wide)
        # One Newton step: a matrix that was rounded to a lower precision is orthogonal in this one.
        q = 1.5 * q - 0.5 * q @ (q.mT @ q)
        if self.skew is None:
            return q
        skew = self.skew.to(wide)
        turn: Tensor = torch.linalg.matrix_exp(skew - skew.mT)
        return q @ turn

    def _apply_matrix(self, x: Tensor, transpose: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            q = self.matrix().to(x.dtype)
            y = torch.matmul(q.mT if transpose else q, x.flatten(2) if x.ndim > 2 else x[..., None])
        return y.reshape(x.shape), x.new_zeros(x.shape[0])

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._apply_matrix(x, transpose=False)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._apply_matrix(z, transpose=True)

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "learned": self.skew is not None}
