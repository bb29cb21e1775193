"""A csv of every kind of column with missing cells: trained, sampled, scored, filled, and checked."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.csv as arrow
import pytest
import yaml
from tests.cli.command import run

import diffeo
from diffeo.applications import check_table

SCHEMA = """
income: positive
rate: {kind: bounded, low: 0, high: 1}
angle: {period: 360}
grade: {kind: ordinal, values: [low, mid, high]}
"""
COLUMNS = ["city", "age", "income", "rate", "angle", "grade", "joined", "height"]


def write_people(path: Path, n: int = 300) -> Path:
    g = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(COLUMNS)
        for _ in range(n):
            rate = g.beta(2, 3)
            row = [
                g.choice(["Rome", "Oslo", "Lima, Peru"]),
                int(g.integers(18, 80)),
                f"{np.exp(g.normal()):.3f}",
                f"{rate:.4f}",
                f"{g.normal(10, 40) % 360:.1f}",
                ["low", "mid", "high"][int(rate * 3)],
                np.datetime64("2024-01-01") + int(g.integers(0, 400)),
                f"{g.normal(170, 10):.1f}",
            ]
            for column in (0, 1, 2, 4, 6, 7):
                if g.random() < 0.08:
                    row[column] = ""
            out.writerow(row)
    return path


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    write_people(folder / "people.csv")
    (folder / "schema.yaml").write_text(SCHEMA)
    _train(folder, "all")
    return folder


@pytest.fixture(scope="module")
def given(people: Path) -> Path:
    """A run that is given city and age, without the column height."""
    return _train(people, "given", "--given", "city", "--given", "age", "data.kinds.height=drop")


def _train(folder: Path, name: str, *more: str) -> Path:
    common = ["--data", folder / "people.csv", "--schema", folder / "schema.yaml", "--size", "tiny"]
    common += ["--steps", "20", "--threads", "1", "--quiet", "--out", folder / name]
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, "train", "tabular", *common, *more) == 0
    return folder / name


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_synthetic_table_passes_the_checker(people, diffeo_command, tmp_path, suffix) -> None:
    out = tmp_path / f"new{suffix}"
    args = ("sample", people / "all", "--rows", "500", "--out", out)
    assert diffeo_command(*args) == 0
    flow = diffeo.load(people / "all")
    assert check_table(out, flow) == []
    if suffix == ".csv":
        found, real = (arrow.read_csv(p) for p in (out, people / "people.csv"))
        assert found.column_names == COLUMNS
        assert found.schema.types == real.schema.types
        assert found.column("age").null_count > 0
        assert len(found) == 500
        assert diffeo_command(*args, "--batch-size", "77") == 0
        again = arrow.read_csv(out)
        assert again.column("city") == found.column("city")
        assert again.column("rate").to_numpy() == pytest.approx(found.column("rate").to_numpy())


def test_the_checker_finds_what_is_wrong(people, tmp_path) -> None:
    text = (people / "people.csv").read_text().splitlines()
    head, rows = text[0], list(csv.reader(text[1:4]))
    rows[0][0], rows[1][1], rows[2][3] = "Bonn", "18.5", "1.5"
    rows[2][5] = ""
    path = tmp_path / "bad.csv"
    with path.open("w", newline="") as file:
        file.write(head + "\n")
        csv.writer(file).writerows(rows)
    flow = diffeo.load(people / "all")
    found = check_table(path, flow)
    assert {(v.column, v.row) for v in found} == {
        ("city", 0),
        ("age", 1),
        ("rate", 2),
        ("grade", 2),
    }
    path.write_text("city,age\nRome,20\n")
    assert [v.column for v in check_table(path, flow)] == COLUMNS[2:]


@pytest.mark.slow
def test_the_run_says_what_the_columns_are(given) -> None:
    known = yaml.safe_load((given / "schema.yaml").read_text())
    assert known["given"] == ["city", "age"]
    assert list(known["columns"]) == COLUMNS[:-1]
    assert known["columns"]["joined"]["low"] >= "2024-01-01"
    flow = diffeo.load(given)
    assert flow.likelihood == "bound"
    assert flow.context_shape == (3,)


def test_a_run_goes_on_with_its_columns(people, diffeo_command, capsys) -> None:
    args = ("train", "tabular", "--resume", "--out", people / "all")
    assert diffeo_command(*args, "--schema", people / "schema.yaml") == 0
    assert "nothing to resume" in capsys.readouterr().out
    for wrong, message in (
        (["data.kinds.rate=continuous"], "begun with another column 'rate'"),
        (["data.kinds.height=drop"], "begun with another column 'height'"),
        (["--given", "city"], "begun given no column, not city"),
    ):
        assert diffeo_command(*args, *wrong) == 2
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_ray_draws_the_same_rows(people, given, diffeo_command, tmp_path) -> None:
    pytest.importorskip("ray")
    for run_, more in (
        (people / "all", []),
        (given, ["--given", "city=Oslo", "--given", "age=30"]),
    ):
        tables = []
        for engine in ("local", "ray"):
            out = tmp_path / f"{engine}.csv"
            args = ("sample", run_, "--out", out, "--rows", "90", "--batch-size", "40")
            assert diffeo_command(*args, "--engine", engine, *more) == 0
            tables.append(arrow.read_csv(out))
        assert tables[0].column("city") == tables[1].column("city")
        rates = [t.column("rate").to_numpy() for t in tables]
        assert rates[0] == pytest.approx(rates[1], nan_ok=True)


@pytest.mark.slow
def test_given_values(people, given, diffeo_command, tmp_path, capsys) -> None:
    out = tmp_path / "new.csv"
    args = ("sample", given, "--out", out, "--rows", "20")
    assert diffeo_command(*args, "--given", "city=Oslo", "--given", "age=30") == 0
    found = arrow.read_csv(out)
    assert found.column_names == COLUMNS[:-1]
    assert set(found.column("city").to_pylist()) == {"Oslo"}
    assert set(found.column("age").to_pylist()) == {30}
    assert check_table(out, diffeo.load(given)) == []
    file = tmp_path / "given.csv"
    file.write_text("age,city,other\n20,Rome,1\n,Oslo,2\n")
    assert diffeo_command("sample", given, "--out", out, "--given", file) == 0
    assert arrow.read_csv(out).column("age").to_pylist() == [20, None]
    for wrong, message in (
        (["--given", "city=Oslo"], "'age' is missing"),
        (["--given", "city=Bonn", "--given", "age=3"], "holds 'Bonn', expected one of"),
        ([], "conditional: give city, age"),
        (["--given", tmp_path / "no.csv"], "there is no file"),
    ):
        assert diffeo_command(*args, *wrong) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert diffeo_command("sample", people / "all", "--out", out, "--given", "age=3") == 2
    assert "trained without given columns" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["all", pytest.param("given", marks=pytest.mark.slow)])
def test_scores(people, request, diffeo_command, tmp_path, name) -> None:
    if name == "given":
        request.getfixturevalue("given")
    out = tmp_path / "scores.csv"
    args = ("score", people / name, people / "people.csv", "--out", out, "--keep", "grade")
    assert diffeo_command(*args) == 0
    found = arrow.read_csv(out)
    assert found.column_names == ["row", "grade", "log_prob", "kind"]
    assert set(found.column("kind").to_pylist()) == {"bound"}
    assert np.isfinite(found.column("log_prob").to_numpy()).all()
    other = tmp_path / "other.csv"
    other.write_text((people / "people.csv").read_text().replace(",low,", ",none,"))
    assert diffeo_command("score", people / name, other, "--out", out) == 0
    assert np.isneginf(arrow.read_csv(out).column("log_prob").to_numpy()).any()


def test_missing_cells_are_filled(people, diffeo_command, tmp_path) -> None:
    out, real = tmp_path / "filled.csv", arrow.read_csv(people / "people.csv")
    args = ("impute", people / "all", people / "people.csv", "--out", out, "--steps", "5")
    assert diffeo_command(*args) == 0
    found = arrow.read_csv(out)
    assert found.column_names == COLUMNS
    assert sum(found.column(c).null_count for c in COLUMNS) == 0
    assert check_table(out, diffeo.load(people / "all")) == []
    there = real.column("height").is_valid().to_numpy()
    assert (
        real.column("height").to_numpy()[there] == found.column("height").to_numpy()[there]
    ).all()
    assert diffeo_command(*args, "--draws", "2") == 0
    assert arrow.read_csv(out).column("draw").to_pylist()[:4] == [0, 1, 0, 1]
    source = people / "people.csv"
    assert diffeo_command("impute", people / "all", source, "--out", source) == 2


@pytest.mark.slow
def test_other_data_are_read_by_the_schema_of_the_run(
    people, given, diffeo_command, tmp_path, capsys
) -> None:
    for name in ("all", "given"):
        assert diffeo_command("evaluate", people / name, "--data", people / "people.csv") == 0
        assert "Gaussian copula" in capsys.readouterr().out
    other = tmp_path / "other.csv"
    other.write_text((people / "people.csv").read_text().replace("Oslo", "Bonn"))
    assert diffeo_command("evaluate", people / "all", "--data", other) == 2
    assert "holds 'Bonn', expected one of its 3 values" in " ".join(capsys.readouterr().err.split())
