"""What makes rows usable: finite numbers that float32 can hold, integers in their range, columns that vary."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ..errors import DataError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

FEWEST_ROWS = 10


def check_number(name: str, value: object, lowest: int, highest: int | None = None) -> None:
    """Raise InputError unless the value is an integer in its range."""
    low = isinstance(value, bool) or not isinstance(value, int) or value < lowest
    if low or (highest is not None and cast("int", value) > highest):
        wanted = f"of {lowest} or more" if highest is None else f"in {lowest}..{highest}"
        raise InputError(f"{name} must be an integer {wanted}, got {value!r}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, or some of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if not close:
        lower = {k.lower(): k for k in known}
        close = [lower[c] for c in difflib.get_close_matches(name.lower(), lower, n=1)]
    return f"did you mean {close[0]!r}?" if close else f"known: {listing(known)}."


def listing(names: Sequence[str], most: int = 10) -> str:
    """Names with commas, the first ones of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True)
class Place:
    """Where a block of rows is in its file, for messages."""

    name: str
    row: int  # of its first row, counted from 0
    lines: Sequence[int] | None = None
    columns: tuple[str, ...] | None = None

    def of(self, row: int, column: int | None = None) -> str:
        """File, row and column of an entry of the block."""
        text = f"{self.name}, row {self.row + row}"
        if self.lines is not None:
            text += f" (line {self.lines[row]})"
        return text if column is None else f"{text}, {column_name(self.columns, column)}"


def column_name(columns: Sequence[str] | None, column: int) -> str:
    """A column as a message calls it."""
    return f"column {columns[column]!r}" if columns else f"column {column}"


def _first(wrong: Array, place: Place, is_table: bool) -> tuple[str, tuple[int, int]]:
    import numpy as np

    row, entry = (int(i) for i in np.argwhere(wrong)[0])
    return place.of(row, entry if is_table else None), (row, entry)


def check_finite(values: Array, place: Place) -> None:
    """Raise DataError for the first NaN or Inf of a block, with the number of such rows."""
    import numpy as np

    if values.dtype.kind != "f":
        return
    flat = cast("Any", values).reshape(len(values), -1)
    finite = np.isfinite(flat)
    if finite.all():
        return
    where, index = _first(~finite, place, values.ndim == 2)
    bad, last = int((~finite.all(1)).sum()), place.row + len(values) - 1
    more = f" ({bad} of the rows {place.row} to {last} hold NaN or Inf)" if bad > 1 else ""
    raise DataError(
        f"{where} holds {flat[index]!s}, expected a finite number{more}; fill in or drop it."
    )


def as_float32(values: Array, place: Place) -> NDArray[np.float32]:
    """A block in float32, own memory. Raises DataError for NaN, Inf and numbers beyond 3.4e38."""
    import numpy as np

    check_finite(values, place)
    with np.errstate(over="ignore"):
        single = np.array(values, dtype=np.float32, order="C")
    finite = np.isfinite(single.reshape(len(single), -1))
    if not finite.all():
        where, index = _first(~finite, place, values.ndim == 2)
        value = cast("Any", values).reshape(len(values), -1)[index]
        raise DataError(
            f"{where} holds {value:.6g}, beyond 3.4e38, the largest number in float32; scale the data."
        )
    return single


def as_levels(values: Array, levels: int, place: Place) -> Array:
    """A block of integers in 0..levels-1 as uint8, or as int64 above 256 levels. Raises DataError."""
    import numpy as np

    check_finite(values, place)
    flat = cast("Any", values).reshape(len(values), -1)
    wrong = (flat < 0) | (flat >= levels)
    if values.dtype.kind == "f":
        wrong |= flat != np.floor(flat)
    if wrong.any():
        where, index = _first(wrong, place, values.ndim == 2)
        raise DataError(
            f"{where} holds {flat[index]!s}, expected an integer in 0..{levels - 1} "
            f"(levels = {levels})."
        )
    dtype = np.uint8 if levels <= 256 else np.int64
    return np.array(values, dtype=dtype, order="C")


def check_columns(train: Array, columns: tuple[str, ...] | None, name: str, size: int) -> None:
    """Raise DataError for a column of [n, columns] that is constant or equal to another one, `size` rows at a time."""
    import numpy as np

    first = np.array(train[:size])
    seen: dict[bytes, int] = {}
    constant = np.ones(train.shape[1], dtype=bool)
    pairs = []
    for column in range(train.shape[1]):
        earlier = seen.setdefault(first[:, column].tobytes(), column)
        if earlier != column:
            pairs.append((earlier, column))
    for start in range(0, len(train), size):
        block = np.array(train[start : start + size])
        constant &= (block == first[0]).all(0)
        pairs = [(a, b) for a, b in pairs if np.array_equal(block[:, a], block[:, b])]
        if not constant.any() and not pairs:
            return
    if constant.any():
        which = [column_name(columns, int(i)) for i in np.flatnonzero(constant)]
        raise DataError(
            f"{name}: {listing(which, 3)} has one value in every training row, "
            "so the density would be infinite; drop it."
        )
    a, b = pairs[0]
    raise DataError(
        f"{name}: {column_name(columns, b)} is a copy of {column_name(columns, a)} in every training "
        "row, so the density would be infinite; drop one."
    )
