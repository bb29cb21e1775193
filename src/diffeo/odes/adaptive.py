"""Adaptive steps, each example's of its own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConvergenceError
from ..tracing import apart, uncompiled
from .solver import OWN, Solver
from .steps import Dynamics, Embedded, Step

SAFETY, LEAST, MOST = 0.9, 0.2, 10.0
MEMORY = 0.04
"""Power of the error before in the next step: Hairer, Norsett, Wanner, 1993, II.4, and their dopri5."""
WORTH = 0.8
"""Share of the examples still under way below which the others are left out of the computation."""

FEWEST = 2
"""Examples that go on together, one of them done if need be: torch.compile has code of its own for batches of one."""


@apart
def adaptive_steps(
    f: Dynamics, y: Tensor, start: float, end: float, solver: Solver, entries: int, name: str
) -> Tensor:
    """y(end) from y(start) = y, [batch, n]: examples are tried together, those that are done leave now and then.

    Raises ConvergenceError where the tolerance is not met, naming `name`.
    """
    tableau = OWN[solver.name]
    step = Embedded(tableau, y)
    sign = 1.0 if end >= start else -1.0
    span = abs(end - start)
    slope = f(y.new_full((len(y),), start), y)
    h = _first_step(f, y, slope, start, sign, span, solver, entries)
    pace = _Pace(h, y.new_zeros(len(y)), torch.ones_like(h), torch.zeros_like(h, dtype=torch.bool))
    rows = torch.arange(len(y), device=y.device)
    finished: list[tuple[Tensor, Tensor]] = []
    attempt = _recorded if torch.is_grad_enabled() else _attempt
    for _ in range(solver.most):
        now = start + sign * pace.done
        tried, taken, pace, going, facts = attempt(
            step, f, now, y, slope, sign, span, pace, solver, entries
        )
        after, slopes, times, states = tried
        everywhere, finite, stuck, many = facts.tolist()
        if everywhere:
            y, slope = after, slopes[-1]
        else:
            # What is rejected may not be finite, and must not reach a gradient.
            if not finite:
                after, slopes, times, states = step(f, now, y, sign * taken, slope)
            good = taken > 0
            y = torch.where(good[:, None], after, y)
            slope = torch.where(good[:, None], slopes[-1], slope)
        if f.records:
            f.record(times, states, [sign * taken * w for w in tableau.weights])
        if stuck:
            break
        if not many:
            finished.append((rows, y))
            return _joined(finished)
        if max(many, FEWEST) <= WORTH * len(y):
            if many < FEWEST:
                going[(~going).nonzero()[0]] = True
            here, gone = going.nonzero()[:, 0], (~going).nonzero()[:, 0]
            finished.append((rows[gone], y[gone]))
            f = f.take(here)
            y, slope, rows = (v[here] for v in (y, slope, rows))
            pace = _Pace(*(v[here] for v in pace))
    left = span - pace.done
    failed = (left > 0) & ((pace.h < _smallest(y, span)) | (pace.h * solver.most > span))
    raise ConvergenceError(
        f"{name}: {max(int(failed.sum()), 1)} of {len(y) + sum(len(r) for r, _ in finished)} examples do not reach the "
        f"end of time with {solver}: up to {float(left.max()):.3g} of {span:.3g} is left, after steps down to "
        f"{float(pace.h[left > 0].min()):.1e}; the field is too steep or not finite there, or the tolerance below the "
        f"rounding of {str(y.dtype).removeprefix('torch.')}"
    )


class _Pace(NamedTuple):
    """Of every example, [batch]."""

    h: Tensor
    """The step to try."""
    done: Tensor
    """Time that has passed."""
    before: Tensor
    """Error over tolerance of the last accepted step."""
    failed: Tensor
    """Whether the last step was too long."""


def _attempt(
    step: Embedded,
    f: Dynamics,
    now: Tensor,
    y: Tensor,
    slope: Tensor,
    sign: float,
    span: float,
    pace: _Pace,
    solver: Solver,
    entries: int,
) -> tuple[Step, Tensor, _Pace, Tensor, Tensor]:
    """A step of every example, the time it took, 0 where it is rejected, the pace after it, and who is under way.

    Last, what decides on the further course, [4]: whether all were accepted, all were finite, some are stuck; and how
    many are under way. No branch depends on values: torch.compile makes one graph of it.
    """
    left = span - pace.done
    h = torch.minimum(pace.h, left)
    tried = step(f, now, y, sign * h, slope)
    with torch.no_grad():
        ratio = _ratio(step.error(h, tried[1]), y, tried[0], solver, entries)
        good, finite = ratio <= 1, ratio.isfinite().all()
        taken = torch.where(good, h, torch.zeros_like(h))
        ratio = ratio.nan_to_num(nan=1e30, posinf=1e30).clamp(min=1e-4)
        power = 1 / OWN[solver.name].order - 0.75 * MEMORY
        factor = SAFETY * ratio**-power * torch.where(good, pace.before, 1.0) ** MEMORY
        # Not longer at once after a step that was too long.
        factor = torch.where(good & pace.failed, factor.clamp(max=1.0), factor)
        done = torch.where(good & (h >= left), torch.full_like(h, span), pace.done + taken)
        h = h * factor.clamp(LEAST, MOST)
        going = span - done > 0
        stuck = (going & (h < _smallest(y, span))).any()
        facts = torch.stack((good.all().long(), finite.long(), stuck.long(), going.sum()))
        after = _Pace(h, done, torch.where(good, ratio, pace.before), ~good)
    return tried, taken, after, going, facts


# Where gradients are recorded, the compiler of torch 2.13 does not give those of the steps (see `tracing.RIGHT`).
_recorded = uncompiled(_attempt)


def _smallest(y: Tensor, span: float) -> float:
    return 4 * torch.finfo(y.dtype).eps * span


@uncompiled
def _joined(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Examples in their order, from (indices, values)."""
    if len(parts) == 1:
        return parts[0][1]
    rows, values = (torch.cat(each) for each in zip(*parts, strict=True))
    return values[rows.argsort()]


def _ratio(error: Tensor, y: Tensor, after: Tensor, solver: Solver, entries: int) -> Tensor:
    """Error over tolerance of every example, [batch]."""
    scaled = error / (solver.atol + solver.rtol * torch.maximum(y.abs(), after.abs()))
    return norm(scaled, entries)


def norm(scaled: Tensor, entries: int) -> Tensor:
    """Root mean square of the first entries, or the largest of the others if that is more, [batch]."""
    found = _rms(scaled[:, :entries])
    if entries < scaled.shape[1]:
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


__all__ = ["adaptive_steps", "norm"]
