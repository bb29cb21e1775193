"""Columns of a table: what values each can have, and how many numbers it takes in an event."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta, timezone
from typing import Any

from .errors import ConfigError

REAL_KINDS = ("continuous", "positive", "bounded", "circular")
LEVEL_KINDS = ("integer", "ordinal", "categorical", "date", "datetime")
KINDS = (*REAL_KINDS, *LEVEL_KINDS)
MOST_LEVELS = 2**21
"""Levels that float32 tells apart on the way to a latent and back."""
MOST_CATEGORIES = 1000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    kind: `continuous`, `positive` (x > 0), `bounded` (low <= x <= high), `circular` (low <= x < high, a period), or in
    levels: `integer` (low..high), `ordinal` and `categorical` (values, as text; the first in their order), `date` and
    `datetime` (low..high, in days, or in seconds counted by `step`, since 1970). missing: whether cells may be empty.
    type: Arrow's name of what the file holds. mean, std: of the numbers, by which a condition is scaled.

    Raises ConfigError for a kind without what it needs.
    """

    name: str
    kind: str = "continuous"
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()
    missing: bool = False
    type: str = "double"
    step: float = 1.0
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            close = difflib.get_close_matches(str(self.kind), KINDS, n=1)
            hint = f", did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"column {self.name!r}: the kind {self.kind!r} is unknown{hint}; kinds are {', '.join(KINDS)}"
            )
        if self.kind in ("ordinal", "categorical"):
            if not self.values or len(set(self.values)) < len(self.values):
                raise ConfigError(
                    f"column {self.name!r} is {self.kind}: give its values, each once, got {list(self.values)}"
                )
            if len(self.values) > MOST_CATEGORIES:
                raise ConfigError(
                    f"column {self.name!r} has {len(self.values)} values, more than {MOST_CATEGORIES}: leave it out, "
                    "or group the rare ones"
                )
        elif self.kind in ("bounded", "circular", "integer", "date", "datetime"):
            low, high = self.low, self.high
            if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
                raise ConfigError(f"column {self.name!r} is {self.kind}: give its low and high")
            if low > high or (low == high and self.kind in REAL_KINDS):
                raise ConfigError(
                    f"column {self.name!r} needs low < high, got {low:g} and {high:g}"
                )
            if self.kind in LEVEL_KINDS and self.levels > MOST_LEVELS:
                raise ConfigError(
                    f"column {self.name!r} has {self.levels} levels, more than {MOST_LEVELS}: declare it continuous"
                    + (", or a larger step" if self.kind == "datetime" else "")
                )

    @property
    def real(self) -> bool:
        """Whether its values have a density."""
        return self.kind in REAL_KINDS

    @property
    def bounds(self) -> tuple[float, float]:
        """low and high, 0 where there is none."""
        return self.low or 0.0, self.high or 0.0

    @property
    def levels(self) -> int:
        """Number of levels, 0 for a real column; a missing category is one more."""
        if self.kind == "categorical":
            return len(self.values) + self.missing
        if self.kind == "ordinal":
            return len(self.values)
        if self.real or self.low is None or self.high is None:
            return 0
        return round((self.high - self.low) / self.step) + 1

    @property
    def flagged(self) -> bool:
        """Whether a second entry of the event says that the value is missing (1) or there (0)."""
        return self.missing and self.kind != "categorical"

    @property
    def width(self) -> int:
        """Entries of the event: the value (a level counted from 0, unless real), and the flag perhaps."""
        return 1 + self.flagged

    @property
    def filling(self) -> float:
        """The entry that stands for a missing value beside its flag."""
        if self.kind == "positive":
            return 1.0
        low, high = self.bounds
        if self.kind == "bounded":
            return (low + high) / 2
        return low if self.kind == "circular" else 0.0

    @property
    def range(self) -> str:
        """Its values in a few words."""
        if self.kind in ("ordinal", "categorical"):
            shown = ", ".join(self.values[:4])
            return f"{len(self.values)} values: {shown}" + (", ..." if len(self.values) > 4 else "")
        if self.kind == "positive":
            return "above 0"
        plain = self.plain()
        low, high = plain.get("low"), plain.get("high")
        ends = (v if isinstance(v, str) else f"{v:.10g}" for v in (low, high) if v is not None)
        return " to ".join(ends)

    def plain(self) -> dict[str, Any]:
        """The column as a mapping without its name, dates as text, defaults left out."""
        found: dict[str, Any] = {"kind": self.kind}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("name", "kind") or value == field.default:
                continue
            found[field.name] = list(value) if isinstance(value, tuple) else value
        for key in ("low", "high"):
            if key in found and self.kind in ("date", "datetime"):
                found[key] = _as_text(found[key], self.kind)
            elif key in found and float(found[key]).is_integer() and self.kind == "integer":
                found[key] = int(found[key])
        return found


