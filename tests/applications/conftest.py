"""Small flows with weights far from their start, and tables for them."""

import numpy as np
import pytest
import torch

import diffeo
from diffeo.testing import randomize


@pytest.fixture(scope="session")
def vectors():
    """A flow over three real columns."""
    torch.manual_seed(0)
    return randomize(diffeo.zoo.build("realnvp", (3,), size="tiny"), seed=1, scale=0.3).eval()


@pytest.fixture(scope="session")
def pictures():
    """A flow over 1 x 4 x 4 images of 9 levels."""
    torch.manual_seed(0)
    flow = diffeo.zoo.build("nice", (1, 4, 4), size="tiny", levels=9)
    return randomize(flow, seed=1, scale=0.3).eval()


@pytest.fixture(scope="session")
def counts():
    """A flow over three columns of integers 0..8."""
    torch.manual_seed(0)
    flow = diffeo.zoo.build("nice", (3,), size="tiny", levels=9)
    return randomize(flow, seed=1, scale=0.3).eval()


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 16 rows, so that small tables have many."""
    monkeypatch.setattr("diffeo.applications.blocks._ENTRIES", 16 * 3)


@pytest.fixture
def table(tmp_path):
    """100 rows of three real columns and a name, as csv and parquet."""
    import pyarrow
    from pyarrow import csv, parquet

    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    named = {"id": [f"{i:03d}" for i in range(100)], "n": list(range(100))}
    columns = pyarrow.table(named | {c: x[:, i] for i, c in enumerate("abc")})
    csv.write_csv(columns, tmp_path / "rows.csv")
    parquet.write_table(columns, tmp_path / "rows.parquet", row_group_size=30)
    return x, tmp_path / "rows.csv", tmp_path / "rows.parquet"
