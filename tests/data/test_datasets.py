"""Built-in sets and files: shapes, splits, dtypes, and one clear sentence for each bad file."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffeo.data import Data, builtin_names, density_names, load
from diffeo.errors import DataError, InputError

DATA = Path(os.environ.get("DIFFEO_DATA") or "../shared/data")
RANDOM = np.random.default_rng(0)


def needs(name: str) -> pytest.MarkDecorator:
    reason = f"set DIFFEO_DATA to the folder that holds {name}"
    return pytest.mark.skipif(not (DATA / name).is_dir(), reason=reason)


def lengths(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.validation), len(data.test)


def rows(data: Data) -> torch.Tensor:
    return torch.cat((data.train, data.validation, data.test))


def save_npy(path: Path, value: Any) -> Path:
    np.save(path / "a.npy", value)
    return path / "a.npy"


def save_npz(path: Path, **values: Any) -> Path:
    np.savez(path / "a.npz", **values)
    return path / "a.npz"


def save_text(path: Path, text: str | bytes) -> Path:
    (path / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return path / "a.csv"


# Built-in sets


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


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFEO_DATA", str(tmp_path))
    assert builtin_names() == ("digits", *density_names())
    with pytest.raises(DataError, match="set DIFFEO_DATA"):
        load(name)


def test_import_is_light() -> None:
    code = "import sys, diffeo.data; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
    data = load(str(save_npy(tmp_path, value)), **options)
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
    data = load(save_npy(tmp_path, value))
    found = {row.tobytes() for row in rows(data).permute(0, 2, 3, 1).numpy()}
    assert found == {row.tobytes() for row in value}
    assert "[n, H, W, C] turned into [n, C, H, W]" in data.source


def test_split_is_disjoint_and_seeded(tmp_path: Path) -> None:
    path = save_npy(tmp_path, np.arange(105.0))
    data, again, other = load(path), load(path), load(path, seed=1)
    assert lengths(data) == (85, 10, 10)
    assert rows(data).flatten().sort().values.tolist() == list(range(105))
    assert torch.equal(rows(data), rows(again))
    assert not torch.equal(data.test, other.test)


@pytest.mark.parametrize("keys", [("anything",), ("images", "z"), ("data", "z"), ("x", "z")])
def test_npz_key(keys: tuple[str, ...], tmp_path: Path) -> None:
    path = save_npz(
        tmp_path, **{key: RANDOM.normal(size=(20, i + 2)) for i, key in enumerate(keys)}
    )
    assert load(path).event_shape == (2,)


def test_npz_labels_follow_their_rows(tmp_path: Path) -> None:
    data = load(save_npz(tmp_path, x=np.arange(30.0), labels=np.arange(30)))
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
    path = save_npz(tmp_path, **{part: RANDOM.normal(size=(n, 2)) for part, n in parts.items()})
    assert lengths(load(path)) == expected


BODY = "".join(f"{i},{i * i}\n" for i in range(12))


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (BODY, None),
        ("a,b\n" + BODY, ("a", "b")),
        ("\ufeffa,b\n" + BODY, ("a", "b")),
        ('"a, with comma",b\r\n\r\n' + BODY.replace("\n", "\r\n"), ("a, with comma", "b")),
        (",b\n" + BODY, ("column 0", "b")),
        (("a,b\n" + BODY).replace(",", ";"), ("a", "b")),
        (("a,b\n" + BODY).replace(",", "\t"), ("a", "b")),
    ],
)
def test_csv(text: str, columns: tuple[str, ...] | None, tmp_path: Path) -> None:
    data = load(save_text(tmp_path, text))
    assert data.columns == columns
    assert data.train.dtype == torch.float32
    assert sorted(rows(data).tolist()) == [[i, i * i] for i in range(12)]


def test_csv_with_levels(tmp_path: Path) -> None:
    data = load(save_text(tmp_path, BODY), levels=122)
    assert data.train.dtype == torch.uint8
    assert data.levels == 122


# Files that do not load: (write the file, options, what the sentence says)

TABLE = np.arange(40.0).reshape(20, 2)


def with_values(*places: tuple[int, float]) -> Any:
    table = TABLE.copy()
    for row, value in places:
        table[row, 1] = value
    return table


def foreign_zip(path: Path) -> Path:
    with zipfile.ZipFile(path / "a.npz", "w") as archive:
        archive.writestr("a.txt", "hello")
    return path / "a.npz"


def truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-50])
    return path


def broken_lzma(path: Path) -> Path:
    with zipfile.ZipFile(path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x.npy", save_npy(path, RANDOM.normal(size=(50, 2))).read_bytes())
    content = bytearray((path / "a.npz").read_bytes())
    content[100:400] = bytes(300)
    return written(path / "a.npz", bytes(content))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


Writer = Callable[[Path], Path]
BAD: dict[str, tuple[Writer, dict[str, Any], str]] = {
    "missing": (lambda p: p / "no.npy", {}, "there is no file .*no.npy"),
    "folder": (lambda p: p, {}, "a folder"),
    "ending": (lambda p: written(p / "a.txt", b"1"), {}, "'.txt'.*ends in .npy, .npz or .csv"),
    "empty npy": (lambda p: written(p / "a.npy", b""), {}, "is empty"),
    "empty npz": (lambda p: written(p / "a.npz", b""), {}, "is empty"),
    "empty csv": (lambda p: save_text(p, ""), {}, "is empty"),
    "no rows": (lambda p: save_text(p, "a,b\n"), {}, "no row of numbers"),
    "not npy": (lambda p: written(p / "a.npy", b"hello, world"), {}, "not a readable npy"),
    "not npz": (lambda p: written(p / "a.npz", b"hello, world"), {}, "not a readable npz"),
    "zip of text": (foreign_zip, {}, "not a readable npy"),
    "truncated npy": (lambda p: truncated(save_npy(p, TABLE)), {}, "not a readable npy"),
    "truncated npz": (lambda p: truncated(save_npz(p, x=TABLE)), {}, "not a readable npz"),
    "broken lzma": (broken_lzma, {}, "not a readable npy"),
    "binary csv": (lambda p: save_text(p, b"\xff\xfe1,2\n"), {}, "not a readable csv"),
    "objects": (lambda p: save_npy(p, np.array([{}] * 20)), {}, "pickle"),
    "objects npz": (lambda p: save_npz(p, x=np.array([{}] * 20)), {}, "pickle"),
    "no array": (lambda p: save_npz(p), {}, "holds no array"),
    "keys": (lambda p: save_npz(p, a=TABLE, b=TABLE), {}, r"it holds a \[20, 2\], b \[20, 2\]"),
    "labels": (lambda p: save_npz(p, x=TABLE, labels=np.arange(3)), {}, "'labels' must be"),
    "parts": (
        lambda p: save_npz(p, train=TABLE, test=TABLE[:, :1]),
        {},
        r"'test' has rows of float64 \[1\], but 'train'",
    ),
    "complex": (lambda p: save_npy(p, TABLE * 1j), {}, "dtype complex128"),
    "strings": (lambda p: save_npy(p, TABLE.astype(str)), {}, "dtype <U"),
    "dates": (lambda p: save_npy(p, TABLE.astype("M8[D]")), {}, "dtype datetime64"),
    "0-d": (lambda p: save_npy(p, np.array(3.0)), {}, "a single number"),
    "few rows": (lambda p: save_npy(p, TABLE[:9]), {}, "9 rows, expected at least 10"),
    "no columns": (lambda p: save_npy(p, TABLE[:, :0]), {}, "hold no value"),
    "nan": (
        lambda p: save_npy(p, with_values(*((i, np.nan) for i in (3, 5, 7, 9)))),
        {},
        "NaN or Inf in 4 of 20 rows, the first: row 3, row 5, row 7 ",
    ),
    "inf": (lambda p: save_npy(p, with_values((4, np.inf))), {}, "1 of 20 rows, the first: row 4"),
    "nan csv": (lambda p: save_text(p, "a,b\n1,nan\n" + BODY), {}, r"row 0 \(line 2\)"),
    "overflow": (lambda p: save_npy(p, with_values((4, 1e39))), {}, "row 4 .*float32"),
    "ragged": (lambda p: save_text(p, BODY + "1,2,3\n"), {}, r"row 12 \(line 13\) has 3 cells"),
    "text": (
        lambda p: save_text(p, "a,b\n1,2\n3,four\n" + BODY),
        {},
        r"row 1 \(line 3\), column 'b' holds 'four'",
    ),
    "text, no header": (lambda p: save_text(p, "1,two\n" + BODY), {}, "row 0 .*column 1.*'two'"),
    "blank cell": (lambda p: save_text(p, "a,b\n1,\n" + BODY), {}, "column 'b' is empty"),
    "above levels": (
        lambda p: save_npy(p, TABLE.astype(int)),
        {"levels": 30},
        r"row 15 holds 30, expected an integer in 0\.\.29",
    ),
    "below levels": (lambda p: save_npy(p, with_values((2, -1))), {"levels": 99}, "row 2 holds -1"),
    "between levels": (lambda p: save_npy(p, TABLE / 4), {"levels": 99}, "row 0 holds 0.25"),
    "negative image": (lambda p: save_npy(p, -np.ones((20, 4, 4), int)), {}, "the integer -1"),
    "constant column": (
        lambda p: save_text(p, "a,b\n" + "".join(f"{i},7\n" for i in range(12))),
        {},
        "column 'b' has one value in every training row",
    ),
    "constant array column": (lambda p: save_npy(p, TABLE * [0, 1]), {}, "column 0 has one value"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file(case: str, tmp_path: Path) -> None:
    write, options, message = BAD[case]
    path = write(tmp_path)
    with pytest.raises(DataError, match=message) as info:
        load(str(path), **options)
    text = str(info.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert str(path) in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "did you mean 'digits'"),
        ("MNIST", "did you mean 'mnist'"),
        ("zzz", "known: digits, moons"),
    ],
)
def test_unknown_name(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(name)


@pytest.mark.parametrize(
    "options", [{"seed": -1}, {"seed": 0.5}, {"size": 9}, {"size": "many"}, {"levels": 1}]
)
def test_bad_option(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} must be an integer of"):
        load("moons", **options)


def test_levels_of_builtin_sets() -> None:
    assert load("digits", levels=32).levels == 32
    with pytest.raises(DataError, match=r"digits.* holds 16, expected an integer in 0\.\.15"):
        load("digits", levels=16)
    with pytest.raises(DataError, match="continuous"):
        load("moons", levels=2)
