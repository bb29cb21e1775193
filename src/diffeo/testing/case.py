"""Case: one thing under test, its arguments, and how it is called; what all checks share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from .report import Failure

Args = tuple[Any, ...]
"""Tensors with a leading batch axis, dicts and tuples of them, and None."""

Outputs = tuple[Tensor, ...]


def call(module: nn.Module, args: Args) -> Outputs:
    """The outputs of a module as a tuple."""
    out = module(*args)
    return out if isinstance(out, tuple) else (out,)


def call_inverse(module: nn.Module, args: Args) -> Outputs:
    """The outputs of a module's inverse."""
    out: Outputs = module.inverse(*args)  # type: ignore[operator]
    return out


@dataclass
class Case:
    """A module in float64 and eval mode, its parameters random, with arguments for both directions.

    args, inverse_args: of `apply(module, args)` and of the inverse; the first one is differentiated. inexact: the
    relative tolerance that an iterative direction adds. low_precision: whether outputs may be bfloat16 under
    autocast. randomized: whether checks may draw parameters anew.
    """

    name: str
    module: nn.Module
    args: Args
    inverse_args: Args | None = None
    apply: Callable[[nn.Module, Args], Outputs] = call
    stochastic: bool = False
    backend: str = "aot_eager"
    seed: int = 0
    inexact: float = 0.0
    low_precision: bool = False
    randomized: bool = True

    @property
    def forward(self) -> Outputs:
        return self.apply(self.module, self.args)

    @property
    def inverse(self) -> Outputs:
        assert self.inverse_args is not None
        return call_inverse(self.module, self.inverse_args)

    def copy(self) -> nn.Module:
        return copy.deepcopy(self.module)

    @cached_property
    def jacobian(self) -> Tensor:
        """dz/dx for every example, [batch, D_z, D_x]."""
        return jacobian(lambda *a: self.apply(self.module, a)[0], self.args)

    @cached_property
    def inverse_jacobian(self) -> Tensor:
        """dx/dz for every example, [batch, D_x, D_z]."""
        assert self.inverse_args is not None
        return jacobian(lambda *a: call_inverse(self.module, a)[0], self.inverse_args)


def jacobian(f: Callable[..., Tensor], args: Args) -> Tensor:
    """df/dargs[0] for every example, by reverse-mode autograd, one output entry at a time.

    Sums over the batch, so examples must not depend on each other, which `batch_independence` checks.
    """
    x = args[0].detach().clone().requires_grad_()
    y = f(x, *args[1:]).reshape(len(x), -1)
    rows = []
    for i in range(y.shape[1]):
        (row,) = torch.autograd.grad(y[:, i].sum(), x, retain_graph=True, materialize_grads=True)
        rows.append(row.reshape(len(x), -1))
    return torch.stack(rows, dim=1)


def condition(j: Tensor) -> Tensor:
    """The 2-norm condition number of every matrix."""
    s: Tensor = torch.linalg.svdvals(j)
    return s[:, 0] / s[:, -1].clamp(min=1e-300)


def tree_map(f: Callable[[Tensor], Any], value: Any) -> Any:
    """f on every tensor of nested tuples and dicts."""
    if isinstance(value, Tensor):
        return f(value)
    if isinstance(value, tuple):
        return tuple(tree_map(f, v) for v in value)
    if isinstance(value, dict):
        return {k: tree_map(f, v) for k, v in value.items()}
    return value


def leaves(value: Any) -> list[Tensor]:
    """The tensors of nested tuples and dicts."""
    found: list[Tensor] = []
    tree_map(found.append, value)
    return found


def rows(value: Any, index: Any) -> Any:
    """Rows of every tensor."""
    return tree_map(lambda t: t[index], value)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in another dtype."""
    return tree_map(lambda t: t.to(dtype) if t.is_floating_point() else t, value)


def gap(found: Any, expected: Any) -> float:
    """Largest absolute difference over the largest magnitude (at least 1); infinite where one is not finite."""
    worst = 0.0
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        if a.shape != b.shape:
            raise Failure(f"shape {tuple(a.shape)} where {tuple(b.shape)} was expected")
        if not a.numel():
            continue
        a, b = a.detach().double(), b.detach().double()
        if not torch.equal(a.isfinite(), b.isfinite()) or not torch.equal(a.isnan(), b.isnan()):
            return float("inf")
        a, b = a.nan_to_num(), b.nan_to_num()
        worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp(min=1)))
    return worst


def expect(error: float, tolerance: float, what: str) -> float:
    """The error, or a Failure that states it with the tolerance."""
    if not error <= tolerance:
        raise Failure(f"{what}: error {error:.2e}, tolerance {tolerance:.1e}")
    return error
