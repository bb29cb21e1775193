"""Numbered rows in blocks: the noise of a row depends on the seed and its number, never on how the work is cut.

A block's noise is drawn whole, by a generator of (seed, draw, block). Rows computed in whole blocks are the same bit
for bit however they are cut; else they agree to float rounding, because matrix products may round by their size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..errors import InputError
from ..flow import Flow
from ..nets.pyramid import Pyramid
from ..rows import slice_rows
from ..transforms.base import Noise

_ENTRIES = 2**18  # of a block, at most


def block_rows(flow: Flow) -> int:
    """Rows of a block: a power of two up to 4096, by the size of an event alone."""
    return int(min(4096, 1 << max(0, (_ENTRIES // max(1, flow.event_size)).bit_length() - 1)))


def default_batch(flow: Flow) -> int:
    """Rows of a chunk where the user does not say: four blocks."""
    return 4 * block_rows(flow)


@torch.no_grad()
def log_prob_rows(
    flow: Flow,
    x: Tensor,
    start: int,
    *,
    context: Tensor | None = None,
    seed: int = 0,
    draws: int = 1,
) -> Tensor:
    """log p of the rows x, numbered from `start`, [n], in nats; for integers the mean over `draws` draws of noise.

    context: as many rows.
    """
    transform, size = flow.transform, block_rows(flow)
    draws = draws if transform.stochastic else 1
    pieces = []
    for block, rows, inside in _blocks(start, start + len(x), size):
        each = []
        for draw in range(draws):
            noise: Noise = None
            if transform.stochastic:
                generator = _generator(flow, seed, draw, block)
                whole = transform.draw(size, generator=generator, like=flow.base.like)
                noise = slice_rows(whole, inside.start, inside.stop)
            given = None if context is None else context[rows]
            each.append(flow.log_prob(x[rows], given, noise=noise))
        mean = torch.stack(each).double().mean(0) if draws > 1 else each[0]
        pieces.append(mean.to(each[0].dtype))
    return torch.cat(pieces)


@torch.no_grad()
def sample_rows(
    flow: Flow,
    start: int,
    stop: int,
    *,
    context: Tensor | None = None,
    seed: int = 0,
    temperature: float = 1.0,
) -> Tensor:
    """Samples number start to stop - 1, [stop - start, *event_shape]; context: as many rows."""
    size = block_rows(flow)
    pieces = []
    for block, rows, inside in _blocks(start, stop, size):
        z = flow.base.sample(
            size, temperature=temperature, generator=_generator(flow, seed, 0, block)
        )
        pieces.append(flow.decode(z[inside], None if context is None else context[rows]))
    return torch.cat(pieces)


@torch.no_grad()
def map_rows(
    flow: Flow, x: Tensor, *, context: Tensor | None = None, inverse: bool = False
) -> Tensor:
    """`flow.encode` (or `decode`) of rows, block by block."""
    coded = flow.decode if inverse else flow.encode
    return coded(x, context, batch_size=block_rows(flow))


def check_flow(flow: Flow, given: str | None = None) -> None:
    """Raise InputError for a flow that needs a context, which a table of rows alone does not give.

    given: what of the rows is the context.
    """
    if flow.context_shape is None or given is not None:
        return
    if isinstance(flow.embedding, Pyramid):
        raise InputError(
            f"this model draws a picture given another, of shape {flow.context_shape}: use diffeo edit colorize or "
            "diffeo edit enlarge"
        )
    raise InputError(
        f"this model is conditional (context {flow.context_shape}), and a table of rows holds no context: "
        "use its log_prob, sample, encode and decode in Python"
    )


def check_whole(name: str, value: int, lowest: int) -> None:
    """Raise InputError unless value is a whole number of `lowest` or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InputError(f"{name} must be a whole number of {lowest} or more, got {value!r}")


def _blocks(start: int, stop: int, size: int) -> Iterator[tuple[int, slice, slice]]:
    """Block number, the rows of [start, stop) in it counted from start, and counted from the block's start."""
    at = start
    while at < stop:
        block = at // size
        end = min(stop, (block + 1) * size)
        yield block, slice(at - start, end - start), slice(at - block * size, end - block * size)
        at = end


def _generator(flow: Flow, seed: int, draw: int, block: int) -> torch.Generator:
    import numpy as np

    state = int(np.random.SeedSequence((seed, draw, block)).generate_state(1, np.uint64)[0])
    # Some devices take 63 bits only.
    return torch.Generator(flow.device).manual_seed(state >> 1)
