"""The Jacobian of a map at given points, through its products with vectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_COPIES = 256


class Linearization:
    """J of f: [n, *in] -> [n, *out] at x, one matrix per row, as products from a graph that is built once.

    J u is the derivative of J^T w by w along u, so that second derivatives, which every transform has, are all that it
    needs. Rows must not depend on each other.
    """

    def __init__(self, f: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.x = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            y = f(self.x)
            # The zero terms give maps without a derivative one that is zero.
            self.y = y + 0 * self.x.sum()
            self.w = torch.zeros_like(self.y).requires_grad_()
            (g,) = torch.autograd.grad(self.y, self.x, self.w, create_graph=True)
            self.g = g + 0 * self.w.sum()

    def jvp(self, u: Tensor) -> Tensor:
        """J u, [n, *out]."""
        return torch.autograd.grad(self.g, self.w, u, retain_graph=True)[0]

    def vjp(self, w: Tensor) -> Tensor:
        """J^T w, [n, *in]."""
        return torch.autograd.grad(self.y, self.x, w, retain_graph=True)[0]


def jacobian(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """J of f: [n, *in] -> [n, *out] at one row x, [out, in]: one backward pass over as many copies of the row."""
    size = f(x[None])[0].numel()
    rows = []
    for start in range(0, size, _COPIES):
        which = torch.arange(start, min(size, start + _COPIES), device=x.device)
        copies = x.detach().expand(len(which), *x.shape).clone().requires_grad_()
        with torch.enable_grad():
            y = f(copies).flatten(1) + 0 * copies.sum()
            (some,) = torch.autograd.grad(y.gather(1, which[:, None]).sum(), copies)
        rows.append(some.flatten(1))
    return torch.cat(rows)


def lipschitz(j: Linearization, steps: int, generator: torch.Generator) -> Tensor:
    """Largest singular value of J, [n], by power iteration on J^T J; a lower bound that grows with the steps."""
    u = randn_like(j.x, generator)
    size = u.new_zeros(len(u))
    for _ in range(steps):
        w = j.jvp(_unit(u))
        size = w.flatten(1).norm(dim=1)
        u = j.vjp(_unit(w))
        size = torch.maximum(size, u.flatten(1).norm(dim=1))
    return size


def randn_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the shape, dtype and device of x, drawn on the generator's device."""
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
    return drawn.to(x.device)


def _unit(u: Tensor) -> Tensor:
    tiny = torch.finfo(u.dtype).tiny
    length = u.flatten(1).norm(dim=1).clamp(min=tiny)
    unit: Tensor = u / length.reshape(-1, *(1 for _ in u.shape[1:]))
    return unit
