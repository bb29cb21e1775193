"""Files as arrays: .npy, .npz and .csv, never a pickle, every misfit in one sentence."""

from __future__ import annotations

import csv
import zipfile
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Table = NDArray[np.float64]

_BROKEN_FILE: tuple[type[Exception], ...] = (
    ValueError,
    EOFError,
    OSError,
    MemoryError,
    NotImplementedError,  # an unknown compression
    RuntimeError,  # a password
    zipfile.BadZipFile,
    zlib.error,
)
try:
    from lzma import LZMAError
except ImportError:  # Python built without it cannot meet the error either
    pass
else:
    _BROKEN_FILE += (LZMAError,)


@dataclass(frozen=True)
class Contents:
    """What a file holds: one array to be split, or the parts that it comes with."""

    parts: dict[str, Array]  # "train" and perhaps "validation" and "test"
    labels: Array | None = None  # of one array only
    columns: tuple[str, ...] | None = None
    lines: array[int] | None = None  # line of each row in a text file

    def place(self, row: int) -> str:
        return f"row {row}" if self.lines is None else f"row {row} (line {self.lines[row]})"


def npy_contents(path: Path) -> Contents:
    with _open(path) as file:
        return Contents({"train": _read_array(file, str(path))})


def npz_contents(path: Path) -> Contents:
    arrays = read_npz(path)
    aliases = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
    if "train" in arrays:
        return Contents({aliases[key]: value for key, value in arrays.items() if key in aliases})
    candidates = list(arrays) if len(arrays) == 1 else ["images", "data", "x"]
    key = next((key for key in candidates if key in arrays), None)
    if key is None:
        raise DataError(
            f"{path} must hold one array, or one named train, images, data or x; "
            f"it holds {listed(arrays)}."
        )
    labels = arrays.get("labels")
    if labels is not None and (
        labels.dtype.kind not in "biu" or labels.shape != arrays[key].shape[:1]
    ):
        raise DataError(
            f"{path}: 'labels' must be one integer a row of {key!r}, "
            f"got {labels.dtype} of shape {list(labels.shape)} for {list(arrays[key].shape)}."
        )
    return Contents({"train": arrays[key]}, labels)


def _open(path: Path) -> BinaryIO:
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty.")
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _read_array(file: BinaryIO, name: str) -> Array:
    import numpy as np

    try:
        # Not numpy.load: that takes any file without the npy mark for a pickle.
        return cast("Array", np.lib.format.read_array(file, allow_pickle=False))
    except _BROKEN_FILE as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{name} holds Python objects (a pickle), which diffeo never opens; "
                "save it as an array of numbers."
            ) from error
        raise DataError(f"{name} is not a readable npy array: {_sentence(error)}") from error


def read_npz(path: Path) -> dict[str, Array]:
    with _open(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                arrays = {}
                for member in archive.namelist():
                    with archive.open(member) as stream:
                        name = member.removesuffix(".npy")
                        arrays[name] = _read_array(cast("BinaryIO", stream), f"{path} ({name})")
        except DataError:
            raise
        except _BROKEN_FILE as error:
            raise DataError(f"{path} is not a readable npz file: {_sentence(error)}") from error
    if not arrays:
        raise DataError(f"{path} is empty: it holds no array.")
    return arrays


def csv_contents(path: Path) -> Contents:
    """A table of numbers; the first row is a header if it has text and no number."""
    import numpy as np

    with _open(path):  # an empty or unreadable file ends here
        pass
    columns: tuple[str, ...] | None = None
    width = 0
    values, lines = array("d"), array("l")
    try:
        # utf-8-sig, since spreadsheets write a byte order mark, which would become part of a name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            for cells in reader:
                if not cells:
                    continue
                if not width:
                    width = len(cells)
                    if _is_header(cells):
                        columns = tuple(c.strip() or f"column {i}" for i, c in enumerate(cells))
                        continue
                place = f"{path}, row {len(lines)} (line {reader.line_num})"
                if len(cells) != width:
                    raise DataError(f"{place} has {len(cells)} cells, the rows above have {width}.")
                values.extend(_parse_row(cells, columns, place))
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a readable csv file: {_sentence(error)}") from error
    if not lines:
        raise DataError(f"{path} holds no row of numbers.")
    table = np.frombuffer(values, dtype=np.float64).reshape(len(lines), width)
    return Contents({"train": table}, None, columns, lines)


def _is_header(cells: Sequence[str]) -> bool:
    texts = [cell for cell in cells if cell.strip()]
    return bool(texts) and not any(_is_number(cell) for cell in texts)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parse_row(cells: Sequence[str], columns: Sequence[str] | None, place: str) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        column = next(i for i, cell in enumerate(cells) if not _is_number(cell))
        name = f"column {columns[column]!r}" if columns else f"column {column}"
        if not cells[column].strip():
            raise DataError(f"{place}, {name} is empty; fill in or drop missing values.") from error
        raise DataError(
            f"{place}, {name} holds {cells[column]!r}, expected a number; "
            "drop the column or code it as numbers."
        ) from error


def listed(arrays: dict[str, Array]) -> str:
    return ", ".join(f"{name} {list(value.shape)}" for name, value in arrays.items())


def _sentence(error: BaseException) -> str:
    """The first line of an error as the end of a sentence."""
    text = (str(error) or type(error).__name__).splitlines()[0].strip()
    return text if text.endswith(".") else f"{text}."
