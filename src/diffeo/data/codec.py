"""Typed tables as events and back: Arrow columns to rows of numbers by a schema, and to the types of the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..columns import Column, Schema
from ..errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")
"""Cells of text that say that there is no value."""
UNKNOWN = -1.0
"""The entry of a value that is no level of its column: log p is -inf."""
_DAY = 86400.0


def encode(
    table: Any, schema: Schema, *, row: int = 0, name: str = "", strict: bool = True
) -> Array:
    """Rows [n, entries] of an Arrow table: the columns of the event, then those that are given, in their order.

    strict: a value outside of its column is a DataError that names row and column; else an entry outside the support.
    """
    import numpy as np

    parts: list[Array] = []
    for column in (*schema.events, *schema.conditions):
        values, gone = _encoded(table.column(column.name), column, row, name, strict)
        if gone.any() and not column.missing:
            if strict:
                at = int(np.flatnonzero(gone)[0])
                raise DataError(
                    f"{name}, row {row + at}, column {column.name!r} is empty, expected a value; fill it in, or "
                    "declare missing: true for the column."
                )
            values = np.where(gone, np.nan, values)
        elif column.kind == "categorical":
            values = np.where(gone, float(len(column.values)), values)
        else:
            values = np.where(gone, column.filling, values)
        parts.append(values)
        if column.flagged:
            parts.append(gone.astype(np.float64))
    return np.stack(parts, axis=1)


def decode(rows: Any, schema: Schema, given: Any = None) -> Any:
    """An Arrow table with the columns of the schema, in its order and types, from events, and rows of what is given."""
    import numpy as np
    import pyarrow

    found: dict[str, Any] = {}
    for columns, values in ((schema.events, rows), (schema.conditions, given)):
        if not columns:
            continue
        values, e = np.asarray(values), 0
        for column in columns:
            level = values[:, e]
            if column.kind == "categorical":
                gone = level == len(column.values)
            else:
                gone = values[:, e + 1] == 1 if column.flagged else np.zeros(len(level), bool)
            found[column.name] = _decoded(level, gone, column)
            e += column.width
    return pyarrow.table({name: found[name] for name in schema.names})


def absent(array: Any) -> Any:
    """Which values of an Arrow array are missing, as numpy booleans."""
    import numpy as np
    import pyarrow
    from pyarrow import compute

    gone = array.is_null().to_numpy(zero_copy_only=False)
    if is_text_type(array.type):
        tokens = pyarrow.array(MISSING, pyarrow.string())
        text = compute.utf8_trim_whitespace(array.cast(pyarrow.string()))
        gone = gone | compute.is_in(text, value_set=tokens).to_numpy(zero_copy_only=False)
    elif pyarrow.types.is_floating(array.type):
        gone = gone | np.isnan(array.cast(pyarrow.float64()).to_numpy(zero_copy_only=False))
    return np.asarray(gone, dtype=bool)


def flat(array: Any) -> Any:
    """One Arrow array of plain values: no chunks, no dictionary."""
    import pyarrow

    if isinstance(array, pyarrow.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(
        array, pyarrow.ChunkedArray
    ):  # of no chunk, or of several that do not fit into one
        array = (
            pyarrow.concat_arrays(array.chunks)
            if array.num_chunks
            else pyarrow.array([], array.type)
        )
    if pyarrow.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array


def is_text_type(kind: Any) -> bool:
    """Whether an Arrow type is text."""
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _encoded(
    chunked: Any, column: Column, row: int, name: str, strict: bool
) -> tuple[Array, NDArray[np.bool_]]:
    """Entries of one column, and which cells are empty."""
    import numpy as np
    import pyarrow
    from pyarrow import compute

    array = flat(chunked)
    gone = absent(array)
    there = ~gone
    # What is missing must not be read as a number.
    array = compute.if_else(pyarrow.array(gone), pyarrow.scalar(None, array.type), array)
    if column.kind in ("ordinal", "categorical"):
        values = _codes(array, column)
        bad = there & (values == UNKNOWN)
        wanted = (
            f"expected one of its {len(column.values)} values ({column.range.split(': ', 1)[-1]})"
        )
        shown: Any = array
    else:
        values = numbers(array, column.kind, name, row, column.name)
        shown = values
        if column.real:
            bad, wanted = _outside(values, column), f"expected {_wanted(column)}"
        else:
            level = (values - column.bounds[0]) / column.step
            whole = np.round(level)
            bad = ~((np.abs(level - whole) < 1e-6) & (whole >= 0) & (whole < column.levels))
            if column.kind == "datetime":
                # Finer times than the step are rounded to it.
                bad = ~((whole >= 0) & (whole < column.levels))
            wanted = f"expected {'an integer' if column.kind == 'integer' else 'a ' + column.kind} in {column.range}"
            values = np.where(bad, UNKNOWN, whole)
        bad = there & bad
    if strict and bad.any():
        at = int(np.flatnonzero(bad)[0])
        cell = shown[at].as_py() if shown is array else shown[at]
        if column.kind in ("date", "datetime"):
            cell = array[at].as_py()
        raise DataError(
            f"{name}, row {row + at}, column {column.name!r} holds {_short(cell)}, {wanted}; leave such rows out, or "
            "declare the column otherwise."
        )
    return values, gone


def _short(cell: Any) -> str:
    text = f"{cell:.10g}" if isinstance(cell, float) else repr(str(cell))
    return text if len(text) <= 60 else text[:60] + " ..."


def _wanted(column: Column) -> str:
    if column.kind == "circular":
        return f"{column.low:g} <= x < {column.high:g}"
    return (
        "a number above 0" if column.kind == "positive" else f"{column.range or 'a finite number'}"
    )


def _outside(values: Array, column: Column) -> NDArray[np.bool_]:
    import numpy as np

    inside = np.abs(values) <= 3.4e38
    if column.kind == "positive":
        inside &= values > 0
    elif column.kind != "continuous":
        low, high = column.bounds
        inside &= (values >= low) & (values <= high)
    return np.asarray(~inside, dtype=bool)


def _codes(array: Any, column: Column) -> Array:
    """Places of the values among the column's, UNKNOWN for others."""
    import pyarrow
    from pyarrow import compute

    known = pyarrow.array(column.values, pyarrow.string())
    text = compute.utf8_trim_whitespace(array.cast(pyarrow.string()))
    found = compute.fill_null(compute.index_in(text, value_set=known), int(UNKNOWN))
    codes: Array = found.to_numpy(zero_copy_only=False).astype("float64")
    return codes


