"""Reversible memory in training: how well the inverse brings back what backward needs, watched."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ..flow import Flow
from ..rows import slice_rows
from ..transforms.base import Context, Noise
from ..transforms.reversible import State, Step, runs, trained
from .machines import main_process

EVERY = 100
"""Steps between two measurements, each of which costs a forward and an inverse of at most ROWS rows."""
ROWS = 16
LIMIT = 1e-2
"""Reconstruction error from which on the watch warns: gradients then have an error of about this size."""


def reconstruction_error(
    flow: Flow, x: Tensor, context: Context = None, *, noise: Noise = None
) -> float:
    """max |x' - x| / rms(x), x' = f^-1(f(x)) as reversible memory recomputes it; the worst of its runs of layers.

    Eval mode, in the flow's dtype; infinite where x' is not finite, and 0 for a flow without layers to recompute.
    """
    error = 0.0
    with _still(flow):
        for steps, before, after, embedded in _reversible(flow, x, context, noise):
            for step in reversed(steps):
                after = step.undo(after, embedded)
            error = max(error, _gap(after, before))
    return error


def reconstruction_by_layer(
    flow: Flow, x: Tensor, context: Context = None, *, noise: Noise = None
) -> list[tuple[str, float]]:
    """The reconstruction error of the input of every recomputed layer, from data to latent: (name, error) each."""
    names = {id(m): n for n, m in flow.named_modules()}
    found = []
    with _still(flow):
        for steps, before, after, embedded in _reversible(flow, x, context, noise):
            states = [before]
            for step in steps[:-1]:
                states.append(step.play(states[-1], embedded)[0])
            errors = []
            for step, state in zip(reversed(steps), reversed(states), strict=True):
                after = step.undo(after, embedded)
                if step.transform is not None:
                    where = f"{names[id(step.transform)]} ({type(step.transform).__name__})"
                    errors.append((where, _gap(after, state)))
            found += errors[::-1]
    return found


def _reversible(
    flow: Flow, x: Tensor, context: Context, noise: Noise
) -> Iterator[tuple[list[Step], State, State, Context]]:
    """Each run that is recomputed: its steps, the states before and after, the embedded context."""
    _, rows, context = flow._rows(x, context)
    state: State = (rows,)
    learned = False
    for storage, steps in runs(flow.transform, noise):
        before = state
        kept: list[Step] = []
        for step in steps:
            # Preprocessing in front of all parameters is not recomputed.
            learned = learned or bool(trained(step.parameters))
            before = before if learned and kept else state
            if learned:
                kept.append(step)
            state = step.play(state, context)[0]
        if storage == "reversible" and kept:
            yield kept, before, state, context


def _gap(found: State, real: State) -> float:
    error = 0.0
    for a, b in zip(found, real, strict=True):
        size = b.double().square().mean().sqrt().clamp(min=torch.finfo(b.dtype).tiny)
        ratio = float((a.double() - b.double()).abs().max() / size) if b.numel() else 0.0
        error = max(error, ratio if math.isfinite(ratio) else math.inf)
    return error


@contextmanager
def _still(flow: Flow) -> Iterator[None]:
    """Eval mode without gradients, for a moment."""
    training = flow.training
    flow.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        flow.train(training)


class ReconstructionWatch(pl.Callback):
    """Logs `reconstruction` every 100 steps, on rows of the batch at hand, and warns once where it is too large."""

    def __init__(self) -> None:
        self.warned = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = batch.step + 1
        if step % EVERY and step > 1:
            return
        x, context, _, noise = module._inputs[:4]
        if not len(x):
            return
        x, context, noise = (slice_rows(v, 0, ROWS) for v in (x, context, noise))
        with trainer.precision_plugin.forward_context():
            error = reconstruction_error(module.flow, x, context, noise=noise)
            # A callback runs before the module has counted the step.
            module._log(step, reconstruction=error)
            if error > LIMIT and not self.warned and main_process():
                self.warned = True
                layers = reconstruction_by_layer(module.flow, x, context, noise=noise)
                warnings.warn(_advice(module.flow, step, error, layers), stacklevel=1)


def _advice(flow: Flow, step: int, error: float, layers: list[tuple[str, float]]) -> str:
    where, growth = worst_growth(layers, flow.dtype)
    dtype = str(flow.dtype).removeprefix("torch.")
    precise = "" if flow.dtype == torch.float64 else "train in float64 (flow.double()), "
    return (
        f"step {step}: in {dtype} the inverse brings the activations back with an error of {error:.1g} of their size, "
        f"and gradients are wrong by about as much; it grows most in {where}, {growth:.1g} times: bound the scale "
        f"there, {precise}or use memory = 'checkpoint', which needs no inverse"
    )


def worst_growth(layers: list[tuple[str, float]], dtype: torch.dtype) -> tuple[str, float]:
    """The layer in whose inverse the error grows most, and how many times."""
    floor = torch.finfo(dtype).eps
    after = [max(e, floor) for _, e in layers[1:]] + [floor]
    growths = [
        (max(e, floor) / later, name) for (name, e), later in zip(layers, after, strict=True)
    ]
    # Beyond a first infinite error, all are.
    growth, name = max((g for g in growths if not math.isnan(g[0])), default=(math.nan, "-"))
    return name, growth
