"""Recipes of tabular: the schema that they declare, completed from the file, and the rows that it makes."""

from __future__ import annotations

from ..data import Data
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
