"""TableFeatures: the given columns of a table as numbers of about 1, for networks to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..columns import Column, Schema
from ..columns import schema as as_schema
from ..errors import ConfigError
from ..parts import Part, Shape, register

MOST_ONE_HOT = 64


def _size(column: Column) -> int:
    if column.kind == "circular":
        return 2 + column.flagged
    one_hot = column.kind == "categorical" and 2 < column.levels <= MOST_ONE_HOT
    return (column.levels if one_hot else 1) + column.flagged


@register
class TableFeatures(Part):
    """An embedding of the given columns of a schema, entries as in an event: [n, entries] to [n, features].

    Real columns are scaled by the schema's mean and std; levels lie in -1..1; categories become one-hot vectors; an
    angle its cosine and sine; a missing value 0, beside its flag.
    """

    def __init__(self, schema: Schema | Mapping[str, Any]) -> None:
        known = as_schema(schema)
        if known.context_shape is None:
            raise ConfigError("TableFeatures needs a schema with given columns")
        size = sum(_size(c) for c in known.conditions)
        super().__init__()
        self.context_shape: Shape = known.context_shape
        self.out_shape: Shape = (size,)
        self.schema = known

    def forward(self, values: Tensor) -> Tensor:
        parts, e = [], 0
        for c in self.schema.conditions:
            value = values[:, e]
            if c.kind == "circular":
                low, high = c.bounds
                angle = 2 * torch.pi * (value - low) / (high - low)
                found = torch.stack((angle.cos(), angle.sin()), -1)
            elif c.kind == "categorical" and _size(c) > 1:
                level = value.long().clamp(0, c.levels - 1)
                found = F.one_hot(level, c.levels).to(value.dtype)
            elif c.real:
                found = ((value - c.mean) / c.std)[:, None]
            else:
                found = (2 * value / max(1, c.levels - 1) - 1)[:, None]
            if c.flagged:
                flag = values[:, e + 1, None]
                found = torch.cat(
                    (torch.where(flag == 1, torch.zeros_like(found), found), flag), -1
                )
            parts.append(found)
            e += c.width
        return torch.cat(parts, -1)

    def config(self) -> dict[str, Any]:
        return {"schema": self.schema.plain()}
