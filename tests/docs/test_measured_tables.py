"""The measurements of synthetic and of large tables: copies keep to the schema, and the tables render."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tests.docs.test_measured import loaded

from diffeo.data import Data, load_typed, schema_of


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded("scripts", "tables_synthetic")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    g = np.random.default_rng(0)
    a = g.integers(0, 50, 400)
    b = np.array(["u", "v", "", "w"])[np.clip(a // 15 + g.integers(0, 2, 400), 0, 3)]
    income = np.where(a + g.normal(0, 10, 400) > 30, ">50K", "<=50K")
    lines = [",".join(map(str, row)) for row in zip(a, b, income, strict=True)]
    path = tmp_path_factory.mktemp("tables") / "a.csv"
    path.write_text("\n".join(["a,b,income", *lines]) + "\n")
    schema, _ = schema_of(str(path))
    return load_typed(str(path), schema, split=(0.6, 0.1, 0.3))


@pytest.mark.parametrize("name", ["real", "copula", "copulas"])
def test_copies_have_the_values_of_the_table(script: ModuleType, data: Data, name: str) -> None:
    if name == "copulas":
        pytest.importorskip("copulas")
    copy, _ = script.MAKERS[name](data, len(data.train), 0, 1.0)
    assert copy.shape == (len(data.train), 3)
    assert set(np.unique(copy[:, 0])) <= set(range(50))
    assert set(np.unique(copy[~np.isnan(copy[:, 1]), 1])) == {0, 1, 2}
    assert 0.1 < np.isnan(copy[:, 1]).mean() < 0.6
    assert abs(np.corrcoef(copy[:, 0], copy[:, 2])[0, 1]) > 0.3


@pytest.mark.slow
def test_what_is_measured_of_a_copy(script: ModuleType, data: Data) -> None:
    copy, _ = script.MAKERS["copula"](data, len(data.train), 0, 1.0)
    found = script.measured(copy, data, 1000, 0)
    assert found["area"] > 0.6
    assert found["told"] < 0.75
    assert found["distance"] < 0.2


def test_tables_render() -> None:
    tables = loaded("docs", "measured_tables")
    assert "not measured" in tables.synthetic(None)
    assert "not measured" in tables.large(None)
    numbers = dict.fromkeys(("area", "told", "mean_area", "distance", "associations", "share"), 0.5)
    row = numbers | dict.fromkeys(("area_error", "told_error", "share_error"), 0.01)
    stored = {"rows": {f"{name}, {s}": row for name in ("real", "tabular, AR") for s in (0, 1)}}
    text = tables.synthetic(stored)
    assert "| training rows | 0.500 ± 0.010 | ± 0.0000, n = 2 |" in text
    assert text.count("50.0 ± 1.0 %") == 1
    command: dict[str, Any] = {"megabytes": 500.0, "private": 400.0}
    part = dict.fromkeys(("train", "sample", "score"), command)
    last = command | {"megabytes": 600.0, "private": None}
    more = dict.fromkeys(("train", "sample", "score"), last)
    text = tables.large(
        {
            "small": part | {"rows": 1000, "file_megabytes": 0.1},
            "large": more | {"rows": 101_000, "file_megabytes": 13.1},
        }
    )
    assert "| 1,000 | 0.1 MB | 500 MB (400) |" in text
    assert "| growth a row | 130 B | 1000 B |" in text


def test_a_large_table_has_the_columns_that_it_says(tmp_path: Path) -> None:
    script = loaded("scripts", "large_tables")
    script.write_table(tmp_path / "a.csv", 200)
    schema, _ = schema_of(str(tmp_path / "a.csv"))
    kinds = [c.kind for c in schema.columns]
    assert (len(kinds), kinds.count("integer"), kinds.count("categorical")) == (20, 4, 4)
    assert sum(c.missing for c in schema.columns) == 4
