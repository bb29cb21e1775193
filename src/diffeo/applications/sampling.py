"""Samples as a file of any length, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data.strings import Strings
from ..errors import InputError
from ..flow import Flow
from .blocks import check_flow, check_whole, default_batch, sample_rows
from .outputs import MOST_PICTURES, check_rows_output, column_names, rows_output
from .tables import check_engine, flow_levels, ordered_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def sample_table(
    flow: Flow,
    n: int,
    out: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
    engine: str = "local",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write n samples to a .npy, .csv, .parquet, .png or (strings) .txt file, which appears when it is whole.

    Sample i depends on the seed and on i alone: the same rows for every batch_size and engine (bit for bit where
    batch_size is a multiple of `blocks.block_rows(flow)` and one CPU thread computes, else to float rounding).
    columns: names of a table's columns. progress: called with the samples done and n. Raises InputError or ConfigError
    for an option that does not fit, before anything is written.
    """
    path = Path(out)
    strings = Strings.known(flow)
    check_rows_output(path, flow.event_shape, "samples", text=strings is not None)
    check_flow(flow)
    check_engine(engine)
    check_whole("the number of samples", n, 1)
    check_whole("seed", seed, 0)
    size = default_batch(flow) if batch_size is None else batch_size
    check_whole("batch_size", size, 1)
    if not temperature >= 0:
        raise InputError(f"temperature must be zero or more, got {temperature}")
    if path.suffix.lower() == ".png" and n > MOST_PICTURES:
        raise InputError(
            f"a .png holds a grid of at most {MOST_PICTURES} pictures, got {n}: use .npy"
        )
    flow.eval()
    names = column_names(columns, flow.event_size, "x")
    make = partial(_Sampler, flow, n, size, seed, temperature)
    starts = range(0, n, size)
    with rows_output(path, names, levels=flow_levels(flow), strings=strings) as write:
        for start, x in zip(starts, ordered_map(make, starts, engine), strict=True):
            write(x)
            if progress is not None:
                progress(start + len(x), n)
    return path


@dataclass
class _Sampler:
    flow: Flow
    n: int
    size: int
    seed: int
    temperature: float

    def __call__(self, start: int) -> Array:
        stop = min(self.n, start + self.size)
        x = sample_rows(self.flow, start, stop, seed=self.seed, temperature=self.temperature)
        made: Array = x.detach().to(torch.device("cpu")).numpy()
        return made
