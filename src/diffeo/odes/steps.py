"""One step of an explicit Runge-Kutta method, and equal steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .solver import Tableau


class Dynamics:
    """f(t, y) of a batch of independent examples: t a number or [batch], y [batch, n]."""

    records = False
    """Whether `record` is to be called."""

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def take(self, rows: Tensor) -> Dynamics:
        """The same of some examples of the batch, by their indices."""
        raise NotImplementedError

    def record(self, times: list[Tensor], states: list[Tensor], weights: list[Tensor]) -> None:
        """An accepted step, which is the sum of weight * f(t, y) over its stages; weights [batch]."""


def stages(
    f: Dynamics, t: Tensor, y: Tensor, h: float, tableau: Tableau, first: Tensor | None
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """The state after a step of h, and f, times and states of its stages. first: f(t, y), where it is known."""
    slopes: list[Tensor] = []
    times: list[Tensor] = []
    states: list[Tensor] = []
    for i, (node, row) in enumerate(zip(tableau.nodes, tableau.rows, strict=True)):
        state = _plus(y, h, row, slopes)
        time = t + node * h
        slopes.append(f(time, state) if i or first is None else first)
        times.append(time)
        states.append(state)
    after = states[-1] if tableau.error else _plus(y, h, tableau.weights, slopes)
    return after, slopes, times, states


def _plus(y: Tensor, h: float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    """y + h sum of weight * slope."""
    for w, k in zip(weights, slopes, strict=True):
        y = y if w == 0 else y.add(k, alpha=h * w)
    return y


def equal_steps(
    f: Dynamics, y: Tensor, start: float, end: float, tableau: Tableau, steps: int
) -> Tensor:
    """y(end) from y(start) = y, [batch, n]."""
    h = (end - start) / steps
    first = None
    for i in range(steps):
        y, slopes, times, states = stages(f, y.new_full((), start + i * h), y, h, tableau, first)
        if tableau.error:
            first = slopes[-1]
        if f.records:
            many = [time.expand(len(y)) for time in times]
            f.record(many, states, [y.new_full((len(y),), h * w) for w in tableau.weights])
    return y


Step = tuple[Tensor, Tensor, list[Tensor], list[Tensor]]
"""The state after, f of the stages [stages, batch, n], and times and states of the stages."""


class Embedded:
    """Steps [batch] of a method with an error estimate, each example's of its own length."""

    def __init__(self, tableau: Tableau, like: Tensor) -> None:
        size = len(tableau.nodes)
        rows = [[*row, *(0.0,) * (size - len(row))] for row in (*tableau.rows, tableau.error)]
        self.matrix = like.new_tensor(rows)
        self.nodes = like.new_tensor(tableau.nodes)[:, None]

    def __call__(self, f: Dynamics, t: Tensor, y: Tensor, h: Tensor, first: Tensor) -> Step:
        times = list((t + self.nodes * h).unbind())
        slopes, states = [first], [y]
        for i in range(1, len(times)):
            states.append(torch.addcmul(y, h[:, None], self._mix(i, torch.stack(slopes))))
            slopes.append(f(times[i], states[-1]))
        return states[-1], torch.stack(slopes), times, states

    def error(self, h: Tensor, slopes: Tensor) -> Tensor:
        """The difference from the method of lower order, [batch, n]."""
        return h[:, None] * self._mix(len(self.matrix) - 1, slopes)

    def _mix(self, row: int, slopes: Tensor) -> Tensor:
        weights = self.matrix[row, : len(slopes)]
        mixed: Tensor = weights @ slopes.flatten(1)
        return mixed.view_as(slopes[0])


__all__ = ["Dynamics", "Embedded", "Step", "equal_steps", "stages"]
