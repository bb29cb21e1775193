"""Rows as files, written chunk by chunk: .npy, .csv, .parquet, or one .png grid of pictures; whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from ..data.strings import Strings
from ..errors import InputError
from ..parts import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST_PICTURES = 4096


def check_suffix(path: Path, suffixes: Sequence[str], what: str) -> None:
    """Raise InputError unless the path ends in one of the suffixes and is no folder."""
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{what} are written as {', '.join(suffixes)}, got {path.name!r}")
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected the name of a file to write")


def check_not_input(path: Path, source: Path) -> None:
    """Raise InputError for an output that would replace what is read."""
    if path.exists() and source.exists() and path.samefile(source):
        raise InputError(f"{path} is what is read: choose another name to write")


def check_rows_output(
    path: Path, event_shape: Shape, what: str, *, flat: bool = False, text: bool = False
) -> None:
    """Raise InputError if rows of this shape cannot be written under this name.

    flat: a table may flatten them. text: they are codes of strings.
    """
    more = ((".txt",) if text else ()) + (() if flat else (".png",))
    check_suffix(path, (".npy", ".csv", ".parquet", *more), what)
    kind = path.suffix.lower()
    if kind == ".png" and (len(event_shape) != 3 or event_shape[0] not in (1, 3)):
        raise InputError(
            f"only images of 1 or 3 channels make a .png, not events of shape {event_shape}: use .npy"
        )
    if kind in (".csv", ".parquet") and len(event_shape) != 1 and not flat:
        raise InputError(f"only vectors make a {kind}, not events of shape {event_shape}: use .npy")


def column_names(columns: Sequence[str] | None, size: int, letter: str) -> list[str]:
    """The given names if they fit, else letter0, letter1, ..."""
    if columns is not None and len(columns) == size:
        return list(columns)
    return [f"{letter}{i}" for i in range(size)]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place at the end, or goes if anything is raised.

    Raises InputError where there can be no such file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix
        )
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        settle(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def settle(temporary: Path, path: Path) -> None:
    """Rename a finished file, once its content is on the disk."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.chmod(0o644)
    temporary.replace(path)


@contextmanager
def rows_output(
    path: Path,
    names: Sequence[str],
    *,
    levels: int | None = None,
    strings: Strings | None = None,
) -> Iterator[Callable[[Array], None]]:
    """A function that takes chunks of rows [n, *event] in order; the file appears at the end.

    Tables get the flattened events under `names`, a .txt file a line for each of the `strings` that they are codes of.
    """
    kind = path.suffix.lower()
    with replacing(path) as temporary:
        if kind == ".txt" and strings is not None:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                yield lambda x: file.writelines(f"{s}\n" for s in strings.decode(x))
        elif kind == ".npy":
            with _npy(temporary) as write:
                yield write
        elif kind == ".png":
            with _png(temporary, levels) as write:
                yield write
        else:
            with table_output(temporary) as write_table:
                yield lambda x: write_table(_table(x, names))


@contextmanager
def table_output(path: Path) -> Iterator[Callable[[Any], None]]:
    """A function that appends pyarrow tables of one schema to a .csv or .parquet file."""
    writer: Any = None
    with path.open("wb") as file:

        def write(table: Any) -> None:
            nonlocal writer
            writer = writer or _table_writer(file, table.schema, path.suffix.lower())
            writer.write_table(table)

        try:
            yield write
        finally:
            if writer is not None:
                writer.close()


def _table_writer(file: BinaryIO, schema: Any, kind: str) -> Any:
    if kind == ".parquet":
        from pyarrow.parquet import ParquetWriter

        return ParquetWriter(file, schema)
    from pyarrow.csv import CSVWriter, WriteOptions

    # pyarrow puts all text in quotes, which a header does not need.
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(schema.names)
    file.write(text.getvalue().encode())
    return CSVWriter(
        file, schema, write_options=WriteOptions(include_header=False, quoting_style="needed")
    )


def _table(x: Array, names: Sequence[str]) -> Any:
    import pyarrow

    flat = x.reshape(len(x), -1)
    return pyarrow.table({name: flat[:, i] for i, name in enumerate(names)})


@contextmanager
def _npy(path: Path) -> Iterator[Callable[[Array], None]]:
    """An array whose length is known at the end only: numpy leaves room in the header for it."""
    import numpy as np

    rows, first = 0, None

    def header(shape: tuple[int, ...], like: Array) -> None:
        np.lib.format.write_array_header_1_0(
            file,
            {
                "shape": shape,
                "fortran_order": False,
                "descr": np.lib.format.dtype_to_descr(like.dtype),
            },
        )

    with path.open("r+b") as file:

        def write(x: Array) -> None:
            nonlocal rows, first
            if first is None:
                first = x[:0]
                header(first.shape, first)
            rows += len(x)
            file.write(np.ascontiguousarray(x).tobytes())

        yield write
        if first is not None:
            file.seek(0)
            header((rows, *first.shape[1:]), first)


@contextmanager
def _png(path: Path, levels: int | None) -> Iterator[Callable[[Array], None]]:
    import numpy as np

    from ..report.pictures import Scaling, image_grid

    chunks: list[Array] = []

    def write(x: Array) -> None:
        chunks.append(x)
        if (n := sum(map(len, chunks))) > MOST_PICTURES:
            raise InputError(
                f"a .png holds a grid of at most {MOST_PICTURES} pictures, got {n} or more: use .npy"
            )

    yield write
    x = torch.from_numpy(np.concatenate(chunks))
    columns = min(len(x), max(8, round(len(x) ** 0.5)))
    path.write_bytes(image_grid(x, Scaling.of(x, levels), columns, cell=32))
