"""The protocol of scripts/tables.py: what every model of the table gets to see."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location("tables", SCRIPTS / "tables.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["tables"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPTS))
    return module


def test_noise_fills_the_cell_of_a_value(tables: ModuleType) -> None:
    raw = np.array([[0.0, 1.0], [0.5, 3.0], [2.0, 10.0]] * 400)
    noise = tables.dequantized(raw) - raw
    # The smallest gaps are 0.5 and 2.
    assert np.abs(noise).max(0) == pytest.approx([0.25, 1.0], rel=0.01)
    assert (np.abs(noise).max(0) <= [0.25, 1.0]).all()
    assert np.array_equal(tables.dequantized(raw), tables.dequantized(raw))


def test_constant_and_affinely_dependent_columns_are_dropped(tables: ModuleType) -> None:
    a, b = np.random.RandomState(0).randn(2, 50)
    assert tables.independent(np.column_stack([np.full(50, 3.0), a, b, 2 * a - b + 1])) == (1, 2)


def test_equal_rows_are_on_one_side(tables: ModuleType) -> None:
    raw = np.random.RandomState(0).randint(0, 6, (300, 2)).astype(float)
    training = np.arange(300) >= 30
    held_out = tables.validation_rows(raw, training, 0)
    assert held_out.any()
    assert not (held_out & ~training).any()
    sides = {tuple(row) for row in raw[held_out]}, {tuple(row) for row in raw[training & ~held_out]}
    assert not sides[0] & sides[1]


def test_mixture_weights_maximize_the_likelihood(tables: ModuleType) -> None:
    # Three rows that the first component gives twice the density, one that the second gives four times it.
    log_prob = torch.tensor([[2.0, 1.0]] * 3 + [[1.0, 4.0]], dtype=torch.float64).log()
    weights = tables.mixture_weights(log_prob, steps=500)
    grid = torch.linspace(0, 1, 10001, dtype=torch.float64)
    values = (log_prob[:, :1].exp() * grid + log_prob[:, 1:].exp() * (1 - grid)).log().mean(0)
    assert weights.sum() == pytest.approx(1)
    assert float(weights[0]) == pytest.approx(float(grid[values.argmax()]), abs=1e-3)
