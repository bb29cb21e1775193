"""The commands that use a run: what they write, what they print, and what they say when something is wrong."""

import json

import numpy as np
import pytest
from pyarrow import csv, parquet

from diffeo.cli.app import console

COLUMNS = ["weight", "age"]


def one_json(capsys):
    """Standard output, which must be one JSON document."""
    return json.loads(capsys.readouterr().out)


def test_score_matches_the_flow_by_column_name(table_run, table, tmp_path, diffeo_command, capsys):
    import torch

    import diffeo

    out = tmp_path / "s.csv"
    args = ["score", table_run, table, "--out", out, "--keep", "name", "--batch-size", 33]
    assert diffeo_command(*args, "--json") == 0
    told = one_json(capsys)
    assert (told["rows"], told["kind"], told["resumed"]) == (200, "exact", 0)
    found = csv.read_csv(out)
    assert found.column_names == ["row", "name", "log_prob"]
    assert found.column("name").to_pylist() == [f"p{i:03d}" for i in range(200)]
    rows = csv.read_csv(table)
    x = torch.tensor(np.stack([rows.column(c).to_numpy() for c in COLUMNS], 1)).float()
    expected = diffeo.load(table_run).log_prob(x).detach().numpy()
    np.testing.assert_allclose(found.column("log_prob").to_numpy(), expected, rtol=1e-4)
    assert told["mean"] == pytest.approx(expected.mean(), rel=1e-5)


def test_a_table_there_and_back(table_run, table, tmp_path, diffeo_command):
    z, x = tmp_path / "z.parquet", tmp_path / "x.parquet"
    assert diffeo_command("encode", table_run, table, "--out", z) == 0
    assert diffeo_command("decode", table_run, "--data", z, "--out", x) == 0
    back, rows = parquet.read_table(x), csv.read_csv(table)
    assert back.column_names == COLUMNS
    for name in COLUMNS:
        np.testing.assert_allclose(back[name].to_numpy(), rows[name].to_numpy(), atol=1e-4)


