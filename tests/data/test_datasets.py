"""Built-in sets: shapes, splits, dtypes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.files import DATA, lengths, needs, rows

from diffeo.data import builtin_names, density_names, load
from diffeo.errors import DataError


def test_digits() -> None:
    from sklearn.datasets import load_digits

    data, bunch = load("digits", seed=3), load_digits()
    order = np.random.RandomState(0).permutation(1797)
    assert lengths(data) == (1297, 140, 360)
    assert data.event_shape == (1, 8, 8)
    assert data.levels == 17
    assert data.train.dtype == torch.uint8
    assert rows(data).max() == 16
    assert np.array_equal(rows(data)[:, 0].numpy(), bunch.images[order])
    assert data.labels is not None
    assert np.array_equal(torch.cat(data.labels).numpy(), bunch.target[order])


@pytest.mark.parametrize("name", density_names())
def test_density_set(name: str) -> None:
    data, again, other = load(name, size=100), load(name, size=100), load(name, size=100, seed=1)
    assert lengths(data) == (100, 20, 50)
    assert data.train.dtype == torch.float32
    assert data.event_shape == (2,)
    assert data.density is not None
    assert data.density.name == name
    assert data.levels is None
    assert data.density.log_prob(rows(data)).isfinite().all()
    assert torch.equal(rows(data), rows(again))
    assert not torch.equal(data.train, other.train)
    assert not torch.equal(data.train[:20], data.validation)


@needs("mnist")
def test_mnist() -> None:
    data = load("mnist")
    labels = np.load(DATA / "mnist" / "train.npz")["labels"]
    assert lengths(data) == (50000, 10000, 10000)
    assert data.event_shape == (1, 28, 28)
    assert data.levels == 256
    assert data.labels is not None
    assert [len(part) for part in data.labels] == [50000, 10000, 10000]
    assert np.array_equal(data.labels[1].numpy(), labels[50000:])


@needs("cifar10")
def test_cifar10() -> None:
    data = load("cifar10")
    assert lengths(data) == (7200, 800, 2000)
    assert data.event_shape == (3, 32, 32)
    assert data.labels is not None
    labels = np.load(DATA / "cifar10" / "test.npz")["labels"]
    assert np.array_equal(data.labels[2].numpy(), labels)


def test_names_of_missing_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFEO_DATA", str(tmp_path))
    assert builtin_names() == ("digits", *density_names())


def test_import_is_light() -> None:
    code = (
        "import sys, diffeo.data; sys.exit(bool({'sklearn', 'pyarrow', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_levels_of_builtin_sets() -> None:
    assert load("digits", levels=32).levels == 32
    with pytest.raises(DataError, match=r"digits.* holds 16, expected an integer in 0\.\.15"):
        load("digits", levels=16)


@needs("mnist")
def test_bits_of_a_builtin_set() -> None:
    whole, some = load("mnist"), load("mnist", bits=3)
    assert some.levels == 8
    assert torch.equal(some.test, whole.test // 32)
    assert "3 of 8 bits kept" in some.source
