"""A conditional model of a table from file to file, without the command line."""

from __future__ import annotations

from pathlib import Path

import pyarrow.csv as arrow
import pytest
import torch

from diffeo import zoo
from diffeo.applications import check_table, score_table, synthesize
from diffeo.data import load_typed, schema_of
from diffeo.errors import DataError, InputError
from diffeo.evaluation import baselines, evaluate


@pytest.fixture
def people(tmp_path: Path) -> Path:
    g = torch.Generator().manual_seed(0)
    rows = [
        f"{'Rome' if i % 2 else 'Oslo'},{i % 5},{float(x):.3f}"
        for i, x in enumerate(torch.rand(80, generator=g))
    ]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(["city,n,x", *rows, ""]))
    return path


def test_given_columns(people: Path, tmp_path: Path) -> None:
    known, _ = schema_of(
        str(people), {"x": {"kind": "bounded", "low": 0, "high": 1}}, given=("city",)
    )
    data = load_typed(str(people), known)
    flow = zoo.build("tabular", data.event_shape, data.context_shape, "tiny", schema=known)
    assert data.contexts is not None
    flow.initialize(data.train, data.contexts[0])
    row, (baseline,) = evaluate(flow, data), baselines(data)
    assert row.kind == baseline.kind == "bound"
    # Both are the product of the marginals here, but for the shares of so few rows.
    assert row.nats == pytest.approx(baseline.nats, abs=1.0)
    out = tmp_path / "new.csv"
    synthesize(flow, 7, out, given={"city": "Oslo"})
    assert set(arrow.read_csv(out).column("city").to_pylist()) == {"Oslo"}
    assert check_table(out, flow) == []
    (tmp_path / "given.csv").write_text("other,city\n1,Rome\n2,Oslo\n")
    synthesize(flow, 2, out, given=tmp_path / "given.csv")
    assert arrow.read_csv(out).column("city").to_pylist() == ["Rome", "Rome", "Oslo", "Oslo"]
    assert score_table(flow, people, tmp_path / "scores.csv").outside == 0
    with pytest.raises(InputError, match="conditional: give city"):
        synthesize(flow, 7, out)
    with pytest.raises(InputError, match="'n' is not given"):
        synthesize(flow, 7, out, given={"city": "Oslo", "n": 3})
    with pytest.raises(DataError, match="holds 'Bonn', expected one of"):
        synthesize(flow, 7, out, given={"city": "Bonn"})
    with pytest.raises(InputError, match="what is read"):
        synthesize(flow, None, tmp_path / "given.csv", given=tmp_path / "given.csv")
