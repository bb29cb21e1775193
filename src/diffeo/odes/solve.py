"""y(end) from y(start): which solver does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, ConvergenceError
from ..tracing import apart
from .adaptive import adaptive_steps, norm
from .solver import OWN, Solver
from .steps import Dynamics, equal_steps


def solve(
    f: Dynamics,
    y: Tensor,
    start: float,
    end: float,
    solver: Solver,
    *,
    entries: int,
    name: str = "the ODE",
) -> Tensor:
    """y(end) from y(start) = y, [batch, n]. entries: of the n, the first so many have an error in common.

    Raises ConvergenceError where the tolerance is not met, naming `name`.
    """
    if not len(y):
        # Nothing, with the graph of what it would take.
        return y + 0 * f(y.new_full((), start), y)
    if solver.steps is not None:
        return equal_steps(f, y, start, end, OWN[solver.name], solver.steps)
    if solver.name in OWN:
        return adaptive_steps(f, y, start, end, solver, entries, name)
    return by_torchdiffeq(f, y, start, end, solver, entries, name)[0]


@apart
def by_torchdiffeq(
    f: Any,
    y: Tensor,
    start: float,
    end: float,
    solver: Solver,
    entries: int,
    name: str,
    *beside: Tensor,
) -> tuple[Tensor, ...]:
    """y(end), and what is integrated `beside` it, if anything, with no part in the error control.

    f: y or (y, *beside) to their derivatives, whichever is solved for.
    """
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ConfigError(
            f"the solver {solver.name} is one of torchdiffeq, which is not installed: pip install torchdiffeq, or use "
            f"one of {', '.join(OWN)}"
        ) from error

    if not len(y):
        return y, *beside

    def largest(ratio: Any) -> Tensor:
        return norm(ratio[0] if beside else ratio, entries).max()

    times = torch.tensor([start, end], dtype=y.dtype, device=y.device)
    try:
        out = odeint(
            f,
            (y, *beside) if beside else y,
            times,
            rtol=solver.rtol,
            atol=solver.atol,
            method=solver.name,
            # Steps end at the end: dopri8's values between its steps are off by far more than the tolerance.
            options={"norm": largest, "max_num_steps": solver.most, "step_t": times[1:]},
        )
    except AssertionError as error:
        raise ConvergenceError(
            f"{name}: {len(y)} examples do not reach the end of time with {solver}: {error}"
        ) from error
    return tuple(part[-1] for part in out) if beside else (out[-1],)


__all__ = ["by_torchdiffeq", "solve"]
