"""Data to latents and back, file to file, in constant memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..data.stream import Table
from ..data.strings import Strings
from ..flow import Flow
from .blocks import check_flow, check_whole, default_batch, map_rows
from .outputs import check_not_input, check_rows_output, column_names, rows_output
from .tables import Reading, flow_levels, open_for, open_latents

Progress = Callable[[int, int | None], None]


def encode_table(
    flow: Flow,
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    reading: Reading | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """z = f(x) of each row, in order, to .npy [n, *latent_shape], or .csv or .parquet with columns z0, z1, ...

    reading: which columns are the event, or how pictures are read. Integers are taken at the centre of their bin.
    Raises DataError for a table that does not fit, InputError for an option that does not.
    """
    path = Path(out)
    reading = reading or Reading()
    check_flow(flow, reading.given)
    check_rows_output(path, flow.latent_shape, "latents", flat=True)
    check_not_input(path, Path(table).expanduser())
    rows = open_for(flow, table, reading)
    names = column_names(None, math.prod(flow.latent_shape), "z")
    return _map(flow, rows, path, names, batch_size, progress, reading)


def decode_table(
    flow: Flow,
    latents: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """x = f^-1(z) of each row, in order, to .npy, .png (images), .csv or .parquet (vectors), or .txt (strings).

    latents: rows [n, *latent_shape] or flat, as `encode_table` writes them. columns: names of a table's columns. Raises
    DataError for latents that do not fit, InputError for an option that does not.
    """
    path = Path(out)
    check_flow(flow)
    check_rows_output(path, flow.event_shape, "events", text=Strings.known(flow) is not None)
    check_not_input(path, Path(latents).expanduser())
    rows = open_latents(flow, latents)
    names = column_names(columns, flow.event_size, "x")
    return _map(flow, rows, path, names, batch_size, progress, None)


def _map(
    flow: Flow,
    table: Table,
    path: Path,
    names: Sequence[str],
    batch_size: int | None,
    progress: Progress | None,
    reading: Reading | None,
) -> Path:
    """reading: of the events that are encoded; None: latents are decoded."""
    inverse = reading is None
    size = default_batch(flow) if batch_size is None else batch_size
    check_whole("batch_size", size, 1)
    flow.eval()
    done = 0
    levels, strings = (flow_levels(flow), Strings.known(flow)) if inverse else (None, None)
    with rows_output(path, names, levels=levels, strings=strings) as write:
        for x in table.batches(size):
            rows = torch.as_tensor(x, device=flow.device)
            if inverse:
                rows = rows.reshape(-1, *flow.latent_shape)
            if rows.is_floating_point():
                rows = rows.to(flow.dtype)
            context = None if reading is None else reading.context(rows)
            write(map_rows(flow, rows, context=context, inverse=inverse).cpu().numpy())
            done += len(x)
            if progress is not None:
                progress(done, table.rows)
    return path
