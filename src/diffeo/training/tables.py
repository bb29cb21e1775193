"""Recipes of tabular: the schema that they declare, completed from the file, and the rows that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..columns import Schema, column
from ..columns import schema as as_schema
from ..data import Data
from ..data.inference import DROP
from ..data.typed import load_typed, schema_of
from ..errors import ConfigError
from .recipe import Recipe

TABULAR, SCHEMA = "tabular", "schema.yaml"
_OTHERS = ("levels", "bits", "image_size", "channels", "given", "alphabet", "length")


def resolved(chosen: Recipe) -> tuple[Recipe, dict[str, str]]:
    """The recipe with the whole schema of its table in data.kinds, and remarks by column; others as they are.

    Raises ConfigError for settings that are for other data, or of a table in a recipe of another model.
    """
    data = chosen.data
    if chosen.model != TABULAR:
        if data.kinds is not None or data.conditions is not None:
            name = "conditions" if data.kinds is None else "kinds"
            raise ConfigError(f"data.{name} is for the model tabular, not for {chosen.model}")
        return chosen, {}
    for name in _OTHERS:
        if getattr(data, name) is not None:
            raise ConfigError(f"data.{name} is not for tabular, whose columns are in data.kinds")
    schema, remarks = schema_of(
        data.source, data.kinds, columns=data.columns, given=data.conditions or ()
    )
    known = {"complete": True, **schema.plain()}
    changes = {"kinds": known, "columns": schema.names, "conditions": schema.given or None}
    return chosen.model_copy(update={"data": data.model_copy(update=changes)}), remarks


def without_columns(stored: Recipe, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings of a command without what they say of columns, which must be what the stored recipe says.

    Raises ConfigError for another kind, or other given columns.
    """
    rest, kinds = dict(values), stored.data.kinds
    data = rest.get("data")
    if not isinstance(data, Mapping) or kinds is None or not kinds.get("complete"):
        return rest
    said = dict(data)
    declared, given = said.pop("kinds", None) or {}, said.pop("conditions", None)
    if isinstance(declared.get("columns"), Mapping):
        declared, given = declared["columns"], given or declared.get("given")
    known = as_schema({k: v for k, v in kinds.items() if k != "complete"})
    for name, value in declared.items():
        if not _agrees(known, str(name), value):
            raise ConfigError(
                f"the run in {folder} was begun with another column {name!r}, see {folder / SCHEMA}: --resume goes on "
                "with the columns that it began with"
            )
    if given and set(given) != set(known.given):
        raise ConfigError(
            f"the run in {folder} was begun given {', '.join(known.given) or 'no column'}, not {', '.join(given)}: "
            "--resume goes on with the columns that it began with"
        )
    return rest | {"data": said}


def _agrees(known: Schema, name: str, declared: Any) -> bool:
    """Whether a column is as it was declared."""
    if declared == DROP or name not in known.names:
        return declared == DROP and name not in known.names
    now = known.column(name)
    return column(name, declared, now.plain()) == now


def read_table(chosen: Recipe) -> Data:
    """The data of a recipe of tabular."""
    chosen, _ = resolved(chosen)
    data = chosen.data
    schema, _ = schema_of(data.source, data.kinds)
    return load_typed(
        data.source,
        schema,
        validation=data.validation,
        test=data.test,
        seed=data.seed,
        split=data.split,
    )
