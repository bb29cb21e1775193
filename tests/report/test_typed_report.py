"""The report of a table of mixed columns: every section in the columns of the file, and why there is none."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.report.test_report import Reader

from diffeo import zoo
from diffeo.data import Data, load_typed, schema_of
from diffeo.flow import Flow
from diffeo.report import Row, typed, write_report
from diffeo.report.page import Section
from diffeo.report.sections import _attempt
from diffeo.report.typed import typed_makers

DECLARED: dict[str, Any] = {
    "angle": {"period": 360},
    "income": "positive",
    "grade": {"kind": "ordinal", "values": ["low", "mid", "high"]},
}
SECTIONS = (
    "Columns",
    "Pairs of columns",
    "Calibration of the columns",
    "Told apart by a classifier",
    "Closest training rows",
    "Training on samples",
    "Latents",
    "Audit",
)


def people(path: Path, n: int, names: tuple[str, ...] | None = None) -> Path:
    """A table with a constant column, a category of many values, dates, and missing cells."""
    g = np.random.default_rng(0)
    age = g.integers(18, 80, n)
    table = {
        "age": age,
        "one": np.full(n, 7),
        # Many values, one of which is frequent enough to be predicted.
        "street": np.char.add("No. <", (g.integers(0, 90, n) * (g.random(n) < 0.5)).astype(str)),
        "angle": (age * 4 + g.normal(0, 20, n)) % 360,
        "income": np.exp(g.normal(age / 40, 0.3)),
        "grade": np.array(["low", "mid", "high"])[np.clip((age - 18) // 21, 0, 2)],
        "born": (np.datetime64("2024-01-01") - 365 * age).astype(str),
        "seen": (np.datetime64("2024-01-01T10:00:00") + g.integers(0, 10**6, n)).astype(str),
    }
    for name in ("age", "street", "income", "seen"):
        table[name] = np.where(g.random(n) < 0.1, "", table[name].astype(str))
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        chosen = names or tuple(table)
        out.writerow(chosen)
        out.writerows(zip(*(table[name] for name in chosen), strict=True))
    return path


def model(path: Path, given: tuple[str, ...] = ()) -> tuple[Flow, Data]:
    declared = {k: v for k, v in DECLARED.items() if k in path.read_text().splitlines()[0]}
    schema, _ = schema_of(str(path), declared, given=given)
    data = load_typed(str(path), schema, split=(0.5, 0.25, 0.25))
    torch.manual_seed(0)
    flow = zoo.build("tabular", schema.event_shape, size="tiny", schema=schema)
    context = None if data.contexts is None else data.contexts[0]
    flow.initialize(data.train, context)
    return flow.eval(), data


def page(folder: Path, flow: Flow, data: Data) -> Reader:
    row = Row("tabular", 3.0, 0.1, None, None, flow.likelihood)
    path = write_report(
        folder / "r.html", flow=flow, data=data, rows=[row], curves={}, facts={}, title="t"
    )
    return Reader(path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("given", [(), ("age", "grade")])
def test_the_page(tmp_path: Path, given: tuple[str, ...]) -> None:
    found = page(tmp_path, *model(people(tmp_path / "people.csv", 240), given))
    assert "Not shown" not in found.text
    for title in SECTIONS:
        assert f"#{title.lower().replace(' ', '-')}" in found.links
    assert len(found.images) == 1 + (1 + 6) + 1 + 1 + 1
    assert "8 columns: 2 integer, 1 categorical, 1 circular, 1 positive, 1 ordinal" in found.text
    assert "4 with missing cells" in found.text
    assert "No. <" in found.text
    assert "above 2024-01-0" in found.text  # the median of a datetime
    assert ("under the conditions of that row" in found.text) == bool(given)


def sections(flow: Flow, data: Data) -> dict[str, Section]:
    """Those of tables alone, in a page's way."""
    with torch.no_grad():
        makers = {k: make for part in typed_makers() for k, make in part.items()}
        return {title: _attempt(title, make, flow, data, 0) for title, make in makers.items()}


def test_given_columns_are_those_of_real_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typed, "_PAIRS", 1)
    monkeypatch.setattr(typed, "_CHANGED", 1)
    path = people(tmp_path / "people.csv", 240, ("street", "age", "born"))
    found = sections(*model(path, ("age",)))
    assert list(found) == list(SECTIONS[:6])
    assert not [s.title for s in found.values() if s.text.startswith("Not shown")]
    assert ", given the age of validation rows" in found["Columns"].text
    assert "integer, given" in found["Columns"].table
    assert "under the conditions of that row" in found["Calibration of the columns"].text
    assert "age" not in found["Training on samples"].table
    for section in found.values():
        assert "nan" not in (section.text + section.table).lower()


def test_a_table_of_a_few_rows_says_what_it_needs(tmp_path: Path) -> None:
    found = sections(*model(people(tmp_path / "people.csv", 12, ("one", "seen"))))
    why = {title: s.text for title, s in found.items() if s.text.startswith("Not shown")}
    assert list(why) == list(SECTIONS[2:6])
    assert "needs 20 test rows or more, and there are 3." in why["Calibration of the columns"]
    assert "needs 50 rows or more of each table" in why["Told apart by a classifier"]
    assert "has 20 rows of each of two classes" in why["Training on samples"]


def test_one_column_has_no_pairs(tmp_path: Path) -> None:
    flow, data = model(people(tmp_path / "people.csv", 12, ("income",)))
    section = _attempt("Pairs of columns", typed_makers()[0]["Pairs of columns"], flow, data, 0)
    assert "one column only" in section.text
