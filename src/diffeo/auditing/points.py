"""Where a flow is audited: some examples, as many draws of the base, and a copy of the flow to try them on."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..flow import Flow
from ..parts import Shape
from ..rows import broadcast, show
from ..testing.case import rows as take
from ..transforms import Chain
from .record import Call, record

ENTRIES, FEWEST, BATCH = 16384, 16, 256


@dataclass(frozen=True)
class Examples:
    """Rows of the data: x [n, *event], their contexts, and which rows of the given data they were."""

    x: Tensor
    context: Any
    picks: list[int]


def choose(flow: Flow, x: Tensor, context: Any, seed: int, rows: int) -> Examples:
    """Rows of x and of the context that goes with them, at random. Raises ShapeError or InputError."""
    event = flow.event_shape
    if not isinstance(x, Tensor) or tuple(x.shape[max(0, x.ndim - len(event)) :]) != event:
        flow.check(x)  # has the words for it
    batch: Shape = tuple(x.shape[: x.ndim - len(event)])
    given: Shape = ()
    if flow.context_shape is not None:
        given, context = flow._context_rows(context)
    every = broadcast(batch, given, "events")
    total = math.prod(every)
    if not total:
        raise InputError(
            f"an audit needs at least one example [{show(event)}], got x of {tuple(x.shape)}"
        )
    n = min(total, rows, max(FEWEST, ENTRIES // max(1, math.prod(event))))
    picks = sorted(random.Random(seed).sample(range(total), n))
    x = x.reshape(-1, *event)[_rows_of(batch, every, picks)].to(flow.device)
    if flow.context_shape is not None:
        context = take(context, _rows_of(given, every, picks))
    flow.check(x, context)
    bad = ~x.double().isfinite().reshape(n, -1).all(1)
    if bool(bad.any()):
        row = picks[int(bad.double().argmax())]
        raise InputError(f"x holds NaN or infinity in row {row}: leave such rows out")
    return Examples(x, context, picks)


def _rows_of(shape: Shape, every: Shape, picks: list[int]) -> Tensor:
    """Of rows numbered over the broadcast shape, the numbers over `shape`."""
    index = torch.tensor(picks)
    if shape == every:
        return index
    return torch.arange(math.prod(shape)).reshape(shape).expand(every).reshape(-1)[index]


class Copy:
    """A copy of a flow in one dtype, in eval mode and without gradients to its parameters."""

    def __init__(self, flow: Flow, dtype: torch.dtype | None = None) -> None:
        self.flow = copy.deepcopy(flow).eval().requires_grad_(False)
        if dtype is not None:
            # Some devices have no double precision.
            device = "cpu" if flow.device.type == "mps" else flow.device
            self.flow = self.flow.to(device, dtype)
        self.real = self.flow.continuous
        self._names = {id(m): path for path, m in self.flow.named_modules()}

    def place(self, value: Any) -> Any:
        """Tensors on its device, real numbers in its dtype."""
        if isinstance(value, Tensor):
            real = value.is_floating_point()
            return value.to(self.flow.device, self.flow.dtype if real else value.dtype)
        if isinstance(value, dict):
            return {k: self.place(v) for k, v in value.items()}
        return tuple(map(self.place, value)) if isinstance(value, tuple) else value

    def smooth(self, x: Tensor, context: Any, noise: Any) -> tuple[Tensor, Any]:
        """The input of the continuous flow, integers dequantized by `noise`, and the noise that is left for it."""
        if self.real is self.flow:
            return x, noise
        assert isinstance(self.flow.transform, Chain)
        first = next(iter(self.flow.transform))
        v = first(x, self.embed(context), noise[0])[0]
        return v, noise[1:] if self.real.transform.stochastic else None

    def embed(self, context: Any) -> Any:
        return context if self.flow.embedding is None else self.flow.embedding(context)

    def forward(self, v: Tensor, context: Any, noise: Any) -> tuple[Tensor, Tensor]:
        """Latents and log-likelihoods of the continuous flow, in chunks."""
        pieces = []
        for start in range(0, len(v), BATCH):
            some = slice(start, start + BATCH)
            c = self.embed(take(context, some))
            transform = self.real.transform
            given = (v[some], c, take(noise, some)) if transform.stochastic else (v[some], c)
            z, ladj = transform(*given)
            pieces.append((z, self.real.base.log_prob(z, c) + ladj))
        z, log_prob = map(torch.cat, zip(*pieces, strict=True))
        return z, log_prob

    def record(self, v: Tensor, context: Any, noise: Any) -> Call:
        """The calls of the continuous flow."""
        return record(self.real.transform, self._names, v, self.embed(context), noise)

    def record_all(self, x: Tensor, context: Any, noise: Any) -> Call:
        """The calls of the flow itself, its dequantizer included."""
        return record(self.flow.transform, self._names, x, self.embed(context), noise)
