"""Entries of the conformance table: columns of tables and the model of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tests.conformance.shared import CONTEXT, build
from torch import Tensor

from diffeo.columns import schema
from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import Conditioner
from diffeo.transforms import Transform, TypedColumns

REAL = schema({"columns": {"a": "continuous", "b": "continuous"}})
MIXED = schema(
    {
        "columns": {
            "real": "continuous",
            "positive": "positive",
            "bounded": {"kind": "bounded", "low": -1, "high": 3, "missing": True},
            "angle": {"period": 360},
            "count": {"kind": "integer", "low": 0, "high": 9},
            "id": {"kind": "integer", "low": 5, "high": 2000, "missing": True},
            "grade": {"kind": "ordinal", "values": ["lo", "mid", "hi"]},
            "colour": {"kind": "categorical", "values": list("abcde"), "missing": True},
        }
    }
)
GIVEN = schema(
    {
        "columns": {"x": "continuous", "y": {"kind": "continuous", "mean": 1, "std": 2}, "z": {"period": 1}},
        "given": ["y", "z"],
    }
)  # fmt: skip

ROWS = [
    [0.3, 1.2, 0.5, 0, 10, 0, 3, 0, 0, 5],
    [-2.0, 0.1, 1, 1, 200, 9, 0, 1, 2, 0],
    [5.0, 20, -0.9, 0, 359, 4, 1995, 0, 1, 3],
    [0.0, 1, 2.9, 0, 30, 5, 700, 0, 2, 4],
]


def rows() -> Tensor:
    """Events of MIXED."""
    return torch.tensor(ROWS, dtype=torch.float64)


TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "typed_columns": lambda: TypedColumns(REAL),
    "typed_columns/mixed": lambda: TypedColumns(MIXED),
}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {
    "tabular/2": build("tabular", (2,)),
    "tabular/mixed": build("tabular", MIXED.event_shape, schema=MIXED),
    "tabular/given": build("tabular", GIVEN.event_shape, schema=GIVEN),
    "tabular/context": build("tabular", (3,), CONTEXT, layer="autoregressive"),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
# Events of entries whose domain is not the same everywhere.
EVENTS: dict[str, Callable[[], Tensor]] = {"typed_columns/mixed": rows, "tabular/mixed": rows}
