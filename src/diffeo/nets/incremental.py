"""Incremental evaluation of a masked network: every hidden unit once, in all about the arithmetic of one pass.

Units are sorted by the stage at which all that they see is known. A stage computes its own units, from those before it,
and then the outputs of its entries. Stages come in blocks: what a block sees of all earlier ones is one matrix product;
what it sees of itself comes stage by stage (`step`), or in sweeps over the whole block (`sweep`), which bring one more
stage right each time and so end at the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor


class Layer(NamedTuple):
    """A linear layer with rows and columns sorted by stage; the first one's columns are the entries.

    weight: [rows, columns]. bias: [rows, 1 or batch]. rows: how many rows each stage has. skip: the layer whose output
    is added to this one's, or None.
    """

    weight: Tensor
    bias: Tensor
    rows: Sequence[int]
    skip: int | None = None


class Progress:
    """Where an evaluation stands: explicit state, changed by the functions below, owned by the caller.

    hidden(i, output of layer i - 1) is the input of layer i. entries: of each stage. per_entry: outputs of each entry,
    P. stage: the next one to compute; its block: from `start` to before `end`. done, here: the inputs of each layer,
    [units, batch], of earlier blocks and of this one. base, weights: of each layer's rows in this block, what they see
    of earlier blocks, and their weights for this one. parts: the same, stage by stage.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        hidden: Callable[[int, Tensor], Tensor],
        entries: Sequence[int],
        per_entry: int,
        batch: int,
    ) -> None:
        self.layers, self.hidden = layers, hidden
        self.per_entry, self.batch = per_entry, batch
        self.starts = [(0, *accumulate(layer.rows)) for layer in layers]
        self.columns = [(0, *accumulate(entries)), *self.starts[:-1]]
        self.stage = self.start = self.end = 0
        empty = [layer.weight.new_zeros((0, batch)) for layer in layers]
        self.done, self.here = empty, list(empty)
        self.base: list[Tensor] = []
        self.weights: list[Tensor] = []
        self.parts: list[list[tuple[Tensor, Tensor]]] = []


def begin_block(state: Progress, stages: int) -> None:
    """Start a block of that many stages (or what is left): one product a layer with everything before it."""
    first = state.stage
    state.start = first
    state.end = end = min(first + stages, len(state.layers[0].rows))
    state.base, state.weights, state.parts = [], [], []
    for i, layer in enumerate(state.layers):
        state.here[i] = state.done[i][:0]
        rows = slice(state.starts[i][first], state.starts[i][end])
        old, new = state.columns[i][first], state.columns[i][end]
        weight, base = layer.weight[rows], layer.bias[rows]
        if old:
            base = torch.addmm(base, weight[:, :old], state.done[i])
        state.base.append(base.expand(-1, state.batch))
        state.weights.append(weight[:, old:new])


def sweep(state: Progress, entries: Tensor) -> Tensor:
    """Parameters [entries, batch, P] of the whole block, given guesses of its entries, [entries, batch]."""
    outputs: list[Tensor] = []
    h = entries
    for i, layer in enumerate(state.layers):
        if i:
            h = state.hidden(i, outputs[-1])
        state.here[i] = h
        out = torch.addmm(state.base[i], state.weights[i], h)
        outputs.append(out if layer.skip is None else out + outputs[layer.skip])
    return by_entry(outputs[-1], state.per_entry)


def end_block(state: Progress, stages: int | None = None) -> None:
    """Keep what this block has computed, or its first stages, and go on after them."""
    end = state.end if stages is None else state.stage + stages
    for i, here in enumerate(state.here):
        known = state.columns[i][end] - state.columns[i][state.stage]
        state.done[i] = torch.cat([state.done[i], here[:known]])
    state.stage = end


def step(state: Progress) -> Tensor:
    """Parameters [entries, batch, P] of the next stage, in a block that has begun."""
    if not state.parts:
        for i, layer in enumerate(state.layers):
            counts = list(layer.rows[state.stage : state.end])
            pairs = zip(state.base[i].split(counts), state.weights[i].split(counts), strict=True)
            state.parts.append(list(pairs))
    outputs: list[Tensor | None] = []
    at, last = state.stage - state.end, len(state.layers) - 1
    for i, layer in enumerate(state.layers):
        if not layer.rows[state.stage]:
            outputs.append(None)
            continue
        out, weight = state.parts[i][at]
        seen = state.here[i]
        if seen.shape[0]:
            out = torch.addmm(out, weight[:, : seen.shape[0]], seen)
        if layer.skip is not None:
            skipped = outputs[layer.skip]
            assert skipped is not None
            out = out + skipped
        outputs.append(out)
        if i < last:
            _append(state, i + 1, state.hidden(i + 1, out))
    found = outputs[last]
    assert found is not None
    return by_entry(found, state.per_entry)


def give(state: Progress, entries: Tensor) -> None:
    """The entries of the stage that `step` computed, [entries, batch]."""
    _append(state, 0, entries)
    if state.stage + 1 < state.end:
        state.stage += 1
        return
    state.stage = state.start
    end_block(state)


def _append(state: Progress, i: int, values: Tensor) -> None:
    here = state.here[i]
    state.here[i] = torch.cat([here, values]) if here.shape[0] else values


def by_entry(rows: Tensor, per_entry: int) -> Tensor:
    """Outputs [entries * P, batch] as parameters [entries, batch, P]."""
    n, batch = rows.shape
    return rows.view(n // per_entry, per_entry, batch).transpose(1, 2)