def test_pictures_there_and_back(digits_run, tmp_path, diffeo_command):
    from PIL import Image

    x = np.random.default_rng(0).integers(0, 17, size=(30, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    z, back, grid = tmp_path / "z.npy", tmp_path / "back.npy", tmp_path / "back.png"
    assert diffeo_command("encode", digits_run, tmp_path / "x.npy", "--out", z) == 0
    assert diffeo_command("decode", digits_run, z, "--out", back) == 0
    np.testing.assert_array_equal(np.load(back), x)
    assert diffeo_command("decode", digits_run, z, "--out", grid) == 0
    with Image.open(grid) as picture:
        assert picture.size == (8 * 36 - 4, 4 * 36 - 4)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_samples_by_seed_and_temperature(table_run, tmp_path, diffeo_command, suffix):
    def drawn(*args):
        out = tmp_path / f"x{suffix}"
        assert diffeo_command("sample", table_run, "-n", 20, "--out", out, *args) == 0
        if suffix == ".npy":
            return np.load(out)
        rows = csv.read_csv(out) if suffix == ".csv" else parquet.read_table(out)
        assert rows.column_names == COLUMNS
        return np.stack([c.to_numpy() for c in rows.columns], 1)

    first = drawn("--seed", 3)
    np.testing.assert_array_equal(drawn("--seed", 3), first)
    np.testing.assert_allclose(drawn("--seed", 3, "--batch-size", 7), first, rtol=1e-4, atol=1e-5)
    assert not np.allclose(drawn("--seed", 4), first)
    assert drawn("--temperature", 0.1).std(0).max() < first.std(0).min()


def test_samples_of_another_size(digits_run, tmp_path, diffeo_command, capsys):
    out = tmp_path / "x.npy"
    assert diffeo_command("sample", "digits-glow", "-n", 2, "--out", out, "--size", "16x12") == 0
    assert np.load(out).shape == (2, 1, 16, 12)
    capsys.readouterr()
    for run, size, says in (
        ("digits-glow", "9x8", "choose sizes that the squeezes divide"),
        (digits_run, "16x16", "this model cannot be resized"),
    ):
        out = tmp_path / "y.npy"
        assert diffeo_command("sample", run, "--out", out, "--size", size) == 2
        assert says in " ".join(capsys.readouterr().err.split())
        assert not out.exists()


def test_evaluate_says_nats_bits_error_and_kind(digits_run, table_run, diffeo_command, capsys):
    assert diffeo_command("evaluate", digits_run, "--draws", 1) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("nice (tiny): ")
    for part in ("± ", " bits/dim, ", " nats on test data (bound)"):
        assert part in last
    assert diffeo_command("evaluate", table_run) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "bits" not in last
    assert last.endswith("(exact)")


def test_evaluate_names_the_importance_weighted_bound(
    digits_run, diffeo_command, capsys, monkeypatch
):
    monkeypatch.setattr(console, "width", 80)
    assert diffeo_command("evaluate", digits_run, "--importance", 3) == 0
    *shown, last = capsys.readouterr().out.strip().splitlines()
    assert last.endswith("(importance-weighted bound, K = 3)")
    assert any("importance-weighted" in line for line in shown)
    assert max(map(len, shown)) <= 80
    assert diffeo_command("evaluate", digits_run, "--importance", 3, "--json") == 0
    found = one_json(capsys)
    assert found["levels"] == 17
    assert found["rows"][0]["kind"] == "importance-weighted bound, K = 3"


def test_evaluate_other_data_takes_the_columns_by_name(
    table_run, table, tmp_path, diffeo_command, capsys
):
    turned = tmp_path / "turned.csv"
    csv.write_csv(csv.read_csv(table).select(["height", "age", "name", "weight"]), turned)
    values = []
    for path in (table, turned):
        assert diffeo_command("evaluate", table_run, "--data", path, "--json") == 0
        values.append(one_json(capsys)["rows"][0]["nats"])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_audit_passes_and_fails_by_exit_code(table_run, tmp_path, diffeo_command, capsys):
    assert diffeo_command("audit", table_run, "--rows", 16, "--json") == 0
    assert one_json(capsys)["passes"] is True
    assert diffeo_command("audit", table_run, "--rows", 16) == 0
    assert "Sound" in capsys.readouterr().out


def test_a_failing_audit_is_exit_code_1(table_run, tmp_path, diffeo_command, capsys):
    import shutil

    import torch

    import diffeo

    folder = tmp_path / "broken"
    shutil.copytree(table_run, folder)
    flow = diffeo.load(folder)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.fill_(float("nan"))
    flow.save(folder)
    assert diffeo_command("audit", folder, "--rows", 16, "--json") == 1
    assert one_json(capsys)["passes"] is False


def test_json_and_nothing_else(table_run, table, tmp_path, diffeo_command, capsys):
    z = tmp_path / "z.npy"
    for args in (
        ["models"],
        ["sample", table_run, "--out", tmp_path / "x.csv"],
        ["encode", table_run, table, "--out", z],
        ["decode", table_run, z, "--out", tmp_path / "y.csv"],
        ["evaluate", table_run],
    ):
        assert diffeo_command(*args, "--json") == 0
        one_json(capsys)


MISTAKES = {
    "importance of a density": (["evaluate", "RUN", "--importance", "2"], "is exact"),
    "a misspelt run": (["sample", "PEOPLE ", "--out", "x.csv"], "did you mean"),
    "a folder that is no run": (["sample", ".", "--out", "x.csv"], "no config.json"),
    "a file as a run": (["evaluate", "TABLE"], "no run folder"),
    "a table with other columns": (["score", "RUN", "other.csv", "--out", "s.csv"], "'weight'"),
    "a table that is not there": (["score", "RUN", "no.csv", "--out", "s.csv"], "no.csv"),
    "a table in another format": (["encode", "RUN", "other.txt", "--out", "z.npy"], ".txt"),
    "a name instead of a file": (["score", "RUN", "digits", "--out", "s.csv"], "digits"),
    "no table": (["score", "RUN", "--out", "s.csv"], "give the table once"),
    "two tables": (["encode", "RUN", "TABLE", "--data", "TABLE", "--out", "z.npy"], "once"),
    "scores as an array": (["score", "RUN", "TABLE", "--out", "s.npy"], ".parquet, .csv"),
    "latents as a picture": (["encode", "RUN", "TABLE", "--out", "z.png"], ".npy"),
    "vectors as a picture": (["sample", "RUN", "--out", "x.png"], "images"),
    "a folder to write to": (["sample", "RUN", "--out", "folder.csv"], "is a folder"),
    "a parent that is a file": (["sample", "RUN", "--out", "other.csv/x.csv"], "other.csv"),
    "latents of another model": (["decode", "RUN", "TABLE", "--out", "x.csv"], "(4,)"),
    "latents of another width": (["decode", "RUN", "narrow.csv", "--out", "x.csv"], "(1,)"),
    "a kept column that is not there": (
        ["score", "RUN", "TABLE", "--out", "s.csv", "--keep", "nam"],
        "did you mean 'name'",
    ),
    "other data with other columns": (["evaluate", "RUN", "--data", "other.csv"], "'weight'"),
    "audit of data that do not fit": (["audit", "RUN", "--data", "digits"], "(1, 8, 8)"),
    "an unknown engine": (["sample", "RUN", "--out", "x.csv", "--engine", "spark"], "spark"),
    "a table over itself": (["score", "RUN", "other.csv", "--out", "other.csv"], "is what is read"),
    "latents over themselves": (
        ["decode", "RUN", "other.csv", "--out", "./other.csv"],
        "is what is read",
    ),
    "another size of vectors": (["sample", "RUN", "--out", "x.csv", "--size", "4x4"], "of images"),
    "a size of one number": (["sample", "RUN", "--out", "x.csv", "--size", "32"], "such as 32x48"),
    "a size of nothing": (["sample", "RUN", "--out", "x.csv", "--size", "0x8"], "'0x8'"),
    "no rows at all": (["sample", "RUN", "--out", "x.csv", "-n", "0"], "-n"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_and_exit_2(
    name, table_run, table, tmp_path, diffeo_command, monkeypatch, capsys
):
    args, words = MISTAKES[name]
    (tmp_path / "other.csv").write_text("a,b\n" + "1,2\n3,5\n" * 20)
    (tmp_path / "narrow.csv").write_text("a\n" + "1\n3\n" * 20)
    (tmp_path / "other.txt").write_text("text")
    (tmp_path / "folder.csv").mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    places = {"RUN": table_run, "TABLE": table, "PEOPLE ": str(table_run)[:-1]}
    assert diffeo_command(*[places.get(a, a) for a in args]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert "Traceback" not in said.err
    assert not said.out
    if "error: " in said.err:  # ours, not of the parser of options
        assert said.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_one_sentence(table_run, diffeo_command, tmp_path, monkeypatch, capsys):
    import errno
    import os

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("diffeo.applications.outputs.os.fsync", full)
    assert diffeo_command("sample", table_run, "--out", tmp_path / "x.csv") == 2
    said = capsys.readouterr().err
    assert said == "error: cannot go on: No space left on device\n"
    assert not list(tmp_path.iterdir())


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(
    table_run, table, diffeo_command, tmp_path, monkeypatch, capsys
):
    from diffeo.applications import scoring

    stored = scoring._Job.store

    def store(self, index, part):
        if index == 3:
            raise KeyboardInterrupt
        stored(self, index, part)

    args = ["score", table_run, table, "--out", tmp_path / "s.csv", "--batch-size", 20]
    with monkeypatch.context() as patch:
        patch.setattr(scoring._Job, "store", store)
        assert diffeo_command(*args) == 130
    said = capsys.readouterr()
    assert said.err == "interrupted\n"
    assert not said.out
    assert diffeo_command(*args, "--json") == 0
    assert one_json(capsys)["resumed"] == 60
    assert [p.name for p in tmp_path.iterdir()] == ["s.csv"]
