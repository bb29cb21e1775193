"""Two copies of the weights beside those that train: their moving average, and the best so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..flow import Flow
from ..parts import refresh


class Averages:
    """avg <- d avg + (1 - d) w, d = min(decay, (1 + n) / (10 + n)) after n updates, of parameters and real buffers.

    Running statistics of batch norm belong to weights: averaged weights need averaged statistics.
    """

    def __init__(self, flow: Flow, decay: float) -> None:
        self.flow = flow
        self.decay = decay
        self.count = 0
        self.weights = _real_tensors(flow)
        self.values = [w.detach().clone() for w in self.weights]

    def to(self, device: torch.device) -> None:
        """Follow the flow to a device; moving a module replaces its buffers."""
        self.weights = _real_tensors(self.flow)
        self.values = [v.to(device) for v in self.values]

    @torch.no_grad()
    def update(self) -> None:
        n = self.count
        share = 1 - min(self.decay, (1 + n) / (10 + n)) if n else 1.0
        torch._foreach_lerp_(self.values, self.weights, share)
        self.count += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The flow with its averaged weights."""
        kept = [p.detach().clone() for p in self.weights]
        self.copy(self.values)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, kept)

    @torch.no_grad()
    def copy(self, values: list[Tensor]) -> None:
        """Set the flow's weights."""
        torch._foreach_copy_(self.weights, values)
        refresh(self.flow)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        torch._foreach_copy_(self.values, state["values"])


def _real_tensors(flow: Flow) -> list[Tensor]:
    saved = {id(t) for t in flow.state_dict(keep_vars=True).values()}
    real = (b for b in flow.buffers() if b.is_floating_point() and id(b) in saved)
    return [*flow.parameters(), *real]


class Best:
    """The weights with the lowest validation loss, and how many validations came since."""

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.value = math.inf
        self.step = 0
        self.since = 0
        self.weights: dict[str, Tensor] | None = None

    @property
    def stopped(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        return self.patience is not None and self.since >= self.patience

    def see(self, value: float, step: int, flow: Flow) -> None:
        """Note a validation; keeps the flow's weights if it is the best."""
        if value < self.value:
            self.value, self.step, self.since = value, step, 0
            self.weights = {k: v.detach().clone() for k, v in flow.state_dict().items()}
        else:
            self.since += 1

    def state_dict(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "patience"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
