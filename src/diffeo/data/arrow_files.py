"""A .csv or .parquet file as Arrow tables of any column types, in constant memory; a csv's cells are text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from .codec import columns_of
from .csv_files import BLOCK_BYTES, head, is_header
from .parquet_files import open_parquet
from .readers import select, sentence

SUFFIXES = (".csv", ".parquet")


def check_typed(path: Path) -> Path:
    """The path of a table file that is there. Raises DataError."""
    if path.is_dir() or path.suffix.lower() not in SUFFIXES:
        what = "is a folder" if path.is_dir() else "is no .csv or .parquet file"
        raise DataError(f"{path} {what}, expected a table with named columns in .csv or .parquet.")
    if not path.exists():
        raise DataError(f"there is no file {path}.")
    return path


def arrow_names(path: Path) -> tuple[str, ...]:
    """Names of the columns of a file. Raises DataError."""
    if check_typed(path).suffix.lower() == ".parquet":
        with open_parquet(path) as file:
            names = list(file.schema_arrow.names)
    else:
        names = [cell.strip() for cell in _header(path)[0]]
    return select(path, names, len(names), None)[1] or ()


def arrow_tables(
    path: Path, columns: tuple[str, ...] | None, size: int, start: int = 0
) -> Iterator[Any]:
    """Tables of at most `size` rows with these columns (all: None), from row `start` on. Raises DataError."""
    names = arrow_names(path)
    wanted = names if columns is None else columns
    reader = _parquet(path, size) if path.suffix.lower() == ".parquet" else _csv(path, names)
    for table in reader:
        if start >= len(table):
            start -= len(table)
            continue
        table, start = columns_of(table.slice(start), wanted, str(path)), 0
        for at in range(0, len(table), size):
            yield table.slice(at, size)


def _header(path: Path) -> tuple[list[str], str]:
    cells, delimiter, _, _ = head(path)
    if not is_header(cells):
        raise DataError(
            f"{path}: its first line is no header of names ({', '.join(cells[:3])}, ...); write the column names there."
        )
    return cells, delimiter


def _parquet(path: Path, size: int) -> Iterator[Any]:
    import pyarrow

    with open_parquet(path) as file:
        try:
            for batch in file.iter_batches(size):
                yield pyarrow.Table.from_batches([batch])
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a readable parquet file: {sentence(error)}") from error


def _csv(path: Path, names: tuple[str, ...]) -> Iterator[Any]:
    import pyarrow
    from pyarrow import csv

    raw, delimiter = _header(path)
    try:
        reader = csv.open_csv(
            path,
            csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            csv.ConvertOptions(
                column_types=dict.fromkeys(raw, pyarrow.string()),
                strings_can_be_null=False,
                null_values=[],
            ),
        )
        for batch in reader:
            yield pyarrow.Table.from_batches([batch]).rename_columns(list(names))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a readable csv file: {sentence(error)}") from error
