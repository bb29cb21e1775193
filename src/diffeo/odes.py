"""Solvers of dy/dt = f(t, y) for batches of independent examples: fixed steps, adaptive ones, and their adjoint.

Adaptive steps are of every example's own: its error alone decides them, so an example gives the same numbers whatever
is solved beside it, and meets the tolerance by itself. Other solvers are those of torchdiffeq, whose steps all examples
share; there an error is the largest over the examples, so that each of them meets the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError, ConvergenceError, DirectionError

Dynamics = Callable[[Tensor, Tensor], Tensor]
"""f(t, y): t a number or [batch], y [batch, n]."""
Record = Callable[[list[Tensor], list[Tensor], list[Tensor]], None]
"""What an accepted step shows: times, states and weights of its stages; the step is the sum of weight * f(t, y)."""


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: nodes, rows of the matrix, weights, and the weights of its error, if it has any.

    The last row of a method with an error is that of the weights: its last stage is the first of the next step.
    """

    order: int
    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    error: tuple[float, ...] = ()


EULER = Tableau(1, (0.0,), ((),), (1.0,))
MIDPOINT = Tableau(2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0))
RK4 = Tableau(
    4,
    (0.0, 0.5, 0.5, 1.0),
    ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
)
_WEIGHTS = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
# Dormand and Prince. A family of embedded Runge-Kutta formulae. 1980.
DOPRI5 = Tableau(
    5,
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _WEIGHTS,
    ),
    (*_WEIGHTS, 0.0),
    (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)
OWN = {"euler": EULER, "midpoint": MIDPOINT, "rk4": RK4, "dopri5": DOPRI5}
ADAPTIVE = ("dopri8", "bosh3", "fehlberg2", "adaptive_heun")
"""Of torchdiffeq."""


@dataclass(frozen=True)
class Solver:
    """`steps` equal steps of euler, midpoint, rk4 or dopri5; or dopri5, or a solver of torchdiffeq, to tolerance.

    An adaptive step is accepted where the root mean square of error / (atol + rtol |y|) over an example's entries is at
    most 1, and so is that of what is integrated beside them. most: steps before ConvergenceError.

    Raises ConfigError for a solver or a number that does not fit.
    """

    name: str = "dopri5"
    steps: int | None = None
    rtol: float = 1e-5
    atol: float = 1e-5
    most: int = 10_000

    def __post_init__(self) -> None:
        if self.name not in (*OWN, *ADAPTIVE):
            raise ConfigError(
                f"solver must be one of {', '.join((*OWN, *ADAPTIVE))}, got {self.name!r}"
            )
        if self.steps is None and self.name in OWN and not OWN[self.name].error:
            raise ConfigError(f"{self.name} takes equal steps: say how many, as in steps=20")
        if self.steps is not None and (self.steps < 1 or self.name not in OWN):
            raise ConfigError(
                f"steps must be at least 1, and are for {', '.join(OWN)}, got {self.steps} for {self.name}"
            )
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise ConfigError(
                f"rtol and atol must be zero or more, one of them more, got {self.rtol} and {self.atol}"
            )

    @property
    def adaptive(self) -> bool:
        return self.steps is None

    def __str__(self) -> str:
        if self.steps is not None:
            return f"{self.name} in {self.steps} steps"
        return f"{self.name} to rtol {self.rtol:g}, atol {self.atol:g}"


def solve(
    f: Dynamics,
    y: Tensor,
    start: float,
    end: float,
    solver: Solver,
    *,
    entries: int,
    name: str = "the ODE",
    record: Record | None = None,
) -> Tensor:
    """y(end) from y(start) = y, [batch, n]. entries: of the n, the first so many have an error in common.

    Raises ConvergenceError where the tolerance is not met, naming `name`.
    """
    if solver.steps is not None:
        return _fixed(f, y, start, end, OWN[solver.name], solver.steps, record)
    if solver.name in OWN:
        return _adaptive(f, y, start, end, solver, entries, name, record)
    return _by_torchdiffeq(f, y, start, end, solver, entries, name)


