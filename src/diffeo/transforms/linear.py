"""Linear mixing of entries or channels: what such maps share, permutations and rotations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import register
from ..properties import KEEPS, REAL, Properties
from .base import Bounds, Context, Transform

ORTHOGONAL = replace(KEEPS, domain=REAL, codomain=REAL)
"""A rotation or reflection of the whole space."""


class LinearMap(Transform):
    """z = W x + b along the first axis (entries of a vector, channels of an image); ladj = positions * log|det W|.

    A subclass gives `matrix()`, and its inverse and log|det| where it knows them better than a factorization does; it
    may set `bias`, [n] or [n, 1]. All arithmetic is in float32 at least, also under autocast.
    """

    properties = Properties(constant_ladj=True)

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape)
        if not self.event_shape:
            raise ShapeError(f"{type(self).__name__} needs at least one axis, got ()")
        self.size = self.event_shape[0]
        self.bias: nn.Parameter | None = None

    def matrix(self) -> Tensor:
        """W, [n, n]."""
        raise NotImplementedError

    def inverse_matrix(self) -> Tensor:
        """W^-1, [n, n]."""
        inverse: Tensor = torch.linalg.inv(self.matrix())
        return inverse

    def log_det(self) -> Tensor:
        """log|det W|, a number."""
        log_det: Tensor = torch.linalg.slogdet(self.matrix())[1]
        return log_det

    def _ladj(self, x: Tensor, sign: int) -> Tensor:
        if self.properties.volume_preserving:
            return x.new_zeros(x.shape[0])
        positions = math.prod(self.event_shape[1:])
        return (sign * positions * self.log_det()).to(x.dtype).expand(x.shape[0])

    @torch.no_grad()
    def lipschitz_bounds(self) -> Bounds:
        if self.properties.lipschitz is not None:
            return super().lipschitz_bounds()
        # At every position the matrix is the same.
        s = torch.linalg.svdvals(self.matrix().double())
        return float(s[0]), 1 / float(s[-1])

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            return mix(x, self.matrix(), self.bias), self._ladj(x, 1)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(z.device.type, enabled=False):
            w = self.inverse_matrix()
            b = None if self.bias is None else -w @ self.bias.flatten().to(w.dtype)
            return mix(z, w, b), self._ladj(z, -1)


def mix(x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """W x + b along the first axis of every event, x [batch, n, *positions]."""
    # The product over the last axis of a view: the fastest way that was measured, and images come out channels-last.
    b = None if bias is None else bias.flatten().to(x.dtype)
    return F.linear(x.movedim(1, -1), matrix.to(x.dtype), b).movedim(-1, 1)


def wide(t: Tensor) -> Tensor:
    """t in float32 at least: factorizations have no kernels for lower precision."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def random_rotation(n: int) -> Tensor:
    """An orthogonal matrix [n, n], uniformly distributed, float64."""
    q, r = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))
    # The sign of R's diagonal makes the distribution of Q uniform.
    rotation: Tensor = q * r.diagonal().sgn()
    # In rows, as it is when loaded: the layout decides the last bit of a product.
    return rotation.contiguous()


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
class Rotation(LinearMap):
    """z = Q x along the first axis (entries of a vector, channels of an image), Q orthogonal, ladj = 0.

    Q is drawn once, uniformly, and saved; with `learned` it turns by exp(A - A^T), exactly orthogonal, A at first zero.
    """

    properties = ORTHOGONAL

    def __init__(self, event_shape: Sequence[int], learned: bool = False) -> None:
        super().__init__(event_shape)
        self.start: Tensor
        self.register_buffer("start", random_rotation(self.size).to(torch.get_default_dtype()))
        self.skew = nn.Parameter(torch.zeros(self.size, self.size)) if learned else None

    def matrix(self) -> Tensor:
        """Q, [n, n]."""
        # matrix_exp has no kernel for low precision on every device, and a wrong one on some.
        q = wide(self.start)
        # One Newton step: a matrix that was rounded to a lower precision is orthogonal in this one.
        q = 1.5 * q - 0.5 * q @ (q.mT @ q)
        if self.skew is None:
            return q
        skew = wide(self.skew)
        turn: Tensor = torch.linalg.matrix_exp(skew - skew.mT)
        return q @ turn

    def inverse_matrix(self) -> Tensor:
        return self.matrix().mT

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "learned": self.skew is not None}
