"""Rows for the pictures: samples of a model, and examples of data that may be larger than memory."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from ..data import Data
from ..flow import Flow

BATCH = 2048


def on_flow(flow: Flow, x: Tensor) -> Tensor:
    """Data on the flow's device, real numbers in its dtype."""
    return x.to(flow.device, flow.dtype) if x.is_floating_point() else x.to(flow.device)


def generator(flow: Flow, seed: int) -> torch.Generator:
    return torch.Generator(flow.device).manual_seed(seed)


def sample(flow: Flow, n: int, seed: int, temperature: float = 1.0) -> Tensor:
    """n samples on the CPU; the same seed gives the same latents at every temperature."""
    drawn = flow.sample(
        n, temperature=temperature, generator=generator(flow, seed), batch_size=BATCH
    )
    return drawn.cpu()


def some_rows(x: Tensor, n: int, seed: int) -> Tensor:
    """All rows on the CPU, or n of them at random, in their order."""
    if len(x) <= n:
        return x.cpu()
    return x[torch.tensor(sorted(random.Random(seed).sample(range(len(x)), n)))].cpu()


def test_rows(flow: Flow, data: Data, n: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """At most n test examples at random, and what is given of each, on the flow's device."""
    x = on_flow(flow, some_rows(data.test, n, seed))
    if data.contexts is not None:
        return x, on_flow(flow, some_rows(data.contexts[2], n, seed))
    return x, data.context(x)
