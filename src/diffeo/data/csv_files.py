"""A .csv file as a table: read in blocks of text by pyarrow, and line by line where that finds a misfit."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from ..errors import DataError
from .readers import open_binary, select, sentence
from .table import Block, Table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

BLOCK_BYTES = 2**22
_DELIMITERS = ",;\t"
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+(e[-+]?\d+)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class _Format:
    path: Path
    delimiter: str
    header: list[str] | None
    width: int
    wanted: list[int]  # columns to read, in this order
    body: int  # where the rows start, in bytes
    line: int  # the line there, counted from 1

    def name(self, column: int) -> str:
        return f"column {self.header[column]!r}" if self.header else f"column {column}"


def csv_table(path: Path, columns: tuple[str, ...] | None = None) -> Table:
    """A table of numbers; its first row is a header if it holds text and no number."""
    first, delimiter, body, line = head(path)
    header = [cell.strip() for cell in first] if is_header(first) else None
    wanted, names = select(path, header, len(first), columns)
    if header is None:
        body, line = _skip_mark(path), 1
    form = _Format(path, delimiter, header, len(first), wanted, body, line)

    def blocks(start: int, size: int) -> Iterator[Block]:
        row = 0
        for values, lines in _blocks(form):
            skip = max(0, start - row)
            for a in range(skip, len(values), size):
                yield Block(values[a : a + size], lines[a : a + size])
            row += len(values)

    return Table(path, names, None, (len(wanted),), True, blocks)


def _skip_mark(path: Path) -> int:
    # Spreadsheets write a byte order mark, which would become part of the first cell.
    with open_binary(path) as file:
        return 3 if file.read(3) == b"\xef\xbb\xbf" else 0


def head(path: Path) -> tuple[list[str], str, int, int]:
    """Cells of the first row, the delimiter, and where the next row starts: byte and line."""
    line = 1
    with open_binary(path) as file:
        file.seek(_skip_mark(path))
        while text := _whole_rows(file, file.readline()):
            count = text.count(b"\n")
            decoded = _decode(path, text, line)
            delimiter = max(_DELIMITERS, key=decoded.count)
            try:
                cells = next(csv.reader(io.StringIO(decoded, newline=""), delimiter=delimiter), [])
            except csv.Error as error:
                raise DataError(f"{path} is not a readable csv file: {sentence(error)}") from error
            line += count
            if cells:
                return cells, delimiter, file.tell(), line
    raise DataError(f"{path} holds no row of numbers.")


def _whole_rows(file: BinaryIO, text: bytes) -> bytes:
    """The text with more lines until no cell is cut at a line break inside quotes."""
    while text.count(b'"') % 2 and (more := file.readline()):
        text += more
    return text


def _decode(path: Path, text: bytes, line: int) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        line += text.count(b"\n", 0, error.start)
        raise DataError(
            f"{path}, line {line} holds the byte {text[error.start]:#x}, expected text in UTF-8; "
            "save the file in UTF-8."
        ) from error


def _blocks(form: _Format) -> Iterator[tuple[Values, Sequence[int]]]:
    row, line = 0, form.line
    with open_binary(form.path) as file:
        file.seek(form.body)
        while text := file.read(BLOCK_BYTES):
            text = _whole_rows(file, text + file.readline())
            values = _parse_fast(form, text)
            lines: Sequence[int] = range(line, line + len(text))
            if values is None:
                values, lines = _parse_slowly(form, _decode(form.path, text, line), row, line)
            yield values, lines
            row += len(values)
            line += text.count(b"\n")
    if not row:
        raise DataError(f"{form.path} holds no row of numbers.")


def _parse_fast(form: _Format, text: bytes) -> Values | None:
    """The rows of a block, or None unless every line is a row of numbers."""
    import numpy as np
    import pyarrow
    from pyarrow import csv as arrow

    names = [str(i) for i in range(form.width)]
    kept = [names[i] for i in form.wanted]
    try:
        found = arrow.read_csv(
            io.BytesIO(text),
            arrow.ReadOptions(column_names=names, block_size=len(text) + 1),
            arrow.ParseOptions(delimiter=form.delimiter),
            arrow.ConvertOptions(
                column_types=dict.fromkeys(kept, pyarrow.float64()),
                include_columns=kept,
                null_values=[],
            ),
        )
    except pyarrow.ArrowInvalid:
        return None
    if found.num_rows != text.count(b"\n") + (not text.endswith(b"\n")):
        return None  # blank lines, or line breaks in quotes: the lines of the rows must be counted
    return np.stack([column.to_numpy() for column in found.columns], axis=1)


def _parse_slowly(form: _Format, text: str, row: int, line: int) -> tuple[Values, Sequence[int]]:
    import numpy as np

    values: list[list[float]] = []
    lines: list[int] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=form.delimiter)
    try:
        for cells in reader:
            if not cells:
                continue
            number = line + reader.line_num - 1
            place = f"{form.path}, row {row + len(values)} (line {number})"
            if len(cells) != form.width:
                raise DataError(
                    f"{place} has {len(cells)} cells, expected {form.width} as in the rows above."
                )
            try:
                values.append([_number(cells[i]) for i in form.wanted])
            except ValueError:
                _refuse(form, cells, place)
            lines.append(number)
    except csv.Error as error:
        raise DataError(f"{form.path} is not a readable csv file: {sentence(error)}") from error
    return np.array(values, dtype=np.float64).reshape(-1, len(form.wanted)), lines


def _number(cell: str) -> float:
    if "_" in cell:  # float takes 1_000, no other program does
        raise ValueError
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def is_header(cells: Sequence[str]) -> bool:
    """Whether the cells of a first row are names: text, and no number."""
    texts = [cell for cell in cells if cell.strip()]
    return bool(texts) and not any(_is_number(cell) for cell in texts)


def _refuse(form: _Format, cells: Sequence[str], place: str) -> NoReturn:
    if form.header is not None and [cell.strip() for cell in cells] == form.header:
        raise DataError(f"{place} repeats the header, expected numbers; remove that line.")
    column = next(i for i in form.wanted if not _is_number(cells[i]))
    cell, name = cells[column], form.name(column)
    if not cell.strip():
        raise DataError(f"{place}, {name} is empty; fill in or drop missing values.")
    shown = repr(cell if len(cell) <= 40 else cell[:40] + " ...")
    advice = "drop the column or code it as numbers"
    if _DECIMAL_COMMA.fullmatch(cell):
        advice = "write decimals with a point"
    elif form.delimiter != ";" and ";" in cell:
        advice = "use one separator (comma, semicolon or tab) and decimals with a point"
    elif form.width == 1 and len(re.split(r"[\s|:]+", cell.strip())) > 1:
        advice = "separate columns by commas, semicolons or tabs"
    elif form.header is None and place.endswith(" row 0 (line 1)"):
        advice = "a header must hold no number, and a row no text"
    raise DataError(f"{place}, {name} holds {shown}, expected a number; {advice}.")
