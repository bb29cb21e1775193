"""log p of every row of a table of any size, in constant memory; a killed job goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data.stream import Table
from ..errors import DataError, InputError
from ..files import write_atomically
from ..flow import Flow
from ..parts import describe
from ..transforms.typed_columns import typed_columns
from .blocks import check_flow, check_whole, default_batch, log_prob_rows
from .kept import check_kept, kept_columns, narrow
from .outputs import check_not_input, check_suffix, settle, table_output
from .tables import (
    Forward,
    Reading,
    check_engine,
    check_rows,
    open_for,
    ordered_map,
    source_fingerprint,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Scores:
    """What a finished job wrote: mean and standard error of log p in nats, and how many rows have log p = -inf."""

    path: Path
    rows: int
    mean: float
    error: float | None
    kind: str
    outside: int
    resumed: int


def score_table(
    flow: Flow,
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    reading: Reading | None = None,
    keep: Sequence[str] = (),
    draws: int = 1,
    seed: int = 0,
    batch_size: int | None = None,
    engine: str = "local",
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Write row, the kept columns and log_prob, in nats, of every row of a table to .parquet or .csv, in its order.

    reading: which columns are the event, or how pictures are read. keep: columns that are copied; of pictures, `file`.
    For integers log_prob is the mean over `draws` draws of the dequantization noise, which depends on the seed and the
    row number alone: the same rows for every batch_size and engine (bit for bit where batch_size is a multiple of
    `blocks.block_rows(flow)` and one CPU thread computes, else to float rounding).

    Finished chunks wait in the folder OUT.parts; the same call goes on from there, with either engine. All rows are
    checked before the first is scored. Raises DataError for a table that does not fit, InputError for an option that
    does not, or where OUT.parts belongs to another job.
    """
    path, source = Path(out), Path(table).expanduser()
    check_suffix(path, (".parquet", ".csv"), "scores")
    check_not_input(path, source)
    check_flow(flow, "columns" if typed_columns(flow) is not None else (reading or Reading()).given)
    check_engine(engine)
    check_whole("draws", draws, 1)
    check_whole("seed", seed, 0)
    size = default_batch(flow) if batch_size is None else batch_size
    check_whole("batch_size", size, 1)
    flow.eval()
    opened = open_for(flow, source, reading)
    typed = typed_columns(flow) is not None
    check_kept(source, keep, ("row", "log_prob", *(("kind",) if typed else ())))
    job = _Job(
        path,
        source,
        {
            "model": _digest(flow),
            "table": source_fingerprint(source),
            "columns": list(opened.columns) if opened.columns else None,
            "reading": json.loads(json.dumps(vars(reading or Reading()))),
            "keep": list(keep),
            "draws": draws if flow.transform.stochastic else 1,
            "seed": seed if flow.transform.stochastic else 0,
            "batch_size": size,
        },
    )
    rows = job.begin(opened)
    done = job.finished()
    if progress is not None:
        progress(min(rows, done * size), rows)
    starts = range(done * size, rows, size)
    if len(starts):
        make = partial(_Scorer, flow, source, reading, size, seed, draws)
        kept = kept_columns(source, keep, size, starts[0]) if keep else None
        for start, log_prob in zip(starts, ordered_map(make, starts, engine), strict=True):
            part = _part(start, log_prob, next(kept) if kept else None)
            if typed:
                part = part.append_column("kind", [[flow.likelihood] * len(log_prob)])
            job.store(start // size, part)
            if progress is not None:
                progress(start + len(log_prob), rows)
    return job.end(flow.likelihood, min(rows, done * size))


class _Scorer:
    """log p of the chunk at a row number."""

    def __init__(
        self,
        flow: Flow,
        table: Path,
        reading: Reading | None,
        size: int,
        seed: int,
        draws: int,
    ) -> None:
        self.flow, self.seed, self.draws = flow, seed, draws
        self.context = (reading or Reading()).context
        self.read = Forward(partial(open_for, flow, table, reading), size)

    def __call__(self, start: int) -> Array:
        x = torch.as_tensor(self.read(start), device=self.flow.device)
        x = x.to(self.flow.dtype) if x.is_floating_point() else x
        width = self.flow.event_shape[0] if self.flow.event_shape else 0
        given: torch.Tensor | None
        if typed_columns(self.flow) is not None and x.shape[1] > width:
            x, given = x[:, :width], x[:, width:]
        else:
            given = self.context(x)
        scored = log_prob_rows(self.flow, x, start, context=given, seed=self.seed, draws=self.draws)
        # numpy knows no bfloat16.
        log_prob: Array = (
            (scored if scored.dtype == torch.float64 else scored.float()).cpu().numpy()
        )
        return log_prob


class _Job:
    """Finished chunks in a folder, with a note of what they belong to."""

    def __init__(self, out: Path, source: Path, inputs: dict[str, Any]) -> None:
        self.out = out
        self.source = source
        self.folder = out.with_name(out.name + ".parts")
        self.inputs = inputs

    def begin(self, table: Table) -> int:
        """The number of rows to score, all checked; the folder exists. Raises InputError for another job's folder."""
        note = self.folder / MANIFEST
        if self.folder.exists():
            if not note.is_file():
                if not self.folder.is_dir() or any(self.folder.iterdir()):
                    raise InputError(
                        f"{self.folder} is not from a score job: remove it or choose another --out"
                    )
            else:
                return self._rows_of_earlier(note)
        rows = check_rows(table)
        write_atomically(note, json.dumps(self.inputs | {"rows": rows}, indent=1) + "\n")
        return rows

    def _rows_of_earlier(self, note: Path) -> int:
        try:
            found = json.loads(note.read_text())
            rows = int(found.pop("rows"))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{note} cannot be read: remove {self.folder} to start again"
            ) from error
        other = [key for key, value in self.inputs.items() if found.get(key) != value]
        if other:
            raise InputError(
                f"{self.folder} holds an unfinished job with another {' and another '.join(other)}: give the same "
                "inputs to go on, or remove that folder to start again"
            )
        return rows

    def finished(self) -> int:
        """The number of chunks that are there, without a gap."""
        n = 0
        while self._path(n).is_file():
            n += 1
        return n

    def store(self, index: int, table: Any) -> None:
        """Write a chunk, whole or not at all."""
        from pyarrow import parquet

        buffer = io.BytesIO()
        parquet.write_table(table, buffer)
        write_atomically(self._path(index), buffer.getvalue())

    def end(self, kind: str, resumed: int) -> Scores:
        """All chunks as one file, in order; the folder goes."""
        from pyarrow import parquet

        parts = [self._path(i) for i in range(self.finished())]
        text = self.inputs["keep"] if self.source.suffix.lower() == ".csv" else []
        types = narrow(parts, text) if self.out.suffix.lower() == ".parquet" else {}
        whole = self.folder / f"whole{self.out.suffix}"
        moments = _Moments()
        with table_output(whole) as write:
            for part in parts:
                table = parquet.read_table(part)
                for name, wanted in types.items():
                    at = table.column_names.index(name)
                    table = table.set_column(at, name, table.column(name).cast(wanted))
                moments.add(table.column("log_prob").to_numpy())
                write(table)
        settle(whole, self.out)
        shutil.rmtree(self.folder)
        mean, error = moments.mean_and_error()
        rows = moments.n + moments.outside
        return Scores(self.out, rows, mean, error, kind, moments.outside, resumed)

    def _path(self, index: int) -> Path:
        return self.folder / f"part-{index:08d}.parquet"


