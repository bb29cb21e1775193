"""A .parquet file as a table, read one group of rows after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .readers import open_binary, select, sentence
from .table import Block, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def parquet_table(path: Path, columns: tuple[str, ...] | None = None) -> Table:
    """A table of the number columns of a file."""
    import pyarrow.types as types

    with open_parquet(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    _, names = select(path, list(schema.names), len(schema.names), columns)
    assert names is not None  # a parquet file has a header
    if not names:
        raise DataError(f"{path} has no column.")
    real = False
    for name in names:
        kind = schema.field(name).type
        if types.is_floating(kind):
            real = True
        elif not (types.is_integer(kind) or types.is_boolean(kind)):
            what = "nested values" if types.is_nested(kind) else f"values of type {kind}"
            raise DataError(
                f"{path}, column {name!r} holds {what}, expected numbers; "
                "drop the column or code it as numbers."
            )

    def blocks(start: int, size: int) -> Iterator[Block]:
        with open_parquet(path) as file:
            yield from _blocks(path, file, names, start, size)

    return Table(path, names, rows, (len(names),), real, blocks)


def open_parquet(path: Path) -> Any:
    """An open ParquetFile. Raises DataError."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    with open_binary(path):
        pass
    try:
        return ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: {sentence(error)}") from error


def _blocks(
    path: Path, file: Any, names: tuple[str, ...], start: int, size: int
) -> Iterator[Block]:
    from pyarrow import ArrowException

    row = 0
    groups: list[int] = []
    for group in range(file.metadata.num_row_groups):
        length = file.metadata.row_group(group).num_rows
        if groups or row + length > start:
            groups.append(group)
        else:
            row += length
    skip = start - row  # rows of the first group that is read
    row = start
    try:
        for batch in file.iter_batches(size, row_groups=groups, columns=list(names)):
            if skip >= len(batch):
                skip -= len(batch)
                continue
            batch, skip = batch.slice(skip), 0
            yield Block(_values(path, batch, names, row))
            row += len(batch)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable parquet file: {sentence(error)}") from error


def _values(path: Path, batch: Any, names: tuple[str, ...], row: int) -> Array:
    import numpy as np

    columns = []
    for name in names:
        column = batch.column(name)
        if column.null_count:
            null = column.is_null().to_numpy(zero_copy_only=False)
            raise DataError(
                f"{path}, row {row + int(np.flatnonzero(null)[0])}, column {name!r} is empty (null); "
                "fill in or drop missing values."
            )
        columns.append(column.to_numpy(zero_copy_only=False))
    return np.stack(columns, axis=1)
