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


class Slot(NamedTuple):
    """One layer at one stage, views of the buffers of a block.

    out: what the rows of this stage see of earlier blocks, and then their outputs. seen: the inputs of the layer; what
    is not known yet has zero weights. skip: outputs to add, or None. into: where the input of the next layer goes,
    `out` itself where that is its ReLU; None for the last layer.
    """

    layer: int
    out: Tensor
    weight: Tensor
    seen: Tensor
    skip: Tensor | None
    into: Tensor | None


class Progress:
    """Where an evaluation stands: explicit state, changed by the functions below, owned by the caller.

    hidden(i, output of layer i - 1) is the input of layer i; relu: it is the ReLU of that output, for every layer, and
    there are no skips. entries: of each stage. per_entry: outputs of each entry, P. stage: the next one to compute; its
    block: from `start` to before `end`. done, here: the inputs of each layer, [units, batch], of earlier blocks and of
    this one. base, weights: of each layer's rows in this block, what they see of earlier blocks, and their weights for
    this one. parts: the same, stage by stage. slots, places, params: where nothing records what happens, `here` are
    buffers that the stages fill; the places of their entries, and their parameters.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        hidden: Callable[[int, Tensor], Tensor],
        entries: Sequence[int],
        per_entry: int,
        batch: int,
        *,
        relu: bool = False,
    ) -> None:
        self.layers, self.hidden, self.relu = layers, hidden, relu
        self.entries, self.per_entry, self.batch = entries, per_entry, batch
        device = layers[0].weight.device.type
        self.in_place = not (recorded() or torch.is_autocast_enabled(device))
        self.starts = [(0, *accumulate(layer.rows)) for layer in layers]
        self.columns = [(0, *accumulate(entries)), *self.starts[:-1]]
        self.stage = self.start = self.end = 0
        empty = [layer.weight.new_zeros((0, batch)) for layer in layers]
        self.done, self.here = empty, list(empty)
        self.base: list[Tensor] = []
        self.weights: list[Tensor] = []
        self.parts: list[list[tuple[Tensor, Tensor]]] = []
        self.slots: list[list[Slot]] = []
        self.places: Sequence[Tensor] = ()
        self.params: Sequence[Tensor] = ()


def recorded() -> bool:
    """Whether autograd, torch.compile or torch.func may look at what happens: no buffers, no branches on values."""
    active: bool = torch._C._are_functorch_transforms_active()
    return active or torch.is_grad_enabled() or torch.compiler.is_compiling()


def begin_block(state: Progress, stages: int) -> None:
    """Start a block of that many stages (or what is left): one product a layer with everything before it."""
    first = state.stage
    state.start = first
    state.end = end = min(first + stages, len(state.layers[0].rows))
    state.base, state.weights, state.parts, state.slots = [], [], [], []
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
    return _params(state, outputs[-1])


def end_block(state: Progress, stages: int | None = None) -> None:
    """Keep what this block has computed, or its first stages, and go on after them."""
    end = state.end if stages is None else state.stage + stages
    for i, here in enumerate(state.here):
        known = state.columns[i][end] - state.columns[i][state.stage]
        state.done[i] = torch.cat([state.done[i], here[:known]])
    state.stage = end


def step(state: Progress) -> Tensor:
    """Parameters [entries, batch, P] of the next stage, in a block that has begun."""
    return _fill(state) if state.in_place else _grow(state)


def give(state: Progress, entries: Tensor) -> None:
    """The entries of the stage that `step` computed, [entries, batch]."""
    if state.in_place:
        state.places[state.stage - state.end].copy_(entries)
    else:
        _append(state, 0, entries)
    if state.stage + 1 < state.end:
        state.stage += 1
        return
    state.stage = state.start
    end_block(state)


def _fill(state: Progress) -> Tensor:
    """A step in buffers, with as few calls as there are: each takes longer than its arithmetic."""
    if not state.slots:
        _prepare(state)
    at = state.stage - state.end
    for layer, out, weight, seen, skip, into in state.slots[at]:
        out.addmm_(weight, seen)
        if skip is not None:
            out.add_(skip)
        if into is out:
            out.relu_()
        elif into is not None:
            into.copy_(state.hidden(layer + 1, out))
    return state.params[at]


def _prepare(state: Progress) -> None:
    """The buffers of a block, and their views for each of its stages."""
    first, end, last = state.start, state.end, len(state.layers) - 1
    outputs = [base.clone(memory_format=torch.contiguous_format) for base in state.base]
    state.here[0] = outputs[0].new_zeros((state.weights[0].shape[1], state.batch))
    for i in range(last):
        state.here[i + 1] = outputs[i] if state.relu else torch.zeros_like(outputs[i])
    counts = [list(layer.rows[first:end]) for layer in state.layers]
    rows = [out.split(n) for out, n in zip(outputs, counts, strict=True)]
    weights = [w.split(n) for w, n in zip(state.weights, counts, strict=True)]
    inputs = [rows[i] if state.relu else state.here[i + 1].split(counts[i]) for i in range(last)]
    for s in range(end - first):
        slots = []
        for i, layer in enumerate(state.layers):
            if counts[i][s]:
                skip = None if layer.skip is None else rows[layer.skip][s]
                into = inputs[i][s] if i < last else None
                slots.append(Slot(i, rows[i][s], weights[i][s], state.here[i], skip, into))
        state.slots.append(slots)
    sizes = list(state.entries[first:end])
    state.places = state.here[0].split(sizes)
    state.params = _params(state, outputs[last]).split(sizes)


def _grow(state: Progress) -> Tensor:
    """A step whose results are new tensors."""
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
    return _params(state, found)


def _append(state: Progress, i: int, values: Tensor) -> None:
    here = state.here[i]
    state.here[i] = torch.cat([here, values]) if here.shape[0] else values


def _params(state: Progress, rows: Tensor) -> Tensor:
    """[entries * P, batch] as [entries, batch, P]."""
    n = rows.shape[0] // state.per_entry
    return rows.view(n, state.per_entry, rows.shape[1]).transpose(1, 2)