def numbers(array: Any, kind: str, name: str, row: int, column: str) -> Array:
    """Values of an array as numbers (dates: days, datetimes: seconds since 1970), NaN where missing."""
    import numpy as np
    import pyarrow
    import pyarrow.types as types
    from pyarrow import compute

    if kind in ("date", "datetime"):
        try:
            moments = as_moments(array)
        except pyarrow.ArrowInvalid as error:
            raise _unreadable(array, f"a {kind} in ISO form", name, row, column, error) from error
        micro = moments.cast(pyarrow.int64())
        found = compute.fill_null(micro, 0).to_numpy(zero_copy_only=False) / 1e6
        if kind == "date":
            found = np.floor(found / _DAY)
    else:
        if is_text_type(array.type):
            array = compute.utf8_trim_whitespace(array.cast(pyarrow.string()))
        if types.is_temporal(array.type) or types.is_nested(array.type):
            raise DataError(
                f"{name}, column {column!r} holds values of type {array.type}, expected numbers."
            )
        try:
            if types.is_boolean(array.type):
                array = array.cast(pyarrow.int8())
            found = array.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
        except pyarrow.ArrowInvalid as error:
            raise _unreadable(array, "a number", name, row, column, error) from error
        found = np.array(found, dtype=np.float64)
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    return np.where(nulls, np.nan, found)


