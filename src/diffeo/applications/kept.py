"""Columns that go through unchanged, beside the columns that a model reads: names, keys, text."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data.checks import nearest
from ..data.images import picture_files
from ..data.strings import is_text, read_lines
from ..errors import DataError, InputError


def check_kept(path: Path, keep: Sequence[str], taken: Sequence[str]) -> None:
    """Raise InputError or DataError unless the file has these columns, and no name twice."""
    if not keep:
        return
    names = _names(path)
    for name in keep:
        if names is None:
            raise DataError(f"{path} has no column names, so no column {name!r} can be kept")
        if name not in names:
            raise DataError(f"{path} has no column {name!r}; {nearest(name, names)}")
        if name in taken:
            raise InputError(f"a column {name!r} is written already: rename it to keep it")
    if len(set(keep)) < len(keep):
        raise InputError(f"a column is kept twice: {', '.join(keep)}")


def kept_columns(path: Path, keep: Sequence[str], size: int, start: int) -> Iterator[Any]:
    """pyarrow tables of the kept columns of `size` rows each, from row `start` on; a csv's cells are text."""
    import pyarrow

    waiting: Any = None
    if path.is_dir():
        reader = _files(path)
    elif is_text(path):
        reader = _lines(path)
    elif path.suffix.lower() == ".parquet":
        reader = _parquet(path, keep, size)
    else:
        reader = _csv(path, keep)
    for table in reader:
        skip = min(start, len(table))
        start -= skip
        table = table.slice(skip)
        waiting = table if waiting is None else pyarrow.concat_tables([waiting, table])
        while len(waiting) >= size:
            yield waiting.slice(0, size)
            waiting = waiting.slice(size)
    if waiting is not None and len(waiting):
        yield waiting


def narrow(parts: Sequence[Path], names: Sequence[str]) -> dict[str, Any]:
    """The types of a csv's columns over all parts: int64 or float64 where every cell is written so, else text."""
    import pyarrow

    types = dict.fromkeys(names, pyarrow.int64())
    for part in parts:
        for name in names:
            while not pyarrow.types.is_string(types[name]) and not _fits(part, name, types[name]):
                integer = pyarrow.types.is_integer(types[name])
                types[name] = pyarrow.float64() if integer else pyarrow.string()
    return types


def _fits(part: Path, name: str, kind: Any) -> bool:
    """Whether every cell is a number of a kind; 007 is none, but a name."""
    import pyarrow
    from pyarrow import compute, parquet

    text = parquet.read_table(part, columns=[name]).column(name)
    if compute.any(compute.match_substring_regex(text, r"^[-+]?0[0-9]")).as_py():
        return False
    try:
        text.cast(kind)
    except pyarrow.ArrowInvalid:
        return False
    return True


def _names(path: Path) -> list[str] | None:
    if path.is_dir():
        return ["file"]
    if is_text(path):
        return ["string"]
    kind = path.suffix.lower()
    if kind == ".parquet":
        from pyarrow.parquet import read_schema

        return list(read_schema(path).names)
    if kind != ".csv":
        return None
    return next(_cells(path), None)


def _cells(path: Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        while first and not first.strip():
            first = file.readline()
        file.seek(0)
        rows = (row for row in csv.reader(file, delimiter=max(",;\t", key=first.count)) if row)
        yield [cell.strip() for cell in next(rows, [])]
        yield from rows


def _csv(path: Path, keep: Sequence[str], size: int = 2**14) -> Iterator[Any]:
    import pyarrow

    rows = _cells(path)
    names = next(rows)
    wanted = [names.index(name) for name in keep]

    def table(cells: list[list[str]]) -> Any:
        return pyarrow.table(
            {
                name: pyarrow.array([row[i] for row in cells])
                for name, i in zip(keep, wanted, strict=True)
            }
        )

    waiting: list[list[str]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == size:
            yield table(waiting)
            waiting = []
    if waiting:
        yield table(waiting)


def _lines(path: Path, size: int = 2**14) -> Iterator[Any]:
    import pyarrow

    lines = (line for _, line in read_lines(path))
    while block := list(itertools.islice(lines, size)):
        yield pyarrow.table({"string": pyarrow.array(block)})


def _files(folder: Path) -> Iterator[Any]:
    import pyarrow

    yield pyarrow.table({"file": [p.relative_to(folder).as_posix() for p in picture_files(folder)]})


def _parquet(path: Path, keep: Sequence[str], size: int) -> Iterator[Any]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        for batch in file.iter_batches(size, columns=list(keep)):
            yield pyarrow.Table.from_batches([batch]).select(list(keep))
