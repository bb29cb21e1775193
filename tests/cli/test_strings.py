"""Strings on the command line: train, evaluate, sample, score, encode, decode, strength."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest
from tests.cli.command import run

FIRST, THEN, LAST = ("ka", "mi", "to", "re"), ("la", "no", "vi", "su"), ("", "n", "ra")
NAMES = [a + b + c for a in FIRST for b in THEN for c in LAST]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "names.txt"
    path.write_text("\n".join(NAMES) + "\n")
    return path


@pytest.fixture(scope="module")
def names_run(names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "names"
    with pytest.MonkeyPatch.context() as patch:
        args = ["train", "passflow", "--data", names, "--size", "tiny", "--steps", "5"]
        assert run(patch, *args, "--out", folder, "--quiet") == 0
    return folder


def test_samples_are_strings(names_run, tmp_path, diffeo_command):
    out = tmp_path / "new.txt"
    assert diffeo_command("sample", names_run, "-n", "30", "--out", out) == 0
    lines = out.read_text().split("\n")
    assert len(lines) == 31
    assert set("".join(lines)) <= set("".join(NAMES))
    assert max(map(len, lines)) <= 6


def test_latents_and_back(names_run, names, tmp_path, diffeo_command):
    z, back = tmp_path / "z.npy", tmp_path / "again.txt"
    assert diffeo_command("encode", names_run, names, "--out", z) == 0
    assert diffeo_command("decode", names_run, z, "--out", back) == 0
    assert back.read_text() == names.read_text()


def test_scores_and_evaluation(names_run, names, tmp_path, diffeo_command, capsys):
    out = tmp_path / "scores.csv"
    assert diffeo_command("score", names_run, names, "--out", out, "--keep", "string") == 0
    rows = list(csv.DictReader(out.open()))
    assert [r["string"] for r in rows] == NAMES
    assert all(-40 < float(r["log_prob"]) < 0 for r in rows)
    # Other strings are read with the alphabet and the length of the run.
    few = tmp_path / "few.txt"
    few.write_text("\n".join(NAMES[::4]) + "\n")
    capsys.readouterr()
    assert diffeo_command("evaluate", names_run, "--data", few, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"][0]["kind"] == "exact"
    assert found["levels"] == len(set("".join(NAMES))) + 1


def test_strength_of_a_file_shows_no_string(names_run, names, tmp_path, diffeo_command, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text("kala\n\nSECRET\nrevin\n")
    args = ["strength", names_run, "--strings", listed, "--samples", "200"]
    assert diffeo_command(*args) == 0
    text = capsys.readouterr().out
    assert not any(s in text for s in ("kala", "SECRET", "revin"))
    assert "exact" in text
    out = tmp_path / "strengths.csv"
    assert diffeo_command(*args, "--json", "--out", out) == 0
    found = json.loads(capsys.readouterr().out)
    assert [s["line"] for s in found["strings"]] == [1, 3, 4]
    assert [s["bits"] is None for s in found["strings"]] == [False, True, False]
    assert "place 1" in found["strings"][1]["reason"]
    rows = list(csv.DictReader(out.open()))
    assert [r["string"] for r in rows] == ["kala", "SECRET", "revin"]
    assert float(rows[0]["bits"]) == pytest.approx(found["strings"][0]["bits"])


def test_strength_of_standard_input(names_run, diffeo_command, monkeypatch, capsys):
    stream = io.TextIOWrapper(io.BytesIO(b"kala\r\nmino\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    assert diffeo_command("strength", names_run, "--samples", "50", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["strings"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strings", "missing.txt"], "no file that ends in .txt"),
        (["--strings", "picture.png"], "no file that ends in .txt"),
        (["--strings", "empty.txt"], "no string to judge"),
        (["--strings", "latin.txt"], "no text in UTF-8"),
        (["--strings", "some.txt", "--out", "some.txt"], "written as .csv"),
    ],
)
def test_strength_refuses(
    arguments, message, names_run, diffeo_command, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "some.txt").write_text("kala\n")
    assert diffeo_command("strength", names_run, *arguments) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert "Traceback" not in error


def test_a_model_of_other_data_has_no_strength(digits_run, names, tmp_path, diffeo_command, capsys):
    assert diffeo_command("strength", digits_run, "--strings", names) == 2
    assert "this model is not of strings" in " ".join(capsys.readouterr().err.split())
    assert diffeo_command("sample", digits_run, "--out", tmp_path / "new.txt") == 2
    assert diffeo_command("score", digits_run, names, "--out", tmp_path / "s.csv") == 2
    assert not list(tmp_path.iterdir())
