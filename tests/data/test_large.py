"""Files larger than memory give the same data as in memory, from memory-mapped files that are made once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.files import npy, parquet, pictures, text

from diffeo import evaluation
from diffeo.data import Data, csv_files, load, open_table, parts
from diffeo.data.stream import fingerprint
from diffeo.errors import DataError

VALUES = np.random.default_rng(0).normal(size=(5000, 3))
VALUES[1000:1100] = VALUES[:100]  # copies


def csv(folder: Path, values: np.ndarray = VALUES, name: str = "a.csv") -> Path:
    return text(folder, "a,b,c\n" + "".join(f"{a},{b},{c}\n" for a, b, c in values), name)


def table(folder: Path) -> Path:
    return parquet(folder, a=VALUES[:, 0], b=VALUES[:, 1], c=VALUES[:, 2])


def classes(folder: Path) -> Path:
    pictures(folder / "a", 30)
    pictures(folder / "b", 40)
    return folder


def with_test(folder: Path) -> Path:
    csv(folder, VALUES[3000:], "b.csv")
    return csv(folder, VALUES[:2000])


SOURCES: dict[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "csv": (csv, {}),
    "parquet": (table, {"split": (0.6, 0.2, 0.2), "seed": 3}),
    "npy": (lambda p: npy(p, VALUES), {}),
    "integers": (lambda p: npy(p, np.arange(8000).reshape(-1, 2) % 300), {"levels": 300}),
    "images": (lambda p: npy(p, np.arange(48000).reshape(-1, 4, 4, 3) % 251), {"bits": 4}),
    "pictures": (classes, {"bits": 5}),
    "test in a file": (with_test, {"test": "b.csv"}),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(parts, "_RANGE_BYTES", 2**12)  # several ranges of keys
    monkeypatch.setattr(parts, "_BLOCK_BYTES", 2**12)  # several blocks
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 2**12)
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path / "d")
    return tmp_path / "cache"


def equal(a: Data, b: Data) -> bool:
    pairs = [(a.train, b.train), (a.validation, b.validation), (a.test, b.test)]
    if a.labels is not None and b.labels is not None:
        pairs += zip(a.labels, b.labels, strict=True)
    same = all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)
    facts = [(d.name, d.levels, d.columns, d.source, d.labels is None) for d in (a, b)]
    return same and facts[0] == facts[1]


@pytest.mark.parametrize("case", SOURCES)
def test_same_as_in_memory(case: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, options = SOURCES[case]
    path = write(Path.cwd())
    whole = load(path, **options)
    assert not cache.exists()
    monkeypatch.setattr(parts, "LARGE", 0)
    mapped = load(path, **options)
    assert equal(whole, mapped)
    (folder,) = cache.iterdir()
    files = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert "parts.json" in files
    assert not any(name.startswith("range") for name in files)
    mapped.train.zero_()  # of this process alone
    assert equal(whole, load(path, **options))
    assert files == {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}


def test_changed_file_or_split_is_read_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LARGE", 0)
    first = load(csv(Path.cwd()))
    assert not torch.equal(load(csv(Path.cwd()), seed=1).train, first.train)
    assert len(load(csv(Path.cwd(), VALUES[:100])).train) == 80
    assert len(list(cache.iterdir())) >= 3


def test_interrupted_reading_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "LARGE", 0)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "check_columns", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(csv(Path.cwd()))
    assert list(cache.iterdir()) == []


def test_training_and_evaluation_on_mapped_data(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffeo

    path = csv(Path.cwd())
    held = load(path)
    monkeypatch.setattr(parts, "LARGE", 0)
    mapped = load(path)
    flow = diffeo.zoo.build("realnvp", (3,), size="tiny")
    diffeo.fit(flow, mapped, steps=3, progress=False)
    assert evaluation.evaluate(flow, held) == evaluation.evaluate(flow, mapped)
    assert evaluation.baselines(held) == evaluation.baselines(mapped)


@pytest.mark.parametrize("name", ["moons", "digits"])
def test_baselines_do_not_depend_on_chunks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(name, size=500)
    whole = evaluation.baselines(data)
    monkeypatch.setattr(evaluation, "_CHUNK_ENTRIES", 130)
    for a, b in zip(whole, evaluation.baselines(data), strict=True):
        # Noise comes in other portions, so a bound has other draws.
        assert a.nats == pytest.approx(b.nats, rel=1e-3 if a.kind == "bound" else 1e-12)
    if name == "moons":
        x, test = data.train.double(), data.test.double()
        normal = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov(correction=0))
        assert whole[0].nats == pytest.approx(float(-normal.log_prob(test).mean()), rel=1e-6)


# Tables in the order of the file


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npy", "npz"])
@pytest.mark.parametrize("start", [0, 1, 2500, 4999, 5000, 6000])
def test_batches(suffix: str, start: int, cache: Path) -> None:
    writers = {"csv": csv, "parquet": table, "npy": lambda p: npy(p, VALUES)}
    if suffix == "npz":
        path = Path("a.npz")
        np.savez(path, x=VALUES)
    else:
        path = writers[suffix](Path.cwd())
    found = open_table(path)
    assert found.event_shape == (3,)
    assert found.rows == (None if suffix == "csv" else 5000)
    assert found.columns == (("a", "b", "c") if suffix in ("csv", "parquet") else None)
    batches = list(found.batches(700, start))
    assert all(len(batch) == 700 for batch in batches[:-1])
    rows = np.concatenate([np.empty((0, 3), np.float32), *batches])
    assert rows.dtype == np.float32
    assert np.array_equal(rows, VALUES[start:].astype(np.float32))


def test_batches_of_chosen_columns_and_levels(cache: Path) -> None:
    path = csv(Path.cwd(), np.arange(60).reshape(20, 3))
    (batch,) = open_table(path, columns=("c", "a"), levels=60).batches(100)
    assert batch.dtype == np.uint8
    assert batch.tolist() == [[3 * i + 2, 3 * i] for i in range(20)]


def test_bad_row_is_named_by_its_number_in_the_file(cache: Path) -> None:
    values = VALUES.copy()
    values[4321, 1] = np.nan
    for path, place in ((csv(Path.cwd(), values), r"row 4321 \(line 4323\), column 'b'"),):
        with pytest.raises(DataError, match=place):
            list(open_table(path).batches(500, 3000))
    with pytest.raises(DataError, match="row 4321, column 1 holds nan"):
        list(open_table(npy(Path.cwd(), values)).batches(500, 3000))


def test_fingerprint(tmp_path: Path) -> None:
    path = text(tmp_path, b"a" * 200_000)
    before, status = fingerprint(path), path.stat()
    assert fingerprint(path) == before
    path.write_bytes(b"a" * 199_999 + b"b")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint(path) != before
    with pytest.raises(DataError, match="cannot be read"):
        fingerprint(tmp_path / "no.csv")


@pytest.mark.slow
def test_peak_memory(cache: Path) -> None:
    """Reading a table of 2e7 x 8 numbers, 640 MB in float32, takes less memory than the table."""
    import pyarrow
    from pyarrow import parquet as arrow

    names = [f"x{i}" for i in range(8)]
    schema = pyarrow.schema([(name, pyarrow.float32()) for name in names])
    random = np.random.default_rng(0)
    with arrow.ParquetWriter("large.parquet", schema) as writer:
        for _ in range(20):
            block = random.normal(size=(10**6, 8)).astype(np.float32)
            writer.write_table(pyarrow.table(dict(zip(names, block.T, strict=True)), schema))
    code = (
        "import resource, torch, numpy, pyarrow.parquet, lightning, sys\n"
        "from diffeo.data import load\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "data = load('large.parquet')\n"
        "print(before, peak(), len(data.train), len(data.validation), len(data.test))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, peak, *sizes = map(int, done.stdout.split())
    print(f"peak {peak} MB, of it {before} MB before")
    assert sizes == [16_000_000, 2_000_000, 2_000_000]
    assert peak - before < 640
