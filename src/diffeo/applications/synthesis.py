"""Synthetic tables of mixed columns, in the columns, order and types of the training file, and their checker."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..columns import Schema
from ..data.arrow_files import arrow_names, arrow_tables
from ..data.codec import arrow_type, decode, encode
from ..errors import DataError, InputError
from ..flow import Flow
from ..transforms.typed_columns import typed_columns
from .blocks import check_whole, default_batch, sample_rows
from .outputs import check_not_input, check_suffix, replacing, table_output
from .tables import check_engine, ordered_map

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FORMATS = (".csv", ".parquet")


def flow_schema(flow: Flow) -> Schema | None:
    """The schema of a flow of a table's columns; None for other flows, and where it has no file's columns."""
    layer = typed_columns(flow)
    return None if layer is None else layer.schema


def synthesize(
    flow: Flow,
    n: int | None,
    out: str | os.PathLike[str],
    *,
    given: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
    engine: str = "local",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write n synthetic rows to a .csv or .parquet file with the columns of the training file, in constant memory.

    given: for a model with given columns, their values by name, or a file with them; then n rows (1 unless said) for
    each row of the file, one after another. Row i depends on the seed and i alone. engine: `local`, or `ray`, where the
    workers of a cluster draw. Raises InputError, DataError or ConfigError.
    """
    path, schema = Path(out), _schema(flow)
    check_suffix(path, FORMATS, "synthetic tables")
    check_engine(engine)
    check_whole("seed", seed, 0)
    contexts = _contexts(schema, given)
    each = n if n is not None else (1 if isinstance(given, str | os.PathLike) else 64)
    check_whole("the number of rows", each, 1)
    total = each * (1 if contexts is None else len(contexts))
    if not temperature >= 0:
        raise InputError(f"temperature must be zero or more, got {temperature}")
    if isinstance(given, str | os.PathLike):
        check_not_input(path, Path(given))
    size = default_batch(flow) if batch_size is None else batch_size
    check_whole("batch_size", size, 1)
    flow.eval()
    drawn = _Drawn(flow, total, size, seed, temperature, contexts, each)
    starts = range(0, total, size)
    with replacing(path) as temporary, table_output(temporary) as write:
        for start, x in zip(starts, ordered_map(drawn.itself, starts, engine), strict=True):
            context = drawn.context(start)
            write(decode(x, schema, None if context is None else _numpy(context)))
            if progress is not None:
                progress(start + len(x), total)
    return path


@dataclass
class _Drawn:
    """Rows of samples by the number of the first, `each` of them for each row of the contexts."""

    flow: Flow
    total: int
    size: int
    seed: int
    temperature: float
    contexts: Tensor | None
    each: int

    def itself(self) -> _Drawn:
        return self

    def context(self, start: int) -> Tensor | None:
        if self.contexts is None:
            return None
        rows = torch.arange(start, min(self.total, start + self.size)) // self.each
        return self.contexts[rows].to(self.flow.device, self.flow.dtype)

    def __call__(self, start: int) -> Any:
        x = sample_rows(
            self.flow,
            start,
            min(self.total, start + self.size),
            context=self.context(start),
            seed=self.seed,
            temperature=self.temperature,
        )
        return _numpy(x)


def _schema(flow: Flow) -> Schema:
    schema = flow_schema(flow)
    if schema is None:
        raise InputError("this model is not of a table of mixed columns: train tabular on one")
    return schema


def _numpy(x: Tensor) -> Any:
    return x.detach().cpu().double().numpy()


