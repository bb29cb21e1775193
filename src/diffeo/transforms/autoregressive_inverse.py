"""Four ways to invert an autoregressive map, all to the same values.

Each takes the inverse of a family, a network, z as [batch, *event] and the context, and gives x and the elementwise
log-derivatives of the inverse.

`sequential`: a pass of the whole network for each stage. `incremental`: stage by stage, every hidden unit once.
`fixed_point`: x <- f^-1(z; net(x)), over a window of stages where the network allows it, until nothing moves; each
sweep brings at least one more stage right, so it ends. `blocked`, for torch.compile: over each block as many such
sweeps as it has stages, without a branch on values and in few sizes of operations. Song, Meng, Liao, Ermon.
Accelerating feedforward computation via parallel nonlinear equation solving. 2021, arXiv:2002.03629.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ..nets.incremental import Progress, begin_block, end_block
from ..nets.masked import AutoregressiveConditioner, Masked

FamilyInverse = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Context = Tensor | dict[str, Tensor] | None
Net = AutoregressiveConditioner
WINDOW = 64
"""Stages that are swept together."""
ADVANCE = 16
"""Stages that must have come to rest before the window moves on."""
BLOCK = 4
"""Stages that `blocked` sweeps together."""
SLACK = 8
"""An entry rests when a sweep moves it by at most SLACK eps max(1, |x|)."""


def sequential(
    inverse: FamilyInverse, net: Net, z: Tensor, context: Context
) -> tuple[Tensor, Tensor]:
    """One pass of the network for each stage."""
    flat = z.flatten(1)
    x, ladj = torch.zeros_like(flat), torch.zeros_like(flat)
    for stage in net.stages:
        index = torch.tensor(stage, device=z.device)
        params = net(x.reshape(z.shape), context).to(z.dtype)
        params = params.reshape(*flat.shape, net.per_entry).index_select(1, index)
        value, part = inverse(flat.index_select(1, index), params)
        x, ladj = x.index_copy(1, index, value), ladj.index_copy(1, index, part)
    return x.reshape(z.shape), ladj


def incremental(
    inverse: FamilyInverse, net: Net, z: Tensor, context: Context
) -> tuple[Tensor, Tensor]:
    """Stage by stage with the network's `step`; also under autograd, vmap and compile."""
    columns, back = _by_stage(net, z)
    state = net.start(len(z), context)
    found: list[tuple[Tensor, Tensor]] = []
    for part in columns.split([len(stage) for stage in net.stages]):
        found.append(_stage(inverse, net, state, part))
    return _events(found, back, z)


def fixed_point(
    inverse: FamilyInverse, net: Net, z: Tensor, context: Context
) -> tuple[Tensor, Tensor]:
    """Sweeps over a window of stages, which moves on as its first stages come to rest. No gradients.

    Then every entry solves its own equation, given the entries before it, to the tolerance. Where not one stage more
    comes to rest in a sweep (NaN), the window is done stage by stage.
    """
    if not isinstance(net, Masked):
        return _whole(inverse, net, z, context)
    columns, back = _by_stage(net, z)
    state = net.start(len(z), context, sweeps=True)
    assert isinstance(state, Progress)
    sizes = [len(stage) for stage in net.stages]
    starts = (0, *accumulate(sizes))
    found: list[tuple[Tensor, Tensor]] = []
    x = columns[:0]
    while state.stage < len(sizes):
        first = state.stage
        begin_block(state, WINDOW)
        window = columns[starts[first] : starts[state.end]]
        x = torch.cat([x, window.new_zeros((len(window) - len(x), len(z)))])
        wanted = min(ADVANCE, state.end - first)
        for _ in range(wanted + 1):
            last = x
            x, ladj = inverse(window, net.sweep(state, last).to(z.dtype))
            rested = bisect_right(starts, starts[first] + _at_rest(x, last)) - 1 - first
            if rested >= wanted:
                break
        else:
            begin_block(state, WINDOW)
            found += [
                _stage(inverse, net, state, piece)
                for piece in window.split(sizes[first : state.end])
            ]
            x = columns[:0]
            continue
        state.here[0] = x
        end_block(state, rested)
        known = starts[state.stage] - starts[first]
        found.append((x[:known], ladj[:known]))
        x = x[known:]
    return _events(found, back, z)


def blocked(inverse: FamilyInverse, net: Net, z: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """n sweeps over every block of n stages; after the i-th one its first i stages are right."""
    assert isinstance(net, Masked)
    columns, back = _by_stage(net, z)
    state = net.start(len(z), context, sweeps=True)
    assert isinstance(state, Progress)
    starts = (0, *accumulate(len(stage) for stage in net.stages))
    found: list[tuple[Tensor, Tensor]] = []
    while state.stage < len(net.stages):
        begin_block(state, BLOCK)
        block = columns[starts[state.start] : starts[state.end]]
        x = ladj = torch.zeros_like(block)
        for _ in range(state.end - state.start):
            x, ladj = inverse(block, net.sweep(state, x).to(z.dtype))
        state.here[0] = x
        end_block(state)
        found.append((x, ladj))
    return _events(found, back, z)


def _at_rest(x: Tensor, last: Tensor) -> int:
    """How many rows, from the first on, have not moved."""
    limit = SLACK * torch.finfo(x.dtype).eps
    moved = (x - last).abs_().amax(1).tolist()
    scale = None
    for i, step in enumerate(moved):
        if step <= limit:
            continue
        scale = scale or float(x.abs().max())
        if not step <= limit * scale:
            return i
    return len(moved)


def _whole(inverse: FamilyInverse, net: Net, z: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """Sweeps of the whole network from x = 0, until nothing moves; stage by stage if something always does (NaN)."""
    x = torch.zeros_like(z)
    for _ in range(len(net.stages) + 1):
        last = x
        x, ladj = inverse(z, net(last, context).to(z.dtype).reshape(*z.shape, net.per_entry))
        if not z.numel() or _at_rest(x.reshape(1, -1), last.reshape(1, -1)):
            return x, ladj
    return sequential(inverse, net, z, context)


def _stage(inverse: FamilyInverse, net: Net, state: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    params = net.step(state)
    x, ladj = inverse(z, params if params.dtype == z.dtype else params.to(z.dtype))
    net.give(state, x)
    return x, ladj


def _by_stage(net: Net, z: Tensor) -> tuple[Tensor, Tensor]:
    """z as [entries, batch] in the order of the stages, and the index that undoes the order."""
    order = torch.tensor([i for stage in net.stages for i in stage], device=z.device)
    return z.flatten(1).mT.index_select(0, order), order.argsort()


def _events(found: list[tuple[Tensor, Tensor]], back: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    x, ladj = (torch.cat(parts).index_select(0, back).mT for parts in zip(*found, strict=True))
    return x.reshape(z.shape), ladj
