"""Accelerations of x <- g(x): a proposal from what one example has seen, for a batch of examples.

Anderson, Iterative procedures for nonlinear integral equations, JACM 12, 1965; Walker & Ni, SIAM J. Numer. Anal. 49,
2011. Broyden, Math. Comp. 19, 1965.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Acceleration(Protocol):
    def __init__(self, x: Tensor, value: Tensor) -> None: ...

    def step(self, x: Tensor, value: Tensor) -> Tensor:
        """Where to evaluate g next, given x and g(x), [batch, entries]."""

    def learn(self, x: Tensor, value: Tensor, tried: Tensor, found: Tensor) -> None:
        """g(tried) = found, tried from x with g(x) = value."""


class Anderson:
    """The combination of the last evaluations whose residual is least, as if g were affine."""

    MEMORY = 5

    def __init__(self, x: Tensor, value: Tensor) -> None:
        self.seen = [(x, value)]

    def step(self, x: Tensor, value: Tensor) -> Tensor:
        residual = value - x
        change = torch.stack([(b - a) - residual for a, b in self.seen], 1)
        # Columns of norm 1: a small one counts as much as a large one; that of x itself is zero and drops out.
        size = change.norm(dim=2, keepdim=True)
        unit = change / torch.where(size > 0, size, torch.ones_like(size))
        gram, right = unit @ unit.mT, -(unit @ residual[:, :, None])
        ridge = 10 * torch.finfo(x.dtype).eps * torch.eye(len(self.seen)).to(x)
        # solve_ex: a singular or non-finite system of one example must not stop the others.
        weight = torch.linalg.solve_ex(gram + ridge, right)[0]
        weight = weight / torch.where(size > 0, size, torch.ones_like(size))
        moves = torch.stack([b - value for _, b in self.seen], 1)
        out: Tensor = value + (weight * moves).sum(1)
        return out

    def learn(self, x: Tensor, value: Tensor, tried: Tensor, found: Tensor) -> None:
        self.seen = [*self.seen[-self.MEMORY + 1 :], (tried, found)]


class Broyden:
    """x + H (g(x) - x) with H y = s for the last change s of x and -y of the residual: I + sum u v^T, at first I."""

    MEMORY = 16

    def __init__(self, x: Tensor, value: Tensor) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def _apply(self, r: Tensor, transposed: bool = False) -> Tensor:
        out = r
        for u, v in self.pairs:
            a, b = (v, u) if transposed else (u, v)
            out = out + a * (b * r).sum(1, keepdim=True)
        return out

    def step(self, x: Tensor, value: Tensor) -> Tensor:
        return x + self._apply(value - x)

    def learn(self, x: Tensor, value: Tensor, tried: Tensor, found: Tensor) -> None:
        if len(self.pairs) == self.MEMORY:
            self.pairs = []
        s, y = tried - x, (value - x) - (found - tried)
        predicted, v = self._apply(y), self._apply(s, transposed=True)
        below = (s * predicted).sum(1, keepdim=True)
        # Where the update is undefined, also at s = 0 of an example that is done, H stays.
        safe = below.abs() > 1e-6 * s.norm(dim=1, keepdim=True) * predicted.norm(
            dim=1, keepdim=True
        )
        u = torch.where(safe, (s - predicted) / torch.where(safe, below, 1.0), 0.0)
        self.pairs.append((u, torch.where(safe, v, 0.0)))


ACCELERATIONS: dict[str, type[Acceleration] | None] = {
    "picard": None,
    "anderson": Anderson,
    "broyden": Broyden,
}
