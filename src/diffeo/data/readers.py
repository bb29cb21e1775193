"""Files as arrays: .npy and .npz, never a pickle, every misfit in one sentence."""

from __future__ import annotations

import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ..errors import DataError
from .checks import listing, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

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


def open_binary(path: Path) -> BinaryIO:
    """An open file that is not empty. Raises DataError."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty.")
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def read_npy(path: Path) -> Array:
    """The array of a file, memory-mapped."""
    import numpy as np

    with open_binary(path):
        pass
    try:
        return cast("Array", np.lib.format.open_memmap(path, mode="r"))
    except _BROKEN_FILE as error:
        raise _unreadable_array(str(path), error) from error


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of a file, in memory."""
    import numpy as np

    with open_binary(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                arrays = {}
                for member in archive.namelist():
                    name = member.removesuffix(".npy")
                    with archive.open(member) as stream:
                        try:
                            # Not numpy.load: that takes any file without the npy mark for a pickle.
                            value = np.lib.format.read_array(stream, allow_pickle=False)
                        except _BROKEN_FILE as error:
                            raise _unreadable_array(f"{path} ({name})", error) from error
                    arrays[name] = value
        except DataError:
            raise
        except _BROKEN_FILE as error:
            raise DataError(f"{path} is not a readable npz file: {sentence(error)}") from error
    if not arrays:
        raise DataError(f"{path} is empty: it holds no array.")
    return arrays


def main_array(path: Path, arrays: Mapping[str, Array]) -> str:
    """The name of the one array to work on: the only one, or images, data or x. Raises DataError."""
    candidates = list(arrays) if len(arrays) == 1 else ["images", "data", "x"]
    key = next((key for key in candidates if key in arrays), None)
    if key is None:
        raise DataError(
            f"{path} must hold one array, or one named train, images, data or x; "
            f"it holds {listed(arrays)}."
        )
    return key


def _unreadable_array(name: str, error: Exception) -> DataError:
    text = str(error)
    if "Object arrays" in text or "Python objects" in text:
        return DataError(
            f"{name} holds Python objects (a pickle), which diffeo never opens; "
            "save it as an array of numbers."
        )
    return DataError(f"{name} is not a readable npy array: {sentence(error)}")


def select(
    path: Path, header: Sequence[str] | None, width: int, columns: tuple[str, ...] | None
) -> tuple[list[int], tuple[str, ...] | None]:
    """Numbers and names of the wanted columns of a table with (or without) a header. Raises DataError."""
    if header is None:
        if columns is not None and len(columns) != width:
            raise DataError(
                f"{path} has no header and {width} columns, expected the {len(columns)} columns "
                f"{listing(columns)}."
            )
        return list(range(width)), columns
    for name in columns or ():
        if name not in header:
            raise DataError(
                f"{path} has no column {name!r} among its {len(header)} columns "
                f"({listing(header)}); {nearest(name, header)}"
            )
    wanted = tuple(header if columns is None else columns)
    if "" in wanted:
        raise DataError(
            f"{path}: column {header.index('')} has no name in the header; "
            "name it, drop it, or say which columns to use."
        )
    double = [name for name, count in Counter(header).items() if count > 1 and name in wanted]
    if double or len(set(wanted)) < len(wanted):
        name = double[0] if double else next(n for n, c in Counter(wanted).items() if c > 1)
        raise DataError(
            f"{path}: the column name {name!r} is there twice, expected different names; rename one."
        )
    return [header.index(name) for name in wanted], wanted


def listed(arrays: Mapping[str, Array]) -> str:
    """Names and shapes, for messages."""
    return listing([f"{name} {list(value.shape)}" for name, value in arrays.items()])


def sentence(error: BaseException) -> str:
    """The first line of an error as the end of a sentence."""
    text = (str(error) or type(error).__name__).splitlines()[0].strip()
    text = text if len(text) <= 150 else text[:150] + " ..."
    return text if text.endswith(".") else f"{text}."
