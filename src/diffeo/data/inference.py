"""The schema of a file: kinds of its columns as declared, or as a cautious look at all of its rows suggests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..columns import MOST_CATEGORIES, MOST_LEVELS, Column, Schema, column
from ..errors import ConfigError, DataError
from .arrow_files import arrow_names, arrow_tables
from .checks import nearest
from .codec import absent, as_moments, flat, is_text_type, numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

ROWS = 2**16
DROP = "drop"
_STEPS = (86400.0, 3600.0, 60.0, 1.0, 0.001)
_WIDER: dict[str, tuple[str, ...]] = {
    "": ("integer", "real", "date", "datetime"),
    "integer": ("integer", "real"),
    "real": ("real",),
    "date": ("date", "datetime"),
    "datetime": ("datetime",),
    "text": (),
}
_INTEGER = r"^[-+]?(0|[1-9][0-9]*)$"


@dataclass
class _Facts:
    """What was seen of a column: text that could be numbers or dates is told apart by all of its cells."""

    name: str
    type: str = ""
    form: str = ""  # integer, real, bool, date, datetime, text
    rows: int = 0
    missing: int = 0
    low: float = math.inf
    high: float = -math.inf
    whole: bool = True
    mean: float = 0.0
    square: float = 0.0
    count: int = 0
    step: float = _STEPS[0]
    values: dict[str, int] = field(default_factory=dict)


def infer(
    path: Path,
    declared: Mapping[str, Any] | None = None,
    *,
    columns: tuple[str, ...] | None = None,
    given: tuple[str, ...] = (),
) -> tuple[Schema, dict[str, str]]:
    """The schema of a file, and remarks by column.

    declared: for some columns a kind, or a mapping as in `Column.plain`, or `drop` to leave the column out; what is not
    said is inferred. Whole numbers become integers within the range that is seen, other numbers continuous, texts
    categories, dates dates; no column is inferred as positive, bounded, circular or ordinal.

    Raises DataError or ConfigError.
    """
    declared = dict(declared or {})
    names = columns or arrow_names(path)
    for name in declared:
        if name not in names:
            raise ConfigError(
                f"the schema declares a column {name!r}, which {path} lacks; {nearest(name, names)}"
            )
    names = tuple(n for n in names if declared.get(n) != DROP)
    found = {name: _Facts(name) for name in names}
    seen = 0
    for table in arrow_tables(path, names, ROWS):
        for name in names:
            _look(found[name], flat(table.column(name)), seen, str(path), declared.get(name))
        seen += len(table)
    if not seen:
        raise DataError(f"{path} holds no row.")
    made, remarks = [], {}
    for name in names:
        made_column, remark = _conclude(found[name], declared.get(name), str(path))
        made.append(made_column)
        if remark:
            remarks[name] = remark
    return Schema(tuple(made), given), remarks


def _form(array: Any, facts: _Facts, declared: Any) -> str:
    """What the cells of a block are, no narrower than those before."""
    import pyarrow
    import pyarrow.types as types
    from pyarrow import compute

    kind = array.type
    if types.is_boolean(kind):
        return "bool"
    if types.is_integer(kind):
        return "integer"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "real"
    if types.is_date(kind):
        return "date"
    if types.is_timestamp(kind):
        return "datetime"
    if not is_text_type(kind):
        raise DataError(
            f"column {facts.name!r} holds values of type {kind}, expected numbers, text, booleans or "
            "dates; leave it out."
        )
    if _kind(declared) in ("ordinal", "categorical"):
        return "text"
    text = compute.utf8_trim_whitespace(array.cast(pyarrow.string())).drop_null()
    fits = {
        "integer": _are_integers,
        "real": _are_numbers,
        "date": _are_dates,
        "datetime": _are_moments,
    }
    return next((form for form in _WIDER[facts.form] if fits[form](text)), "text")


def _are_integers(text: Any) -> bool:
    from pyarrow import compute

    return bool(compute.all(compute.match_substring_regex(text, _INTEGER)).as_py() in (True, None))


def _are_numbers(text: Any) -> bool:
    import pyarrow
    from pyarrow import compute

    if compute.any(compute.match_substring_regex(text, r"^[-+]?0[0-9]")).as_py():
        return False  # 007 is a name
    try:
        text.cast(pyarrow.float64())
    except pyarrow.ArrowInvalid:
        return False
    return True


def _are_dates(text: Any) -> bool:
    from pyarrow import compute

    plain = compute.match_substring_regex(text, r"^\d{4}-\d{2}-\d{2}$")
    return compute.all(plain).as_py() in (True, None) and _are_moments(text)


def _are_moments(text: Any) -> bool:
    import pyarrow

    try:
        as_moments(text)
    except pyarrow.ArrowInvalid:
        return False
    return True


def _look(facts: _Facts, array: Any, row: int, path: str, declared: Any) -> None:
    import numpy as np
    import pyarrow
    from pyarrow import compute

    facts.type = facts.type or _type_name(array.type)
    gone = absent(array)
    facts.rows += len(gone)
    facts.missing += int(gone.sum())
    if gone.all():
        if not facts.form and not is_text_type(array.type):
            facts.form = _form(array, facts, declared)
        return
    array = compute.if_else(pyarrow.array(gone), pyarrow.scalar(None, array.type), array)
    facts.form = _form(array, facts, declared)
    if (
        facts.form in ("text", "bool")
        or is_text_type(array.type)
        or _kind(declared) in ("ordinal", "categorical")
    ):
        text = array.cast(pyarrow.string()).drop_null()
        counts = compute.value_counts(compute.utf8_trim_whitespace(text))
        if len(facts.values) <= 20 * MOST_CATEGORIES:
            for item in counts.to_pylist():
                facts.values[item["values"]] = facts.values.get(item["values"], 0) + item["counts"]
    if facts.form in ("text", "bool"):
        return
    kind = facts.form if facts.form in ("date", "datetime") else "continuous"
    values = numbers(array, kind, path, row, facts.name)
    values = values[~gone]
    if not np.isfinite(values).all():
        at = int(np.flatnonzero(~gone)[int(np.flatnonzero(~np.isfinite(values))[0])])
        raise DataError(
            f"{path}, row {row + at}, column {facts.name!r} holds an infinite number, expected a finite one."
        )
    facts.low, facts.high = (
        min(facts.low, float(values.min())),
        max(facts.high, float(values.max())),
    )
    facts.whole = facts.whole and bool((values == np.floor(values)).all())
    if facts.form == "datetime":
        micro = np.round(values * 1e6)
        while facts.step > _STEPS[-1] and (np.mod(micro, round(facts.step * 1e6)) != 0).any():
            facts.step = _STEPS[_STEPS.index(facts.step) + 1]
    n = len(values)
    total = facts.count + n
    shift = float(values.mean()) - facts.mean
    facts.square += (
        float(((values - values.mean()) ** 2).sum()) + shift**2 * facts.count * n / total
    )
    facts.mean += shift * n / total
    facts.count = total


def _kind(declared: Any) -> str | None:
    found = declared.get("kind") if isinstance(declared, Mapping) else declared
    if found is None and isinstance(declared, Mapping) and "values" in declared:
        return "categorical"
    return found


def _type_name(kind: Any) -> str:
    import pyarrow.types as types

    return "double" if types.is_decimal(kind) else str(kind)


def _conclude(facts: _Facts, declared: Any, path: str) -> tuple[Column, str]:
    name, remark = facts.name, ""
    if not facts.form and declared is None:
        raise DataError(f"{path}: column {name!r} has no value in any row; leave it out.")
    if _names_text(facts.type) and facts.form in ("integer", "real", "date", "datetime"):
        types = {
            "integer": "int64",
            "real": "double",
            "date": "date32[day]",
            "datetime": "timestamp[us]",
        }
        facts.type = types[facts.form]
        if facts.form == "datetime" and facts.step >= 1:
            facts.type = "timestamp[s]"
    base: dict[str, Any] = {"type": facts.type, "missing": facts.missing > 0}
    if facts.count:
        spread = math.sqrt(facts.square / facts.count)
        base |= {"mean": facts.mean, "std": spread if spread > 0 else 1.0}
    kind = _kind(declared) or _guess(facts)
    if isinstance(declared, Mapping) and "period" in declared:
        kind = "circular"
    if kind in ("ordinal", "categorical"):
        base |= {"values": _categories(facts, kind, path, declared), "mean": 0.0, "std": 1.0}
    elif facts.count and kind in ("integer", "date", "datetime", "bounded"):
        base |= {"low": facts.low, "high": facts.high}
        if kind == "datetime":
            base["step"] = step = _step(facts)
            base["low"] = math.floor(facts.low / step) * step
            base["high"] = math.ceil(facts.high / step) * step
            if step > facts.step:
                remark = f"times are rounded to {step:g} s"
    if kind in ("integer", "date") and facts.count and not facts.whole:
        raise DataError(
            f"{path}: column {name!r} is declared {kind}, but holds other numbers than whole ones."
        )
    if declared is None and kind == "continuous":
        remark = _hint(facts)
    if declared is None and facts.count and facts.low == facts.high and kind == "continuous":
        raise DataError(
            f"{path}: column {name!r} has one value in every row, so the density would be infinite; leave it out."
        )
    if kind == "integer" and facts.rows > 50 and len(facts.values) == facts.rows:
        remark = "every row has another value: an identifier? drop it then"
    chosen = column(name, declared if declared is not None else kind, base | {"kind": kind})
    return chosen, remark


def _names_text(name: str) -> bool:
    return name in ("string", "large_string", "string_view")


def _guess(facts: _Facts) -> str:
    if facts.form in ("text", "bool"):
        return "categorical"
    if facts.form in ("date", "datetime"):
        return facts.form
    if facts.whole and facts.high - facts.low < MOST_LEVELS:
        return "integer"
    return "continuous"


def _hint(facts: _Facts) -> str:
    if facts.whole:
        return f"whole numbers of more than {MOST_LEVELS} levels: rounded"
    if facts.low > 0:
        return "all above 0: positive?"
    return "between 0 and 1: bounded?" if facts.low >= 0 and facts.high <= 1 else ""


def _categories(facts: _Facts, kind: str, path: str, declared: Any) -> list[str]:
    if isinstance(declared, Mapping) and declared.get("values"):
        return list(declared["values"])
    found = sorted(facts.values, key=lambda v: (-facts.values[v], v))
    if kind == "ordinal":
        raise ConfigError(f"column {facts.name!r} is ordinal: give its values in their order")
    if len(found) > MOST_CATEGORIES or (len(found) > 50 and len(found) > 0.5 * facts.rows):
        raise DataError(
            f"{path}: column {facts.name!r} holds {len(found)} different texts in {facts.rows} rows, which is no "
            "category; leave it out (data.schema.NAME=drop)."
        )
    return found


def _step(facts: _Facts) -> float:
    """The largest unit that all times are multiples of, or the first above it with few enough levels."""
    for step in reversed([s for s in (*_STEPS,) if s >= facts.step]):
        if (facts.high - facts.low) / step < MOST_LEVELS - 2:
            return step
    return _STEPS[0]
