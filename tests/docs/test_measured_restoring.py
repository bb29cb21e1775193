"""Restored pictures in the documentation: tables from what scripts/restoring.py stores, and the script itself."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from tests.docs.test_measured import FACTS, loaded

KINDS = ("denoising", "inpainting", "chains", "calibration")


def row(kind: Any, *names: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "drawn": False,
        "sigma": 4.0,
        "psnr": {name: [20.0 + i, 0.25] for i, name in enumerate(names)},
        "gain": [1.5, 0.3],
        "converged": 0.75,
        "rhat": [1.01, 1.03, 1.2],
        "effective": [300.0, 120.0, 40.0],
        "accepted": 0.8,
        "coverage": [0.893, 0.011],
        "correlation": 0.5,
        "seconds": 60.0,
        "settings": {
            "pictures": 8,
            "chains": 4,
            "draws": 250,
            "warmup": 120,
            "leapfrog": 16,
        },
    }


def test_tables(monkeypatch, tmp_path) -> None:
    measured = loaded("docs", "measured")
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    for kind in KINDS:
        assert measured.on_page_markdown(f"<!-- restoring {kind} digits -->").startswith("*not")
    tables = loaded("docs", "measured_restoring")
    rows = {
        "half": row(
            "half", "mean of training pictures", "biharmonic", "most likely", "posterior mean"
        ),
        "0.25": row(0.25, "noisy", "median", "total variation", "most likely", "posterior mean"),
        "drawn-half": row("half") | {"drawn": True, "uniform": 0.4},
    }
    document = FACTS | {"digits": rows}
    text = {kind: tables.restoring(document, f"{kind} digits") for kind in KINDS}
    assert "| σ = 4 | 20.0 ± 0.2 | 21.0 ± 0.2 |" in text["denoising"]
    assert "half" not in text["denoising"]
    assert "| the right half | 20.0 ± 0.2 |" in text["inpainting"]
    assert text["inpainting"].endswith("| 1.5 ± 0.3 |")
    assert "| σ = 4 | 75 % | 1.010 (1.20) | 300 (40) | 80 % |" in text["chains"]
    assert "8 seconds a picture" in text["chains"]
    assert "| the right half | 89.3 ± 1.1 % | 0.50 |" in text["calibration"]
    assert (
        "| the right half, drawn by the flow | 89.3 ± 1.1 % | 0.50 | 0.40 |" in text["calibration"]
    )
    assert "drawn" not in text["inpainting"]
    assert text["calibration"].index("σ = 4") < text["calibration"].index("the right half")
    for table in text.values():
        assert len({line.count("|") for line in table.splitlines() if "|" in line}) == 1


@pytest.fixture(scope="module")
def script() -> Any:
    return loaded("scripts", "restoring")


def test_baselines_and_psnr(script) -> None:
    pytest.importorskip("skimage")
    x = torch.full((2, 1, 8, 8), 8.0)
    everywhere = torch.ones_like(x, dtype=torch.bool)
    y = script.noisy(x, 2.0, 0)
    before = script.psnr(y, x, everywhere, 16.0)
    assert before.tolist() == pytest.approx([20 * math.log10(16 / 2)] * 2, abs=2.5)
    for made in (script.median(y), script.variation(y, 0.5, 16.0)):
        assert (script.psnr(made, x, everywhere, 16.0) > before + 3).all()
    ramp = torch.arange(8.0).expand(2, 1, 8, 8)
    for kind in script.MASKS:
        where = script.hidden(kind, ramp)
        assert 0.2 <= where.double().mean() <= 0.6
        filled = script.biharmonic(ramp, where, 16.0)
        torch.testing.assert_close(filled[~where], ramp[~where])
        if kind == "centre":
            torch.testing.assert_close(filled, ramp, atol=1e-3, rtol=0)


def test_calibration_of_draws_that_are_right(script) -> None:
    """Truth and draws of one distribution: nine in ten; deviations in proportion to the noise."""
    from diffeo.applications import Posterior

    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(2, 40, 64).reshape(1, 8, 8)
    mean = 50 * torch.randn(100, 1, 8, 8, generator=generator)
    draws = mean + scale * torch.randn(2, 100, 100, 1, 8, 8, generator=generator)
    x = (mean + scale * torch.randn(mean.shape, generator=generator)).round()
    one = torch.ones(100)
    found = Posterior(draws, one, 200 * one, one)
    told = script.calibration(found, script.in_bins(x), torch.ones_like(x, dtype=torch.bool))
    share, error = told["coverage"]
    assert share == pytest.approx(0.9, abs=0.02)
    assert error < 0.01
    assert told["correlation"] > 0.4


@pytest.mark.slow
def test_the_script_resumes_by_row(script, monkeypatch, tmp_path) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setitem(script.write.__globals__, "RESULTS", tmp_path)
    monkeypatch.setattr(script, "IMAGES", tmp_path)
    arguments = (
        "--pictures 2 --chains 2 --draws 4 --warmup 2 --leapfrog 2 --steps 2 "
        "--rows 0.25 half drawn-half"
    )
    monkeypatch.setattr(sys, "argv", ["restoring", *arguments.split()])
    script.main()
    rows = script.read("restoring")["digits"]
    assert set(rows) == {"0.25", "half", "drawn-half"}
    assert len(rows["drawn-half"]["ranks"]) == 2
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "restoring-digits-noise-250.png",
        "restoring-digits-half.png",
    }
    monkeypatch.setattr(script, "measured", None)
    script.main()
    assert script.read("restoring")["digits"] == rows