def as_moments(array: Any) -> Any:
    """Dates or times, of whatever type or as ISO text, as microseconds since 1970 without a zone."""
    import pyarrow
    import pyarrow.types as types
    from pyarrow import compute

    if is_text_type(array.type):
        array = compute.utf8_trim_whitespace(array.cast(pyarrow.string()))
    if types.is_timestamp(array.type) and array.type.tz is not None:
        array = array.cast(pyarrow.timestamp(array.type.unit))
    return array.cast(pyarrow.timestamp("us"), safe=False)


def _unreadable(
    array: Any, wanted: str, name: str, row: int, column: str, error: Exception
) -> DataError:
    """The first text of an array that is no number, or no date."""
    import pyarrow

    for i, cell in enumerate(array.to_pylist()):
        if cell is None:
            continue
        try:
            one = pyarrow.array([cell], array.type)
            if wanted == "a number":
                one.cast(pyarrow.float64(), safe=False)
            else:
                as_moments(one)
        except pyarrow.ArrowInvalid:
            return DataError(
                f"{name}, row {row + i}, column {column!r} holds {_short(cell)}, expected {wanted}."
            )
    return DataError(f"{name}, column {column!r} cannot be read: {error}")


def _decoded(values: Any, gone: Any, column: Column) -> Any:
    import numpy as np
    import pyarrow

    kind = arrow_type(column.type)
    values = np.asarray(values, dtype=np.float64)
    if column.kind in ("ordinal", "categorical"):
        level = np.where(gone, 0, values).astype(np.int64)
        text = pyarrow.array(column.values, pyarrow.string()).take(pyarrow.array(level, mask=gone))
        return text.cast(kind)
    if column.real:
        values = _rounded(values, column)
        if pyarrow.types.is_integer(kind):
            values = np.round(values)
        return pyarrow.array(values, pyarrow.float64(), mask=gone).cast(kind, safe=False)
    values = column.bounds[0] + column.step * values
    if column.kind == "integer":
        return pyarrow.array(np.round(values), pyarrow.float64(), mask=gone).cast(kind, safe=False)
    micro = np.round(values * (_DAY if column.kind == "date" else 1.0) * 1e6).astype(np.int64)
    moments = pyarrow.array(micro, pyarrow.timestamp("us"), mask=gone)
    if pyarrow.types.is_date(kind):
        return moments.cast(pyarrow.date32()).cast(kind)
    zone = getattr(kind, "tz", None)
    plain = moments.cast(pyarrow.timestamp(kind.unit), safe=False) if zone else moments
    return plain.cast(kind, safe=False)


def _rounded(values: Array, column: Column) -> Array:
    """Single precision as the shortest decimals (7 digits), inside the bounds."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        digits = 6 - np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** np.where(np.isfinite(digits), np.clip(digits, -30, 30), 0)
    found = np.round(values * scale) / scale
    found = np.where(np.isfinite(found), found, values)
    low, high = column.bounds
    if column.kind == "bounded":
        return np.clip(found, low, high)
    if column.kind == "positive":
        return np.where(found > 0, found, values)
    if column.kind == "circular":
        return np.where(found >= high, low, found)
    return found


def arrow_type(name: str) -> Any:
    """The Arrow type of a name such as int64, string or timestamp[us, tz=UTC]. Raises DataError for an unknown one."""
    import pyarrow

    zoned = re.fullmatch(r"timestamp\[(s|ms|us|ns), tz=(.+)\]", name)
    if zoned:
        return pyarrow.timestamp(zoned[1], tz=zoned[2])
    try:
        return pyarrow.type_for_alias(name)
    except ValueError as error:
        raise DataError(f"the schema has a column of the unknown type {name!r}") from error


def columns_of(table: Any, names: Sequence[str], name: str) -> Any:
    """The columns of an Arrow table under these names. Raises DataError for one that is not there."""
    from .checks import listing, nearest

    for wanted in names:
        if wanted not in table.column_names:
            raise DataError(
                f"{name} has no column {wanted!r} among its {len(table.column_names)} columns "
                f"({listing(table.column_names)}); {nearest(wanted, table.column_names)}"
            )
    return table.select(list(names))
