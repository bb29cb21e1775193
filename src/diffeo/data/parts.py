"""Tables as three parts of rows, checked, split and stored: in memory, or memory-mapped in a folder of the cache."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, InputError
from .checks import FEWEST_ROWS, check_columns
from .split import PARTS, Sorter, content_keys, record_type, row_keys, split_pieces
from .table import Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

LARGE = 2**26  # bytes of rows from which on they go to the cache
_RANGE_BYTES = 2**26  # of rows sorted at once
_BLOCK_BYTES = 2**22
_META = "parts.json"


@dataclass(frozen=True)
class Source:
    """What was opened: one table to be split, or up to three, with labels perhaps."""

    name: str  # in messages
    tables: dict[str, Table]  # "train" and perhaps "validation" and "test"
    labels: dict[str, NDArray[np.int64]] | None = None
    notes: list[str] = field(default_factory=list)
    typed: bool = (
        False  # entries of columns that may be levels: constants and copies are no mistake
    )


@dataclass(frozen=True)
class Parts:
    """Rows [n, *event] of each part, labels [n] perhaps, and how they came about."""

    rows: dict[str, Array]
    labels: dict[str, Array] | None
    columns: tuple[str, ...] | None
    levels: int | None
    notes: list[str]


class _Writer:
    """Rows and labels of a part as they come, in memory or in two files."""

    def __init__(self, folder: Path | None, part: str) -> None:
        self.folder, self.part = folder, part
        self.n = 0
        self._rows: list[Array] = []
        self._labels: list[Array] = []

    def add(self, rows: Array, labels: Array) -> None:
        import numpy as np

        self.n += len(rows)
        if self.folder is None:
            self._rows.append(rows)
            self._labels.append(labels)
            return
        for what, values in (("rows", rows), ("labels", labels)):
            with _part_file(self.folder, self.part, what).open("ab") as file:
                np.ascontiguousarray(values).tofile(file)  # tenfold slower by strides

    def held(self) -> tuple[Array, Array]:
        import numpy as np

        rows, labels = np.concatenate(self._rows), np.concatenate(self._labels)
        self._rows, self._labels = [rows], [labels]
        return rows, labels


def _part_file(folder: Path, part: str, what: str) -> Path:
    return folder / f"{part}.{what}"


def is_large(source: Source, levels: int | None) -> bool:
    """Whether the rows take so much memory that they belong on disk; those of a .npz are in memory already."""
    return _bytes(source, levels) > LARGE


def _bytes(source: Source, levels: int | None) -> int:
    total = 0
    for table in source.tables.values():
        if table.path.suffix.lower() == ".npz":
            continue
        item = 4 if table.real else 1 if (levels or table.levels or 257) <= 256 else 8
        each = item * math.prod(table.event_shape)
        total += table.path.stat().st_size if table.rows is None else table.rows * each
    return total


def make_parts(
    source: Source,
    *,
    seed: int,
    split: Sequence[float],
    levels: int | None,
    bits: int | None,
    folder: Path | None = None,
) -> Parts:
    """Read, check and split; with a folder the rows are stored there and memory-mapped. Raises DataError."""
    tables, levels, notes = _with_levels(source, levels, bits)
    table = tables["train"]
    # Integers in a table repeat by nature: kept together, no part would hold the values of another.
    by_content = not source.typed and (table.levels is None or len(table.event_shape) > 1)
    missing = [part for part in PARTS[1:] if part not in tables]
    ranges = (
        0 if folder is None else max(0, math.ceil(math.log2(_bytes(source, levels) / _RANGE_BYTES)))
    )
    sorter = Sorter(folder, min(ranges, 10))
    writers = {part: _Writer(folder, part) for part in PARTS}
    _fill(source, tables, sorter if missing else None, writers, seed, by_content, notes)
    if missing:
        for part, records in split_pieces(sorter, missing, split, source.name):
            writers[part].add(records["row"], records["label"])
        notes.append(_split_note(missing, split, seed, by_content, sorter.copies))
    else:
        notes.append("parts as given")
    shape, kind = (
        table.event_shape,
        "float32" if levels is None else "uint8" if levels <= 256 else "int64",
    )
    meta = {
        "shapes": {part: [writer.n, *shape] for part, writer in writers.items()},
        "dtype": kind,
        "labels": source.labels is not None,
        "columns": table.columns,
        "levels": levels,
        "notes": notes,
    }
    if folder is None:
        held = {part: writer.held() for part, writer in writers.items()}
        parts = _parts({p: h[0] for p, h in held.items()}, {p: h[1] for p, h in held.items()}, meta)
    else:
        (folder / _META).write_text(json.dumps(meta))
        parts = open_parts(folder)
    if levels is None and len(shape) == 1 and not source.typed:
        check_columns(parts.rows["train"], table.columns, source.name, _block_rows(table))
    return parts


def write_parts(folder: Path, blocks: Iterable[tuple[str, Array]], *, notes: list[str]) -> None:
    """Blocks of float32 rows with the part that each belongs to, for `open_parts`."""
    import numpy as np

    writers = {part: _Writer(folder, part) for part in PARTS}
    shape: list[int] = []
    for part, rows in blocks:
        writers[part].add(rows, np.zeros(0, np.int64))
        shape = list(rows.shape[1:])
    meta = {
        "shapes": {part: [writer.n, *shape] for part, writer in writers.items()},
        "dtype": "float32",
        "labels": False,
        "columns": None,
        "levels": None,
        "notes": notes,
    }
    (folder / _META).write_text(json.dumps(meta))


def open_parts(folder: Path) -> Parts:
    """Stored parts, memory-mapped: changes in memory never reach the files."""
    import numpy as np

    meta = json.loads((folder / _META).read_text())
    rows, labels = {}, {}
    for part, shape in meta["shapes"].items():
        # Mode c, not r: torch warns of tensors on memory that cannot be written.
        rows[part] = np.memmap(
            _part_file(folder, part, "rows"), meta["dtype"], "c", shape=tuple(shape)
        )
        file = _part_file(folder, part, "labels")
        labels[part] = (
            np.memmap(file, "int64", "c", shape=shape[0]) if meta["labels"] else rows[part]
        )
    return _parts(rows, labels, meta)


def _parts(rows: dict[str, Any], labels: dict[str, Any], meta: dict[str, Any]) -> Parts:
    columns = meta["columns"]
    return Parts(
        rows,
        labels if meta["labels"] else None,
        None if columns is None else tuple(columns),
        meta["levels"],
        meta["notes"],
    )


def _fill(
    source: Source,
    tables: dict[str, Table],
    sorter: Sorter | None,
    writers: dict[str, _Writer],
    seed: int,
    by_content: bool,
    notes: list[str],
) -> None:
    """Read each table once: training rows into the sorter where they are to be split, all others as they are."""
    import numpy as np

    seen: dict[str, list[Array]] = {}
    for part, table in tables.items():
        n = 0
        for rows in table.batches(_block_rows(table)):
            last = n + len(rows)
            labels = np.zeros(0, np.int64) if source.labels is None else source.labels[part][n:last]
            keys = content_keys(rows, seed) if by_content else row_keys(n, len(rows), seed)
            if part == "train" and sorter is not None:
                records = np.empty(len(rows), record_type(rows))
                records["key"], records["row"] = keys, rows
                records["label"] = labels if len(labels) else 0
                sorter.add(records)
            else:
                writers[part].add(rows, labels)
            if len(tables) > 1 and by_content:
                seen.setdefault(part, []).append(keys)
            n = last
        fewest = FEWEST_ROWS if part == "train" else 1
        if n < fewest:
            raise DataError(f"{table.name or table.path} has {n} rows, expected at least {fewest}.")
    if seen:
        train = np.unique(np.concatenate(seen.pop("train")))
        notes += [
            note for part, keys in seen.items() if (note := _overlap(part, keys, train, source))
        ]


def _overlap(part: str, keys: list[Array], train: Array, source: Source) -> str:
    """A note on the rows of a given part that are training rows, too. Raises DataError if all are."""
    import numpy as np

    n = sum(len(k) for k in keys)
    copies = sum(int(np.count_nonzero(np.isin(k, train))) for k in keys)
    if copies == n:
        raise DataError(
            f"{source.name}: all {n} rows of the {part} part are also in the training part, "
            "expected other rows; give different data for each part."
        )
    return f"{copies} of {n} given {part} rows are also training rows" if copies else ""


def _block_rows(table: Table) -> int:
    return min(2**16, max(1, _BLOCK_BYTES // (4 * math.prod(table.event_shape))))


def _split_note(
    missing: Sequence[str], split: Sequence[float], seed: int, by_content: bool, copies: int
) -> str:
    if len(missing) == 2:
        shares = "/".join(f"{100 * share:g}" for share in split)
        note = f"random {shares} split, seed {seed}"
    else:
        share = split[PARTS.index(missing[0])]
        note = f"{missing[0]} is a random {100 * share:g}% of the given training rows, seed {seed}"
    if not by_content:
        return f"{note}, row by row (equal rows of integers are no copies)"
    note += ", equal rows in one part"
    return f"{note} ({copies} copies)" if copies else note


def _with_levels(
    source: Source, levels: int | None, bits: int | None
) -> tuple[dict[str, Table], int | None, list[str]]:
    """The tables as integers where they are, the number of levels (None for real numbers), and notes."""
    tables, notes = source.tables, list(source.notes)
    train = tables["train"]
    if levels is not None:
        notes.append(f"{levels} levels as given")
    elif train.levels is not None:
        levels = train.levels
    elif not train.real and len(train.event_shape) == 1:
        notes.append("integers taken as continuous (no levels given)")
    elif not train.real:
        levels, note = _infer_levels(tables)
        notes.append(note)
    if bits is not None:
        if levels != 256:
            held = "real numbers" if levels is None else f"integers of {levels} levels"
            raise InputError(
                f"bits = {bits} is for integers of 256 levels, {source.name} holds {held}."
            )
        notes.append(f"{bits} of 8 bits kept")
    made, note = {}, ""
    for part, table in tables.items():
        table, note = table.with_levels(levels)
        made[part] = replace(table, bits=bits)
    notes += [note] if note else []
    return made, levels if bits is None else 2**bits, notes


def _infer_levels(tables: dict[str, Table]) -> tuple[int, str]:
    lowest, highest, kind = 0, 0, ""
    for table in tables.values():
        for block in table.blocks(0, _block_rows(table)):
            lowest = min(lowest, int(block.values.min()))
            highest = max(highest, int(block.values.max()))
            kind = block.values.dtype.kind
        if lowest < 0:
            raise DataError(f"{table.path} holds the integer {lowest}, expected levels from 0 on.")
    if kind == "b":
        return 2, "2 levels (booleans)"
    if highest < 256:
        return 256, "256 levels (none given)"
    return highest + 1, f"{highest + 1} levels (the largest value plus 1, none given)"
