"""The adjoint: gradients of a solve by another solve, backwards in time, that stores no step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import DirectionError
from .solve import by_torchdiffeq, solve
from .solver import OWN, Solver
from .steps import Dynamics


def solve_adjoint(
    f: Dynamics,
    y: Tensor,
    start: float,
    end: float,
    solver: Solver,
    *,
    entries: int,
    name: str,
    inputs: Sequence[Tensor],
) -> Tensor:
    """`solve` whose backward stores no step: it solves for y and its gradient a backwards in time, da/dt = -a df/dy.

    f must depend on the first `entries` of y alone. inputs: what else it depends on and needs gradients, parameters
    among them. Gradients have the solver's error. Chen et al., 2018, arXiv:1806.07366; that of the inputs is no part of
    the error control, as in Kidger et al., 2021, arXiv:2009.09457. Second derivatives raise DirectionError.
    """
    wanted = tuple(p for p in inputs if p.requires_grad)
    out: Tensor = _Adjoint.apply(f, start, end, solver, entries, name, y, *wanted)  # type: ignore[no-untyped-call]
    return out


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        f: Dynamics,
        start: float,
        end: float,
        solver: Solver,
        entries: int,
        name: str,
        y: Tensor,
        *inputs: Tensor,
    ) -> Tensor:
        ctx.plan = (f, start, end, solver, entries, name)
        with torch.no_grad():
            after = solve(f, y, start, end, solver, entries=entries, name=name)
        ctx.save_for_backward(after, *inputs)
        return after

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        f, start, end, solver, entries, name = ctx.plan
        after, *inputs = ctx.saved_tensors
        (grad,) = grads
        if torch.is_grad_enabled():
            raise DirectionError(
                f"{name} has no second derivatives with adjoint=True: leave it out to differentiate twice"
            )
        beside = grad[:, entries:]
        state = torch.cat((after[:, :entries], grad[:, :entries]), 1)
        sums = [torch.zeros_like(p) for p in inputs]
        backwards = _Backwards(f, beside, entries, inputs, sums)
        # The error of a step would be that of the rounding.
        with torch.autocast(grad.device.type, enabled=False):
            if solver.name in OWN:
                state = solve(backwards, state, end, start, solver, entries=2 * entries, name=name)
            else:
                state, *sums = by_torchdiffeq(
                    backwards.with_inputs, state, end, start, solver, 2 * entries, name, *sums
                )
        return (None,) * 6 + (torch.cat((state[:, entries:], beside), 1), *sums)


class _Backwards(Dynamics):
    """f and -a df/dy of a state (y, a), and the sum over time of a df/dp, for the inputs p, in `sums`."""

    records = True

    def __init__(
        self,
        f: Dynamics,
        beside: Tensor,
        entries: int,
        inputs: Sequence[Tensor],
        sums: list[Tensor],
    ) -> None:
        self.f, self.beside, self.entries = f, beside, entries
        self.inputs, self.sums = inputs, sums

    def take(self, rows: Tensor) -> _Backwards:
        return _Backwards(
            self.f.take(rows), self.beside[rows], self.entries, self.inputs, self.sums
        )

    def _pull(
        self, t: Tensor, state: Tensor, weight: Any, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """f, and the gradients of weight * a . f with respect to y and the inputs."""
        y, a = state.detach().split(self.entries, 1)
        with torch.enable_grad():
            y = y.requires_grad_()
            value = self.f(t, torch.cat((y, torch.zeros_like(self.beside)), 1))
        found = torch.autograd.grad(
            value,
            (y, *inputs),
            weight * torch.cat((a, self.beside), 1),
            allow_unused=True,
            materialize_grads=True,
        )
        return value.detach()[:, : self.entries], list(found)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        value, (slope,) = self._pull(t, y, -1.0, ())
        return torch.cat((value, slope), 1)

    def with_inputs(self, t: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        value, (slope, *by_inputs) = self._pull(t, states[0], -1.0, self.inputs)
        return torch.cat((value, slope), 1), *by_inputs

    def record(self, times: list[Tensor], states: list[Tensor], weights: list[Tensor]) -> None:
        for t, state, w in zip(times, states, weights, strict=True):
            if self.inputs and bool(w.any()):
                _, (_, *by_inputs) = self._pull(t, state, -w[:, None], self.inputs)
                for total, g in zip(self.sums, by_inputs, strict=True):
                    total += g


__all__ = ["solve_adjoint"]
