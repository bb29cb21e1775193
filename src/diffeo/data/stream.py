"""Tables of any size, read in constant memory and in the order of the file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import DataError
from .csv_files import csv_table
from .parquet_files import parquet_table
from .readers import main_array, read_npy, read_npz, select
from .strings import SUFFIXES as TEXT
from .strings import is_text, strings_of, text_table
from .table import Table, array_table

__all__ = ["Table", "fingerprint", "open_table"]

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")
_SAMPLE = 2**16  # bytes of the head and of the tail in a fingerprint


def open_table(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    levels: int | None = None,
) -> Table:
    """The rows of a .npy, .npz, .csv or .parquet file; .npz is read whole, the others in constant memory.

    `columns` selects and orders columns by name; a file without names must have as many.
    `levels` says that the values are the integers 0..levels-1.
    DataError in one sentence for a file that cannot be used.
    """
    table = read_table(Path(path).expanduser(), None if columns is None else tuple(columns))
    return table.with_levels(levels)[0]


def read_table(path: Path, columns: tuple[str, ...] | None) -> Table:
    """The rows of a file as they are in it. Raises DataError."""
    kind = check_file(path).suffix.lower()
    if is_text(path):
        if columns is not None:
            raise DataError(f"{path} holds strings, expected the columns {', '.join(columns)}.")
        return text_table(path, strings_of(path))
    if kind == ".csv":
        return csv_table(path, columns)
    if kind == ".parquet":
        return parquet_table(path, columns)
    if kind == ".npy":
        return with_columns(array_table(path, read_npy(path)), columns)
    arrays = read_npz(path)
    return with_columns(array_table(path, arrays[main_array(path, arrays)]), columns)


def with_columns(table: Table, names: tuple[str, ...] | None) -> Table:
    """A table without a header under the given names of its columns."""
    if names is None:
        return table
    if len(table.event_shape) != 1:
        raise DataError(
            f"{table.path} has rows of the shape {list(table.event_shape)}, "
            f"expected the {len(names)} columns of a table."
        )
    return replace(table, columns=select(table.path, None, table.event_shape[0], names)[1])


def check_file(path: Path) -> Path:
    """The path of a file that has a known ending and is there. Raises DataError."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, expected a file.")
    if path.suffix.lower() not in SUFFIXES and not is_text(path):
        there = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise DataError(
            f"{path} {there}, expected one of {', '.join((*SUFFIXES, *TEXT))} or a folder of pictures."
        )
    if not path.exists():
        raise DataError(f"there is no file {path}.")
    return path


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Size, time of change, and a hash of the first and last 64 KiB: equal for the same file. Raises DataError."""
    path = Path(path)
    try:
        status = path.stat()
        with path.open("rb") as file:
            digest = hashlib.sha256(file.read(_SAMPLE))
            file.seek(max(0, status.st_size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return f"{status.st_size}-{status.st_mtime_ns}-{digest.hexdigest()[:16]}"
