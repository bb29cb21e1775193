"""The evaluation of `incremental` in buffers that the stages fill, where nothing records what happens.

A stage is so small that a call of torch takes longer than its arithmetic. So all memory and its views are made before,
and a stage is one product in place a layer, its activation, and a copy of the entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from .incremental import Layer, by_entry

STEPS = 16
"""Stages in a block."""


def recorded(device: str) -> bool:
    """Whether autograd, torch.compile or torch.func may look at what happens, or autocast changes it."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return True
    cast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return cast or bool(torch._C._are_functorch_transforms_active())


class Slot(NamedTuple):
    """One layer at one stage: out + weight @ seen + skip, and its activation.

    out: holds what these rows see of earlier blocks, at first. seen: the inputs of this block; what is not known yet
    has zero weights. skip: outputs to add, or None. into: where the input of the next layer goes, `out` itself where
    that is its ReLU; None for the last layer.
    """

    layer: int
    out: Tensor
    weight: Tensor
    seen: Tensor
    skip: Tensor | None
    into: Tensor | None


class Filling:
    """Where an evaluation stands, with the buffers of all layers; changed by `step` and `give` in turn.

    Arguments as of `Progress`. relu: the input of every layer is the ReLU of the output before, and there are no skips.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        hidden: Callable[[int, Tensor], Tensor],
        entries: Sequence[int],
        per_entry: int,
        batch: int,
        *,
        relu: bool,
    ) -> None:
        self.layers, self.hidden = layers, hidden
        like = layers[0].weight
        outputs = [like.new_empty((len(layer.weight), batch)) for layer in layers]
        middle = outputs[:-1] if relu else [torch.zeros_like(out) for out in outputs[:-1]]
        self.outputs, self.inputs = outputs, [like.new_zeros((sum(entries), batch)), *middle]
        self.starts = [(0, *accumulate(layer.rows)) for layer in layers]
        self.columns = [(0, *accumulate(entries)), *self.starts[:-1]]
        # By stage: the rows of every output, what becomes of them, the entries and their parameters.
        counts = [list(layer.rows) for layer in layers]
        self.rows = [out.split(n) for out, n in zip(outputs, counts, strict=True)]
        self.into: list[Sequence[Tensor | None]] = list(self.rows[:-1])
        if not relu:
            self.into = [h.split(n) for h, n in zip(middle, counts, strict=False)]
        self.into.append([None] * len(entries))
        self.entries: Sequence[Tensor] = self.inputs[0].split(list(entries))
        self.params: Sequence[Tensor] = by_entry(outputs[-1], per_entry).split(list(entries))
        self.stage = self.end = 0
        self.slots: list[list[Slot]] = []

    def step(self) -> Tensor:
        """Parameters [entries, batch, P] of the next stage."""
        if self.stage == self.end:
            self._begin_block()
        for i, out, weight, seen, skip, into in self.slots[self.stage - self.end]:
            out.addmm_(weight, seen)
            if skip is not None:
                out.add_(skip)
            if into is out:
                out.relu_()
            elif into is not None:
                into.copy_(self.hidden(i + 1, out))
        return self.params[self.stage]

    def give(self, entries: Tensor) -> None:
        """The entries of the stage that `step` was for, [entries, batch]."""
        self.entries[self.stage].copy_(entries)
        self.stage += 1

    def _begin_block(self) -> None:
        """One product a layer with everything before the block, and the slots of its stages."""
        first = self.stage
        self.end = end = min(first + STEPS, len(self.entries))
        self.slots = [[] for _ in range(first, end)]
        for i, layer in enumerate(self.layers):
            rows = slice(self.starts[i][first], self.starts[i][end])
            old, new = self.columns[i][first], self.columns[i][end]
            weight, out = layer.weight[rows], self.outputs[i][rows]
            if old:
                torch.addmm(layer.bias[rows], weight[:, :old], self.inputs[i][:old], out=out)
            else:
                out.copy_(layer.bias[rows])
            seen, counts = self.inputs[i][old:new], layer.rows[first:end]
            parts = weight[:, old:new].split(list(counts))
            for stage, part in enumerate(parts, first):
                if len(part):
                    skip = None if layer.skip is None else self.rows[layer.skip][stage]
                    slot = Slot(i, self.rows[i][stage], part, seen, skip, self.into[i][stage])
                    self.slots[stage - first].append(slot)