def column(
    name: str, given: str | Mapping[str, Any], base: Mapping[str, Any] | None = None
) -> Column:
    """A column from its kind, or from a mapping as `plain` gives it; base: what is known otherwise.

    A circular column may have `period` in place of low and high. Raises ConfigError for an unknown key or a bad value.
    """
    values: dict[str, Any] = {"kind": given} if isinstance(given, str) else dict(given)
    known = [f.name for f in fields(Column) if f.name != "name"]
    if "period" in values:
        period = _number(name, "period", values.pop("period"))
        low = _number(name, "low", values.get("low", 0.0))
        values |= {"kind": values.get("kind", "circular"), "low": low, "high": low + period}
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = (
                f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}, period"
            )
            raise ConfigError(f"column {name!r} has no setting {key!r}{hint}")
    merged = dict(base or {}) | values
    kind = merged.get("kind", "continuous")
    for key in ("low", "high", "step", "mean", "std"):
        value = merged.get(key)
        if isinstance(value, str | date) and kind in ("date", "datetime"):
            merged[key] = _from_text(name, value, kind)
        elif value is not None:
            merged[key] = _number(name, key, value)
    if "values" in merged:
        if isinstance(merged["values"], str) or not isinstance(merged["values"], Sequence):
            raise ConfigError(f"column {name!r}: values must be a list, got {merged['values']!r}")
        merged["values"] = tuple(_text(v) for v in merged["values"])
    if not isinstance(merged.get("missing", False), bool):
        raise ConfigError(f"column {name!r}: missing must be true or false")
    return Column(name, **merged)


@dataclass(frozen=True)
class Schema:
    """The columns of a table in their order, and the names of those that are conditions (`given`).

    Raises ConfigError for names that are not there, or where nothing is left to model.
    """

    columns: tuple[Column, ...]
    given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) < len(names):
            raise ConfigError(f"a column is there twice among {', '.join(names)}")
        for name in self.given:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                hint = (
                    f", did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"
                )
                raise ConfigError(f"there is no column {name!r} to be given{hint}")
        if not self.events:
            raise ConfigError("every column is given, so there is nothing to model")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    @property
    def events(self) -> tuple[Column, ...]:
        """The columns that are modelled."""
        return tuple(c for c in self.columns if c.name not in self.given)

    @property
    def conditions(self) -> tuple[Column, ...]:
        """The columns that are given."""
        return tuple(c for c in self.columns if c.name in self.given)

    @property
    def event_shape(self) -> tuple[int]:
        return (sum(c.width for c in self.events),)

    @property
    def context_shape(self) -> tuple[int] | None:
        return (sum(c.width for c in self.conditions),) if self.given else None

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of the entries of an event."""
        return tuple(
            name for c in self.events for name in (c.name, f"{c.name} is missing")[: c.width]
        )

    def column(self, name: str) -> Column:
        """The column of a name. Raises ConfigError for an unknown one."""
        for c in self.columns:
            if c.name == name:
                return c
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f", did you mean {close[0]!r}?" if close else f"; there are {', '.join(self.names)}"
        raise ConfigError(f"there is no column {name!r}{hint}")

    def plain(self) -> dict[str, Any]:
        """The schema as mappings and lists, as in a YAML file."""
        found: dict[str, Any] = {"columns": {c.name: c.plain() for c in self.columns}}
        return found | ({"given": list(self.given)} if self.given else {})

    def with_given(self, given: Sequence[str]) -> Schema:
        """The same columns under these conditions."""
        return replace(self, given=tuple(given))


def schema(given: Schema | Mapping[str, Any]) -> Schema:
    """A complete schema from `plain`. Raises ConfigError."""
    if isinstance(given, Schema):
        return given
    columns = given.get("columns")
    if not isinstance(columns, Mapping):
        raise ConfigError("a schema is a mapping with columns: a kind, or a mapping, for each name")
    conditions = given.get("given", ())
    return Schema(
        tuple(column(str(name), value) for name, value in columns.items()), tuple(conditions)
    )


def continuous(entries: int) -> Schema:
    """So many continuous columns, x0, x1, ..."""
    return Schema(tuple(Column(f"x{i}") for i in range(entries)))


def _number(name: str, key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"column {name!r}: {key} must be a number, got {value!r}") from error


def _text(value: Any) -> str:
    """A category as it is written in a file."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_text(value: float, kind: str) -> str:
    moment = datetime(1970, 1, 1)
    if kind == "date":
        return (moment + timedelta(days=value)).date().isoformat()
    return (moment + timedelta(seconds=value)).isoformat(sep=" ")


def _from_text(name: str, value: str | date, kind: str) -> float:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise ConfigError(f"column {name!r}: {value!r} is no {kind} in ISO form") from error
    if moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    seconds = (moment - datetime(1970, 1, 1)).total_seconds()
    return seconds // 86400 if kind == "date" else seconds
