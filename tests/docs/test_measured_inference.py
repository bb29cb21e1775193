"""The tables of inference by simulation: what is shown of stored rows, and when nothing is."""

from __future__ import annotations

from typing import Any

import pytest
from tests.docs.test_measured import loaded


@pytest.fixture(scope="module")
def tables() -> Any:
    return loaded("docs", "measured_inference")


def row(model: str, seed: int, c2st: float, **more: Any) -> dict[str, Any]:
    found = {"c2st": [c2st, c2st + 0.02], "mean": [0.1, 0.3], "seconds": 12.3}
    leaked = {"outside": [0.0, 0.1] if model == "sbi" else [0.0, 0.0]}
    task = {"method": "NPE", "task": "two_moons", "simulations": 1000, "seed": seed, "model": model}
    return task | found | leaked | more


def test_means_over_observations_and_seeds_and_the_paired_gap(tables: Any) -> None:
    rows = [row("sbi", s, 0.70 + 0.01 * s) for s in range(3)]
    rows += [row("diffeo", s, 0.60 + 0.01 * s) for s in range(3)]
    head, _, line = tables.sbi({"rows": rows}, "NPE").splitlines()
    cells = [c.strip() for c in line.strip("|").split("|")]
    assert len(cells) == len(head.strip("|").split("|"))
    assert cells[:2] == ["two moons", "1,000"]
    assert cells[2:4] == ["0.620 ± 0.006", "0.720 ± 0.006"]
    assert cells[4].startswith("+0.100")
    assert cells[4].endswith("shown")
    assert cells[5:] == ["0.200 ± 0.000", "0.200 ± 0.000", "0", "5.0%", "12"]


def test_without_rows_the_page_says_so(tables: Any) -> None:
    rows = [row("sbi", 0, 0.7)]
    assert tables.sbi(None, "NPE") == tables.MISSING
    assert tables.sbi({"rows": rows}, "NLE") == tables.MISSING
    assert tables.MISSING in tables.sbi({"rows": rows}, "NPE")


def test_likelihoods_have_no_column_of_leakage(tables: Any) -> None:
    rows = [row(m, 0, 0.6, method="NLE") for m in ("sbi", "diffeo")]
    assert "outside" not in tables.sbi({"rows": rows}, "NLE")
