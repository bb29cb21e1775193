"""Flows that come with the package: found by name, small, and as good as their results say."""

import json

import pytest
from tests.cli import command

import diffeo
from diffeo.evaluation import evaluate
from diffeo.pretrained import HERE, names

NAMES = pytest.mark.parametrize("name", names())


def test_there_are_some():
    assert "digits-glow" in names()


@NAMES
def test_it_is_small(name):
    assert sum(p.stat().st_size for p in (HERE / name).iterdir()) < 2_000_000


@NAMES
def test_it_is_as_good_as_its_results_say(name):
    stored = json.loads((HERE / name / "results.json").read_text())["rows"][0]
    flow = diffeo.load(name)
    row = evaluate(flow, diffeo.data.load(name.split("-")[0]), draws=2)
    assert row.kind == stored["kind"]
    assert row.bits == pytest.approx(stored["bits"], abs=0.02)


def test_commands_take_the_name(tmp_path, monkeypatch):
    from PIL import Image

    out = tmp_path / "digits.png"
    assert command.run(monkeypatch, "sample", "digits-glow", "-n", 9, "--out", out) == 0
    assert Image.open(out).size[0] >= 24


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    diffeo.zoo.build("nice", (2,), size="tiny").save("digits-glow")
    assert diffeo.load("digits-glow").event_shape == (2,)


def test_nothing_is_written_into_the_package(monkeypatch, capsys):
    assert command.run(monkeypatch, "report", "digits-glow") == 2
    assert "comes with diffeo" in " ".join(capsys.readouterr().err.split())
