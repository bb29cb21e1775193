"""Schemas of files, rows of numbers and back, and what is refused in one sentence."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffeo.columns import schema
from diffeo.data import csv_files
from diffeo.data.arrow_files import arrow_tables
from diffeo.data.codec import decode, encode
from diffeo.data.inference import infer
from diffeo.data.typed import load_typed, read_declared, schema_of, typed_table
from diffeo.errors import ConfigError, DataError

CSV = """id,city,n,x,when,seen,code,flag
1,"Lima, Peru",3,0.5,2024-01-31,2024-01-31 10:00:00,007,1
2,Oslo,-2,1e3,2024-02-29,2024-02-01 12:00:00,010,0
3,,4,NA,,2024-02-02 00:00:00,007,1
4,Oslo,4,-0.25,2023-12-31,2024-02-02T23:00:00,100,0
"""


def _write(folder: Path, text: str = CSV, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_what_is_inferred_from_text(tmp_path: Path) -> None:
    known, remarks = infer(_write(tmp_path))
    kinds = {c.name: (c.kind, c.missing, c.type) for c in known.columns}
    assert kinds == {
        "id": ("integer", False, "int64"),
        "city": ("categorical", True, "string"),
        "n": ("integer", False, "int64"),
        "x": ("continuous", True, "double"),
        "when": ("date", True, "date32[day]"),
        "seen": ("datetime", False, "timestamp[s]"),
        "code": ("categorical", False, "string"),
        "flag": ("integer", False, "int64"),
    }
    assert known.column("city").values == ("Oslo", "Lima, Peru")
    assert (known.column("n").low, known.column("n").high) == (-2, 4)
    assert known.column("seen").step == 3600
    assert known.column("when").range == "2023-12-31 to 2024-02-29"
    assert schema(known.plain()) == known
    assert not remarks


def test_declared_kinds_win(tmp_path: Path) -> None:
    declared = {"id": "drop", "flag": "categorical", "n": {"kind": "integer", "low": -5, "high": 9}}
    known, _ = infer(_write(tmp_path), declared, given=("city",))
    assert known.names == ("city", "n", "x", "when", "seen", "code", "flag")
    assert known.column("flag").values == ("0", "1")
    assert known.column("n").levels == 15
    assert known.context_shape == (1,)
    for wrong, message in (
        ({"idd": "drop"}, "did you mean 'id'"),
        ({"x": "integer"}, "declared integer, but holds other"),
        ({"x": "bounde"}, "did you mean 'bounded'"),
        ({"x": {"kind": "bounded", "hihg": 3}}, "did you mean 'high'"),
        ({"code": "ordinal"}, "give its values in their order"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            infer(_write(tmp_path), wrong)
    with pytest.raises(ConfigError, match="no column 'town' to be given"):
        infer(_write(tmp_path), given=("town",))


def test_csv_comes_back(tmp_path: Path) -> None:
    known, _ = infer(_write(tmp_path))
    table = next(arrow_tables(tmp_path / "a.csv", None, 100))
    rows = encode(table, known)
    assert rows.shape == (4, *known.event_shape)
    back = decode(rows, known)
    assert back.column_names == list(known.names)
    assert back.column("city").to_pylist() == ["Lima, Peru", "Oslo", None, "Oslo"]
    assert back.column("x").to_pylist() == [0.5, 1000.0, None, -0.25]
    assert back.column("n").to_pylist() == [3, -2, 4, 4]
    assert back.column("when").to_pylist()[0] == dt.date(2024, 1, 31)
    assert back.column("seen").to_pylist()[3] == dt.datetime(2024, 2, 2, 23)
    assert back.column("code").to_pylist() == ["007", "010", "007", "100"]


TYPED: dict[str, Any] = {
    "i": pa.array([1, None, 300], pa.int16()),
    "f": pa.array([1.5, 2.25, None], pa.float32()),
    "w": pa.array([1.0, 2.0, 4.0], pa.float64()),
    "b": pa.array([True, False, None]),
    "s": pa.array(["a", "b", "a"]).dictionary_encode(),
    "l": pa.array(["u", None, "u"], pa.large_string()),
    "d": pa.array([dt.date(2020, 1, 1), None, dt.date(1969, 12, 30)]),
    "t": pa.array(
        [dt.datetime(2020, 1, 1, 0, 0, 7), None, dt.datetime(2020, 1, 1)],
        pa.timestamp("us", tz="UTC"),
    ),
}


def test_parquet_comes_back(tmp_path: Path) -> None:
    pq.write_table(pa.table(TYPED), tmp_path / "a.parquet")
    known, _ = infer(tmp_path / "a.parquet")
    kinds = " ".join(c.kind for c in known.columns)
    assert kinds == "integer continuous integer categorical categorical categorical date datetime"
    table = next(arrow_tables(tmp_path / "a.parquet", None, 10))
    back = decode(encode(table, known), known)
    for name, array in TYPED.items():
        assert back.column(name).to_pylist() == array.to_pylist()
        assert back.schema.field(name).type == (pa.string() if name == "s" else array.type)


def test_what_is_refused(tmp_path: Path) -> None:
    known, _ = infer(_write(tmp_path))
    for old, new, message in (
        ("Oslo,-2", "Roma,-2", "row 1, column 'city' holds 'Roma', expected one of its 2 values"),
        ("Oslo,-2", "Oslo,-3", "row 1, column 'n' holds -3, expected an integer in -2 to 4"),
        ("Oslo,-2", "Oslo,", "row 1, column 'n' is empty, expected a value"),
        ("1e3", "big", "row 1, column 'x' holds 'big', expected a number"),
        ("2024-02-29", "2025-02-28", "column 'when' holds '2025-02-28', expected a date in"),
        ("2024-02-29", "yesterday", "column 'when' holds 'yesterday', expected a date in ISO form"),
    ):
        path = _write(tmp_path, CSV.replace(old, new, 1), "b.csv")
        with pytest.raises(DataError, match=message):
            list(typed_table(path, known).batches(10))
    path = _write(tmp_path, CSV.replace("Oslo,-2", "Roma,-9"), "c.csv")
    lenient = typed_table(path, known, strict=False)
    rows = next(iter(lenient.batches(10)))
    assert rows[1, 1] == -1
    assert rows[1, 2] == -1
    for text, message in (
        ("1,2\n3,4\n", "no header"),
        ("a,b\n1\n", "not a readable csv"),
        ("a,b\n1,x1\n" + "".join(f"1,x{i}\n" for i in range(2, 90)), "is no category"),
        ("a,b\n0.5,1\n0.5,2\n", "one value in every row"),
        ("a,b\n,1\n,2\n", "no value in any row"),
        ("a,b\ninf,1\n2,2\n", "infinite"),
        ("a,a\n1,1\n", "twice"),
        ("a,b\n", "no row"),
    ):
        with pytest.raises(DataError, match=message):
            infer(_write(tmp_path, text, "d.csv"))
    with pytest.raises(DataError, match="expected a table with named columns"):
        schema_of(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot read the schema"):
        read_declared(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="mapping from column names"):
        read_declared(_write(tmp_path, "- a\n", "s.yaml"))


def test_parts_and_what_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size make the same rows; equal rows are no copies."""
    text = "g,x,n\n" + "".join(f"{'ab'[i % 2]},{i / 7:.3f},{i % 3}\n" for i in range(100))
    path = _write(tmp_path, text)
    known, _ = schema_of(str(path), given=("g",))
    data = load_typed(str(path), known)
    assert [len(p) for p in (data.train, data.validation, data.test)] == [80, 10, 10]
    assert data.event_shape == (2,)
    assert data.context_shape == (1,)
    assert data.contexts is not None
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 64)
    again = load_typed(str(path), known)
    assert np.array_equal(again.train, data.train)
    assert np.array_equal(again.contexts[0], data.contexts[0])
    # n = i mod 3, g = i mod 2 and x = i / 7 belong together still.
    i = (data.train[:, 0].double() * 7).round().long()
    assert bool((data.train[:, 1] == i % 3).all())
    assert bool((data.contexts[0][:, 0] == i % 2).all())
    complete = {"complete": True, **known.plain()}
    assert schema_of(str(path), complete)[0] == known
