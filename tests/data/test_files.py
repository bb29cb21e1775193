"""Arrays and tables in files: dtypes, shapes, columns, and the split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.files import BODY, ROWS, lengths, npy, npz, parquet, rows, text

from diffeo.data import load

RANDOM = np.random.default_rng(0)

# Files that load: (array, options, event shape, dtype, levels)

FILES: dict[str, tuple[Any, dict[str, Any], tuple[int, ...], torch.dtype, int | None]] = {
    "float64 table": (RANDOM.normal(size=(40, 3)), {}, (3,), torch.float32, None),
    "float16 table": (
        RANDOM.normal(size=(40, 3)).astype(np.float16),
        {},
        (3,),
        torch.float32,
        None,
    ),
    "big-endian table": (RANDOM.normal(size=(40, 3)).astype(">f8"), {}, (3,), torch.float32, None),
    "one column": (RANDOM.normal(size=40), {}, (1,), torch.float32, None),
    "integer table": (np.arange(80).reshape(40, 2), {}, (2,), torch.float32, None),
    "integer table, levels": (
        np.arange(80).reshape(40, 2),
        {"levels": 80},
        (2,),
        torch.uint8,
        80,
    ),
    "many levels": (np.arange(80).reshape(40, 2), {"levels": 1000}, (2,), torch.int64, 1000),
    "float table, levels": (np.ones((40, 2)), {"levels": 2}, (2,), torch.uint8, 2),
    "images NHW": (RANDOM.integers(0, 9, (40, 4, 6)), {}, (1, 4, 6), torch.uint8, 256),
    "images NHWC": (RANDOM.integers(0, 9, (40, 4, 6, 3)), {}, (3, 4, 6), torch.uint8, 256),
    "images NCHW": (RANDOM.integers(0, 9, (40, 3, 6, 4)), {}, (3, 6, 4), torch.uint8, 256),
    "images, 300 values": (
        np.arange(640).reshape(40, 4, 4) % 300,
        {},
        (1, 4, 4),
        torch.int64,
        300,
    ),
    "masks": (RANDOM.integers(0, 2, (40, 4, 4)).astype(bool), {}, (1, 4, 4), torch.uint8, 2),
    "float images": (RANDOM.normal(size=(40, 4, 6, 3)), {}, (3, 4, 6), torch.float32, None),
    "float series": (RANDOM.normal(size=(40, 4, 6)), {}, (4, 6), torch.float32, None),
}


@pytest.mark.parametrize("case", FILES)
def test_npy(case: str, tmp_path: Path) -> None:
    value, options, shape, dtype, levels = FILES[case]
    data = load(str(npy(tmp_path, value)), **options)
    assert lengths(data) == (32, 4, 4)
    assert data.event_shape == shape
    assert data.train.dtype == dtype
    assert data.levels == levels
    assert "80/10/10" in data.source
    assert "\n" not in data.source
    # Every row is in exactly one part.
    assert rows(data).double().sum() == pytest.approx(float(np.sum(value, dtype=float)), abs=1e-3)


def test_channels_are_moved_not_reshaped(tmp_path: Path) -> None:
    value = RANDOM.integers(0, 256, (40, 4, 6, 3)).astype(np.uint8)
    data = load(npy(tmp_path, value))
    found = {row.tobytes() for row in rows(data).permute(0, 2, 3, 1).numpy()}
    assert found == {row.tobytes() for row in value}
    assert "[n, H, W, C] turned into [n, C, H, W]" in data.source


def test_split_is_disjoint_and_seeded(tmp_path: Path) -> None:
    path = npy(tmp_path, np.arange(105.0))
    data, again, other = load(path), load(path), load(path, seed=1)
    assert lengths(data) == (85, 10, 10)
    assert rows(data).flatten().sort().values.tolist() == list(range(105))
    assert torch.equal(rows(data), rows(again))
    assert not torch.equal(data.test, other.test)


@pytest.mark.parametrize("keys", [("anything",), ("images", "z"), ("data", "z"), ("x", "z")])
def test_npz_key(keys: tuple[str, ...], tmp_path: Path) -> None:
    path = npz(tmp_path, **{key: RANDOM.normal(size=(20, i + 2)) for i, key in enumerate(keys)})
    assert load(path).event_shape == (2,)


def test_npz_labels_follow_their_rows(tmp_path: Path) -> None:
    data = load(npz(tmp_path, x=np.arange(30.0), labels=np.arange(30)))
    assert data.labels is not None
    assert torch.equal(torch.cat(data.labels).float(), rows(data)[:, 0])


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"train": 20}, (16, 2, 2)),
        ({"train": 20, "test": 5}, (18, 2, 5)),
        ({"train": 20, "validation": 3}, (18, 3, 2)),
        ({"train": 20, "val": 3, "test": 5}, (20, 3, 5)),
    ],
)
def test_npz_parts(parts: dict[str, int], expected: tuple[int, ...], tmp_path: Path) -> None:
    path = npz(tmp_path, **{part: RANDOM.normal(size=(n, 2)) for part, n in parts.items()})
    assert lengths(load(path)) == expected


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (BODY, None),
        ("a,b\n" + BODY, ("a", "b")),
        ("\ufeffa,b\n" + BODY, ("a", "b")),
        ('"a, with comma",b\r\n\r\n' + BODY.replace("\n", "\r\n"), ("a, with comma", "b")),
        ("\n\n a ,b\n" + BODY, ("a", "b")),
        ("a,b\n" + BODY.replace("5,", "+5,"), ("a", "b")),
        ('a,b\n"0","0"\n' + BODY[4:], ("a", "b")),
        (("a,b\n" + BODY).replace(",", ";"), ("a", "b")),
        (("a,b\n" + BODY).replace(",", "\t"), ("a", "b")),
    ],
)
def test_csv(content: str, columns: tuple[str, ...] | None, tmp_path: Path) -> None:
    data = load(text(tmp_path, content))
    assert data.columns == columns
    assert data.train.dtype == torch.float32
    assert sorted(rows(data).tolist()) == [[i, i * i] for i in range(12)]


def test_csv_with_levels(tmp_path: Path) -> None:
    data = load(text(tmp_path, BODY), levels=122)
    assert data.train.dtype == torch.uint8
    assert data.levels == 122


def test_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path, a=ROWS[:, 0], b=np.arange(40), c=np.arange(40) % 2 == 0)
    data = load(path)
    assert data.columns == ("a", "b", "c")
    found = rows(data)[rows(data)[:, 1].argsort()]
    assert torch.equal(found[:, 0], torch.from_numpy(ROWS[:, 0]).float())
    assert found[:, 2].tolist() == [1.0, 0.0] * 20


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_are_chosen_and_ordered(suffix: str, tmp_path: Path) -> None:
    if suffix == "csv":
        body = "".join(f'{i},"a, ""quoted""\n line",{-i}\n' for i in range(12))
        path = text(tmp_path, "a,note,b\n" + body)
    else:
        a = np.arange(12.0)
        path = parquet(tmp_path, a=a, note=["x"] * 12, b=-a)
    data = load(path, columns=["b", "a"])
    assert data.columns == ("b", "a")
    assert sorted(rows(data).tolist()) == [[float(-i), float(i)] for i in range(11, -1, -1)]


# The split


@pytest.mark.parametrize("split", [(0.5, 0.25, 0.25), (0.9, 0.05, 0.05), (0.2, 0.3, 0.5)])
def test_declared_split(split: tuple[float, float, float], tmp_path: Path) -> None:
    data = load(npy(tmp_path, RANDOM.normal(size=(100, 2))), split=split)
    assert lengths(data) == tuple(round(100 * share) for share in split)


def test_equal_rows_are_in_one_part(tmp_path: Path) -> None:
    values = np.repeat(RANDOM.normal(size=(300, 2)), 3, axis=0)
    values[1] *= [1, -0.0]  # 0.0 and -0.0 are equal
    values[2, 1] = 0.0
    values[2, 0] = values[1, 0]
    data = load(npy(tmp_path, values))
    parts = [
        {tuple(row) for row in part.tolist()} for part in (data.train, data.validation, data.test)
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 301
    assert sorted(rows(data).tolist()) == sorted(values.astype(np.float32).tolist())
    assert sum(lengths(data)) == 900
    assert all(abs(len(part) - n) <= 3 for part, n in zip(parts, (241, 30, 30), strict=True))
    assert "(599 copies)" in data.source


def test_split_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    values = RANDOM.normal(size=(100, 2))
    a = load(npy(tmp_path, values))
    b = load(npy(tmp_path, values[::-1]))
    assert torch.equal(rows(a), rows(b))


def test_parts_are_random_rows(tmp_path: Path) -> None:
    data = load(npy(tmp_path, np.arange(10_000.0)))
    # Mean of a uniform sample of n of 0..9999: 4999.5 with standard error 2887 / sqrt(n).
    for part in (data.train, data.validation, data.test, data.train[:500]):
        assert abs(part.mean() - 4999.5) < 4 * 2887 / len(part) ** 0.5
    order = np.corrcoef(data.train[:-1, 0].numpy(), data.train[1:, 0].numpy())[0, 1]
    assert abs(order) < 4 / 8000**0.5


def test_integers_with_levels_are_split_by_row(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 3, (1000, 2))
    data = load(npy(tmp_path, values), levels=3)
    assert lengths(data) == (800, 100, 100)
    assert len(data.train.unique(dim=0)) == len(data.test.unique(dim=0)) == 9
    assert "row by row" in data.source


def test_parts_from_files(tmp_path: Path) -> None:
    train = text(tmp_path, "a,b\n" + BODY, "train.csv")
    test = text(tmp_path, "b,c,a\n1,2,3\n0,7,0\n", "test.csv")
    data = load(train, test=test)
    assert lengths(data) == (11, 1, 2)
    assert data.test.tolist() == [[3, 1], [0, 0]]
    assert "1 of 2 given test rows are also training rows" in data.source
    validation = parquet(tmp_path, a=[5.5, 6.5], b=[1, 2])
    data = load(train, test=test, validation=validation)
    assert lengths(data) == (12, 2, 2)
    assert data.train[:, 0].tolist() == list(range(12))
