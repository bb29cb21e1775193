"""POWER, GAS, HEPMASS and MINIBOONE: the published preprocessing, on small files of the published layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.files import lengths, npy, parquet, rows, text
from tests.data.test_bad_inputs import check_sentence

from diffeo.data import builtin_names, load
from diffeo.errors import DataError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFEO_DATA", str(tmp_path))
    return tmp_path


def table(folder: Path, header: list[str], values: Any, name: str) -> None:
    body = "\n".join(",".join(f"{v:.17g}" for v in row) for row in values)
    folder.mkdir(exist_ok=True)
    text(folder, ",".join(header) + "\n" + body + "\n", name)


def standardized(data: Any) -> None:
    both = rows(data)[: len(data.train) + len(data.validation)].double()
    assert both.mean(0).abs().max() < 1e-5
    assert (both.std(0, correction=0) - 1).abs().max() < 1e-5


def test_power(folder: Path) -> None:
    x = np.random.default_rng(0).integers(0, 50, (205, 8)).astype(np.float64)
    (folder / "power").mkdir()
    npy(folder / "power", x).rename(folder / "power" / "data.npy")
    data = load("power")
    assert lengths(data) == (167, 18, 20)
    assert data.columns is not None
    assert len(data.columns) == 6
    assert (data.levels, data.event_shape) == (None, (6,))
    assert "power" in builtin_names()
    standardized(data)

    # The steps as the authors describe them, in place and in their order.
    rng = np.random.RandomState(42)
    rng.shuffle(x)
    x = np.delete(x, [1, 3], axis=1)
    voltage, active, meters = 0.01 * rng.rand(205, 1), 0.001 * rng.rand(205, 1), rng.rand(205, 3)
    x += np.hstack((active, voltage, meters, np.zeros((205, 1))))
    x = (x - x[:185].mean(0)) / x[:185].std(0)
    assert np.abs(rows(data).numpy() - x).max() < 1e-6


def gas(n: int = 300) -> tuple[list[str], Any]:
    """Sensors a to e; b is nearly a, e nearly d, and c nearly minus a, which is no reason to drop it."""
    g = np.random.default_rng(1)
    a, d = g.normal(size=(2, n))
    near = 0.1 * g.normal(size=(3, n))
    sensors = (a, a + near[0], near[1] - a, d, d + near[2])
    columns = np.stack([np.arange(n), g.normal(size=n), g.normal(size=n), *sensors], 1)
    return ["Time", "Meth", "Eth", *"abcde"], columns


def test_gas(folder: Path) -> None:
    names, x = gas()
    table(folder / "gas", names, x, "ethylene_CO.csv")
    data = load("gas")
    assert data.columns == ("b", "c", "e")
    assert lengths(data) == (243, 27, 30)
    kept = x[:, [4, 5, 7]]
    kept = (kept - kept.mean(0)) / kept.std(0, ddof=1)
    assert np.abs(rows(data).numpy() - kept).max() < 1e-6
    (folder / "gas" / "ethylene_CO.csv").unlink()
    parquet(folder / "gas", "ethylene_CO.parquet", **dict(zip(names, x.T, strict=True)))
    assert (rows(load("gas")) == rows(data)).all()


def test_gas_never_opens_a_pickle(folder: Path) -> None:
    (folder / "gas").mkdir()
    text(folder / "gas", b"cos\nsystem\n(S'false'\ntR.", "ethylene_CO.pickle")
    with pytest.raises(DataError, match=r"read_pickle\('ethylene_CO.pickle'\)\.to_csv") as info:
        load("gas")
    check_sentence(str(info.value))


def test_hepmass(folder: Path) -> None:
    g = np.random.default_rng(2)
    names = ["# label", "f0", "f1", "f2", "mass"]
    x = g.normal(size=(90, 4))
    x[:, 1] = g.integers(0, 3, 90)  # its smallest value repeats: dropped
    x[:40, 2] = 5.0  # a value in the middle or above repeats: kept, as in the published code
    label = np.arange(90) % 2
    train, test = np.c_[label, x[:, :3]][:60], np.c_[label, x][60:]
    table(folder / "hepmass", names[:4], train, "1000_train.csv")
    table(folder / "hepmass", names, test, "1000_test.csv")
    data = load("hepmass")
    assert data.columns == ("f0", "f2")
    assert lengths(data) == (27, 3, 15)
    signal = train[train[:, 0] == 1][:, [1, 3]]
    mean, std = signal.mean(0), signal.std(0, ddof=1)
    assert np.abs(rows(data)[:30].numpy() - (signal - mean) / std).max() < 1e-6
    held_out = (test[test[:, 0] == 1][:, [1, 3]] - mean) / std
    assert np.abs(data.test.numpy() - held_out).max() < 1e-6
    # Cells beyond the header are not read.
    table(folder / "hepmass", names[:4], test, "1000_test.csv")
    assert (load("hepmass").test == data.test).all()


def test_miniboone(folder: Path) -> None:
    x = np.random.default_rng(3).lognormal(size=(100, 43))
    (folder / "miniboone").mkdir()
    npy(folder / "miniboone", x).rename(folder / "miniboone" / "data.npy")
    data = load("miniboone")
    assert lengths(data) == (81, 9, 10)
    standardized(data)
    assert np.abs(data.test[0].numpy() - (x[90] - x[:90].mean(0)) / x[:90].std(0)).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("power", "data.npy"),
        ("gas", "ethylene_CO.pickle"),
        ("hepmass", "1000_train.csv"),
        ("miniboone", "data.npy"),
        ("bsds300", "BSDS300.hdf5"),
    ],
)
def test_a_missing_file_is_named_with_its_source(name: str, file: str) -> None:
    with pytest.raises(DataError, match=r"zenodo.org/record/1161203") as info:
        load(name)
    assert f"{name}/{file}" in str(info.value)
    check_sentence(str(info.value))


BAD = {
    "width": ("miniboone", "data.npy", np.zeros((50, 50)), r"expected real numbers \[n, 43\]"),
    "NaN": ("power", "data.npy", np.full((50, 8), np.nan), "row 0, column 0 holds nan"),
    "constant": ("miniboone", "data.npy", np.ones((50, 43)), "one value in every training row"),
    "few": (
        "power",
        "data.npy",
        np.random.default_rng(0).normal(size=(9, 8)),
        "9 rows, expected at least 10",
    ),
    "text": ("hepmass", "1000_train.csv", "# label,f0\n1,a\n", "is no table of numbers"),
    "short": ("hepmass", "1000_train.csv", "# label,f0\n1\n", "is no table of numbers"),
    "header": ("hepmass", "1000_train.csv", "nothing\n", "expected a header"),
    "class": ("hepmass", "1000_train.csv", "# label,f0\n0,1\n", "0 rows of class 1"),
    "columns": ("gas", "ethylene_CO.csv", "Time,a\n1,2\n", "expected Time, Meth, Eth"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_of_another_layout(case: str, folder: Path) -> None:
    name, file, content, message = BAD[case]
    (folder / name).mkdir()
    if isinstance(content, str):
        text(folder / name, content, file)
    else:
        npy(folder / name, content).rename(folder / name / file)
    with pytest.raises(DataError, match=message) as info:
        load(name)
    check_sentence(str(info.value))


def test_levels_are_refused() -> None:
    with pytest.raises(DataError, match="'power' is continuous"):
        load("power", levels=10)
