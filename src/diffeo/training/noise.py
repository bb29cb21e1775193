"""Randomness keyed by (seed, step): what a step draws does not depend on what came before it.

So there is no random state to store, an interrupted run goes on as if nothing had happened, and the dequantization
noise of an example is the same however many processes share its batch.
"""

from __future__ import annotations

from typing import Any

import torch

from ..flow import Flow
from ..rows import slice_rows
from .rows import Batch

MASK = 2**64 - 1


def key(*numbers: int) -> int:
    """A 63-bit seed from integers: the finalizer of splitmix64, once for each."""
    value = 0
    for number in numbers:
        value = (value + number + 0x9E3779B97F4A7C15) & MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
        value ^= value >> 31
    return value >> 1


def seed_layers(device: torch.device, seed: int, step: int, rank: int) -> None:
    """Key the generators that layers draw from (dropout); each process its own."""
    number = key(seed, step, rank, 1)
    # torch.manual_seed would also visit every other device, at a hundred times the price.
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(number)
    elif device.type != "cpu":
        torch.manual_seed(number)


def noise_of(flow: Flow, batch: Batch, *numbers: int) -> Any:
    """The flow's noise for the rows of a batch: drawn for the global batch, then this process's share; or None."""
    if not flow.transform.stochastic:
        return None
    like = flow.base.like
    generator = torch.Generator(like.device).manual_seed(key(*numbers))
    noise = flow.transform.draw(batch.total, generator=generator, like=like)
    here = len(batch.x)
    return noise if here == batch.total else slice_rows(noise, batch.start, batch.start + here)