def _stages(
    f: Dynamics, t: Tensor, y: Tensor, h: Any, tableau: Tableau, first: Tensor | None = None
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """The state after a step, and f, times and states of the stages. h: a number or [batch, 1]."""
    step = h if isinstance(h, float) else h[:, 0]
    slopes: list[Tensor] = []
    times: list[Tensor] = []
    states: list[Tensor] = []
    for i, (node, row) in enumerate(zip(tableau.nodes, tableau.rows, strict=True)):
        state = _plus(y, h, row, slopes) if i else y
        time = t + node * step
        slopes.append(f(time, state) if i or first is None else first)
        times.append(time)
        states.append(state)
    after = states[-1] if tableau.error else _plus(y, h, tableau.weights, slopes)
    return after, slopes, times, states


def _plus(y: Tensor, h: Any, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """y + h sum of weight * slope."""
    if isinstance(h, float):
        for w, k in zip(weights, slopes, strict=True):
            y = y if w == 0 else y.add(k, alpha=h * w)
        return y
    return torch.addcmul(y, h, _mix(weights, slopes))


def _mix(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    total: Tensor | None = None
    for w, k in zip(weights, slopes, strict=True):
        if w:
            total = k * w if total is None else total.add(k, alpha=w)
    assert total is not None
    return total


def _fixed(
    f: Dynamics,
    y: Tensor,
    start: float,
    end: float,
    tableau: Tableau,
    steps: int,
    record: Record | None,
) -> Tensor:
    h = (end - start) / steps
    first = None
    for i in range(steps):
        t = y.new_full((), start + i * h)
        y, slopes, times, states = _stages(f, t, y, h, tableau, first)
        if tableau.error:
            first = slopes[-1]
        if record is not None:
            many = [y.new_full((len(y),), float(time)) for time in times]
            record(many, states, [y.new_full((len(y),), h * w) for w in tableau.weights])
    return y


def _adaptive(
    f: Dynamics,
    y: Tensor,
    start: float,
    end: float,
    solver: Solver,
    entries: int,
    name: str,
    record: Record | None,
) -> Tensor:
    """Every example with steps of its own, all of them tried together until the last one is done."""
    if not len(y):
        return y
    tableau = OWN[solver.name]
    sign = 1.0 if end >= start else -1.0
    span = abs(end - start)
    done = y.new_zeros(len(y))  # time that has passed
    slope = f(y.new_full((len(y),), start), y)
    h = _first_step(f, y, slope, start, sign, span, solver, entries)
    smallest = 4 * torch.finfo(y.dtype).eps * span
    left = span - done
    for _ in range(solver.most):
        h = torch.minimum(h, left)
        after, slopes, times, states = _stages(
            f, start + sign * done, y, (sign * h)[:, None], tableau, slope
        )
        with torch.no_grad():
            error = h[:, None] * _mix(tableau.error, slopes)
            ratio = _ratio(error, y, after, solver, entries)
            good = ratio <= 1
            everywhere = bool(good.all())
            taken = h if everywhere else torch.where(good, h, torch.zeros_like(h))
        if everywhere:
            y, slope = after, slopes[-1]
        else:
            # What is rejected may not be finite, and must not reach a gradient.
            if not bool(ratio.isfinite().all()):
                after, slopes, times, states = _stages(
                    f, start + sign * done, y, (sign * taken)[:, None], tableau, slope
                )
            y = torch.where(good[:, None], after, y)
            slope = torch.where(good[:, None], slopes[-1], slope)
        if record is not None:
            record(times, states, [sign * taken * w for w in tableau.weights])
        with torch.no_grad():
            factor = 0.9 * ratio.nan_to_num(nan=1e30, posinf=1e30).clamp(min=1e-10) ** (
                -1 / tableau.order
            )
            done = torch.where(good & (h >= left), torch.full_like(h, span), done + taken)
            h = h * factor.clamp(0.2, 10.0)
            left = span - done
            going = left > 0
            if not bool(going.any()):
                return y
            if bool((going & (h < smallest)).any()):
                break
    stuck = going & ((h < smallest) | (h * solver.most > span))
    worst = float(left.max())
    raise ConvergenceError(
        f"{name}: {max(int(stuck.sum()), 1)} of {len(y)} examples do not reach the end of time with {solver}: up to "
        f"{worst:.3g} of {span:.3g} is left, after steps down to {float(h[going].min()):.1e}; the field is too steep "
        f"or not finite there, or the tolerance below the rounding of {str(y.dtype).removeprefix('torch.')}"
    )


# Its length depends on values. What torch.compiler.disable sets; that decorator would make the import load dynamo.
_adaptive._torchdynamo_disable = True  # type: ignore[attr-defined]


def _ratio(error: Tensor, y: Tensor, after: Tensor, solver: Solver, entries: int) -> Tensor:
    """Error over tolerance of every example, [batch]."""
    scaled = error / (solver.atol + solver.rtol * torch.maximum(y.abs(), after.abs()))
    found = _rms(scaled[:, :entries])
    if entries < y.shape[1]:
        found = torch.maximum(found, scaled[:, entries:].abs().amax(1))
    return found


def _rms(y: Tensor) -> Tensor:
    return y.square().mean(1).sqrt() if y.shape[1] else y.new_zeros(len(y))


@torch.no_grad()
def _first_step(
    f: Dynamics,
    y: Tensor,
    slope: Tensor,
    start: float,
    sign: float,
    span: float,
    solver: Solver,
    entries: int,
) -> Tensor:
    """A step whose error an explicit Euler step guesses. Hairer, Norsett, Wanner, 1993, II.4."""
    scale = solver.atol + solver.rtol * y.abs()
    size, speed = (_rms((v / scale)[:, :entries]) for v in (y, slope))
    h = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed).clamp(max=span)
    moved = f(start + sign * h, torch.addcmul(y, (sign * h)[:, None], slope))
    bend = _rms(((moved - slope) / scale)[:, :entries]) / h
    largest = torch.maximum(speed, bend)
    order = OWN[solver.name].order
    guess = torch.where(
        largest <= 1e-15, (1e-3 * h).clamp(min=1e-6), (0.01 / largest) ** (1 / order)
    )
    h = torch.minimum(100 * h, guess)
    return torch.where(h.isfinite() & (h > 0), h, torch.full_like(h, 0.01 * span)).clamp(max=span)


def _by_torchdiffeq(
    f: Dynamics, y: Tensor, start: float, end: float, solver: Solver, entries: int, name: str
) -> Tensor:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ConfigError(
            f"the solver {solver.name} is one of torchdiffeq, which is not installed: pip install torchdiffeq, or use "
            f"one of {', '.join(OWN)}"
        ) from error

    if not len(y):
        return y

    def norm(ratio: Tensor) -> Tensor:
        found = _rms(ratio[:, :entries])
        if entries < ratio.shape[1]:
            found = torch.maximum(found, ratio[:, entries:].abs().amax(1))
        return found.max()

    times = torch.tensor([start, end], dtype=y.dtype, device=y.device)
    try:
        out: Tensor = odeint(
            f,
            y,
            times,
            rtol=solver.rtol,
            atol=solver.atol,
            method=solver.name,
            # Steps end at the end: dopri8's values between its steps are off by far more than the tolerance.
            options={"norm": norm, "max_num_steps": solver.most, "step_t": times[1:]},
        )[-1]
    except AssertionError as error:
        raise ConvergenceError(
            f"{name}: {len(y)} examples do not reach the end of time with {solver}: {error}"
        ) from error
    return out


_by_torchdiffeq._torchdynamo_disable = True  # type: ignore[attr-defined]


# -- the adjoint ----------------------------------------------------------------------------------------------------


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
        sums: list[Tensor | None] = [None] * len(inputs)

        def pull(t: Tensor, state: Tensor, wrt: Sequence[Tensor], weight: Any = 1.0) -> Any:
            """f, and the gradients of weight * a . f, for a state (x, a)."""
            x, a = state.detach().split(entries, 1)
            with torch.enable_grad():
                x = x.requires_grad_()
                value = f(t, torch.cat((x, x.new_zeros(len(x), beside.shape[1])), 1))
            found = torch.autograd.grad(
                value, wrt or (x,), weight * torch.cat((a, beside), 1), allow_unused=True
            )
            return value.detach(), found

        def backwards(t: Tensor, state: Tensor) -> Tensor:
            value, (by_x,) = pull(t, state, ())
            by_x = torch.zeros_like(value[:, :entries]) if by_x is None else by_x
            return torch.cat((value[:, :entries], -by_x), 1)

        def record(times: list[Tensor], states: list[Tensor], weights: list[Tensor]) -> None:
            for t, state, w in zip(times, states, weights, strict=True):
                if not inputs or not bool(w.any()):
                    continue
                for i, g in enumerate(pull(t, state, inputs, -w[:, None])[1]):
                    if g is not None:
                        last = sums[i]
                        sums[i] = g if last is None else last + g

        state = torch.cat((after[:, :entries], grad[:, :entries]), 1)
        state = solve(
            backwards, state, end, start, solver, entries=2 * entries, name=name, record=record
        )
        by_y = torch.cat((state[:, entries:], beside), 1)
        return (None,) * 6 + (by_y, *sums)