def _contexts(schema: Schema, given: Any) -> Tensor | None:
    """Entries [n, context] of the conditions. Raises InputError where they are missing, or not wanted."""
    names = [c.name for c in schema.conditions]
    if not names:
        if given:
            raise InputError(
                "this model was trained without given columns: train with --given COLUMN, or write a file with the "
                "known cells filled in and use diffeo impute"
            )
        return None
    if not given:
        raise InputError(f"this model is conditional: give {', '.join(names)}")
    if isinstance(given, Mapping):
        for name in (*names, *given):
            if name not in given or name not in names:
                what = "is missing" if name in names else "is not given in this model"
                raise InputError(
                    f"the column {name!r} {what}: it was trained given {', '.join(names)}"
                )
        return _encoded(_row(schema, given), schema, 0, "the given values")
    path = Path(given).expanduser()
    for name in names:
        if name not in arrow_names(path):
            raise DataError(f"{path} has no column {name!r}, which this model is given")
    found, row = [], 0
    for table in arrow_tables(path, tuple(names), 2**14):
        found.append(_encoded(table, schema, row, str(path)))
        row += len(table)
    if not row:
        raise DataError(f"{path} holds no row")
    return torch.cat(found)


def _row(schema: Schema, given: Mapping[str, Any]) -> Any:
    """One row of text, as in a csv."""
    import pyarrow

    cells = {k: "" if v is None else str(v) for k, v in given.items()}
    return pyarrow.table({c.name: [cells[c.name]] for c in schema.conditions})


def _encoded(table: Any, schema: Schema, row: int, name: str) -> Tensor:
    only = Schema(schema.conditions)  # as if they were events
    return torch.from_numpy(encode(table, only, row=row, name=name)).float()


@dataclass(frozen=True)
class Violation:
    """A cell, or a column, that does not belong to a schema."""

    column: str
    row: int | None
    message: str

    def __str__(self) -> str:
        where = f"row {self.row}, " if self.row is not None else ""
        return f"{where}column {self.column!r}: {self.message}"


def check_table(
    table: str | os.PathLike[str] | Any, schema: Schema | Flow, *, most: int = 1000
) -> list[Violation]:
    """What of a table (a file, or an Arrow table) violates a schema: at most `most` cells and columns.

    Names and order of the columns, types (of a .parquet or Arrow table), bounds, unknown categories, fractions among
    integers, and empty cells where none are allowed. An empty list: it is a table of the schema.
    """
    known = _schema(schema) if isinstance(schema, Flow) else schema
    whole: Any = None if isinstance(table, str | os.PathLike) else table
    file = Path() if whole is not None else Path(table)
    names = arrow_names(file) if whole is None else tuple(whole.column_names)
    found = [Violation(name, None, "is missing") for name in known.names if name not in names]
    found += [
        Violation(n, None, "is no column of the schema") for n in names if n not in known.names
    ]
    shared = tuple(name for name in known.names if name in names)
    if not found and names != known.names:
        found.append(Violation(names[0], None, "the columns are in another order"))
    pieces = arrow_tables(file, shared, 2**14) if whole is None else iter([whole.select(shared)])
    typed = whole is not None or file.suffix.lower() == ".parquet"
    row = 0
    for piece in pieces:
        for name in shared:
            column = known.column(name)
            kind = piece.schema.field(name).type
            if typed and row == 0 and not _same_type(kind, arrow_type(column.type)):
                found.append(Violation(name, None, f"has the type {kind}, expected {column.type}"))
            found += _cells(piece, Schema((column,)), name, row, most - len(found))
        row += len(piece)
        if len(found) >= most:
            break
    return found[:most]


def _same_type(kind: Any, wanted: Any) -> bool:
    """Equal but for the unit of a time, which a file may have to change."""
    import pyarrow.types as types

    both = types.is_timestamp(kind) and types.is_timestamp(wanted)
    return bool(kind == wanted or (both and kind.tz == wanted.tz))


def _cells(piece: Any, schema: Schema, name: str, row: int, most: int) -> list[Violation]:
    """The cells of one column that its schema refuses: all at once if none, else one after another."""
    try:
        encode(piece, schema)
        return []
    except DataError:
        pass
    found: list[Violation] = []
    for i in range(len(piece)):
        if len(found) >= most:
            break
        try:
            encode(piece.slice(i, 1), schema)
        except DataError as error:
            text = str(error).split(f"{name!r} ", 1)[-1].split(";")[0]
            found.append(Violation(name, row + i, text))
    return found