class _Moments:
    """Mean and variance of numbers that come in chunks (Chan, Golub and LeVeque, 1979)."""

    def __init__(self) -> None:
        self.n = self.outside = 0
        self.mean = self.squares = 0.0

    def add(self, values: Array) -> None:
        import numpy as np

        finite = values[np.isfinite(values)].astype(np.float64)
        self.outside += len(values) - len(finite)
        if not len(finite):
            return
        mean, total = float(finite.mean()), self.n + len(finite)
        shift = mean - self.mean
        self.squares += (
            float(((finite - mean) ** 2).sum()) + shift**2 * self.n * len(finite) / total
        )
        self.mean += shift * len(finite) / total
        self.n = total

    def mean_and_error(self) -> tuple[float, float | None]:
        if self.outside:
            return -math.inf, None
        return self.mean, math.sqrt(self.squares / (self.n - 1) / self.n) if self.n > 1 else None


def _part(start: int, log_prob: Array, kept: Any) -> Any:
    import numpy as np
    import pyarrow

    rows = pyarrow.array(np.arange(start, start + len(log_prob)))
    if kept is None:
        return pyarrow.table({"row": rows, "log_prob": log_prob})
    if len(kept) != len(log_prob):
        raise DataError("the table was changed while it was read: start again")
    whole = kept.add_column(0, "row", rows)
    return whole.append_column("log_prob", pyarrow.array(log_prob))


def _digest(flow: Flow) -> str:
    """A hash of the architecture and the weights."""
    from safetensors.torch import save

    from .. import __version__

    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in flow.state_dict().items()}
    tree = json.dumps([__version__, describe(flow)], sort_keys=True, default=str)
    return hashlib.sha256(tree.encode() + save(tensors)).hexdigest()
