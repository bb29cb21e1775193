"""The command line, from file to report, and what it says when something is wrong."""

import json

import numpy as np
import pytest
import yaml
from tests.cli.conftest import run


@pytest.fixture(scope="module")
def trained(digits_run):
    """A run on digits."""
    return digits_run


def test_train_leaves_a_whole_run_folder(trained):
    names = {p.name for p in trained.iterdir()}
    assert names >= {
        "config.json",
        "model.safetensors",
        "recipe.yaml",
        "metrics.csv",
        "checkpoints",
        "report.html",
        "results.json",
    }
    rows = json.loads((trained / "results.json").read_text())["rows"]
    assert [r["kind"] for r in rows] == ["bound", "exact", "exact", "bound"]
    assert rows[1]["bits"] == pytest.approx(4.09, abs=0.005)
    assert rows[2]["bits"] == pytest.approx(2.42, abs=0.005)
    assert rows[3]["bits"] == pytest.approx(2.95, abs=0.005)
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    assert recipe["model"] == "nice"
    assert recipe["training"]["steps"] == 30


def test_evaluate_and_report(trained, monkeypatch, capsys):
    assert run(monkeypatch, "evaluate", trained, "--json", "--draws", 2) == 0
    shown = json.loads(capsys.readouterr().out)
    stored = json.loads((trained / "results.json").read_text())["rows"][0]
    assert shown["rows"][0]["bits"] == pytest.approx(stored["bits"], abs=0.02)
    (trained / "report.html").unlink()
    assert run(monkeypatch, "report", trained) == 0
    assert "<html" in (trained / "report.html").read_text()


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_sample(trained, suffix, tmp_path, monkeypatch):
    out = tmp_path / f"x{suffix}"
    assert run(monkeypatch, "sample", trained, "-n", 5, "--out", out, "--seed", 3) == 0
    first = out.read_bytes()
    assert run(monkeypatch, "sample", trained, "-n", 5, "--out", out, "--seed", 3) == 0
    assert out.read_bytes() == first
    if suffix == ".npy":
        x = np.load(out)
        assert (x.shape, x.dtype) == ((5, 1, 8, 8), np.uint8)
        assert x.max() <= 16


def test_a_table_from_file_to_samples(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) + [1, 2, 3]
    path = tmp_path / "table.csv"
    np.savetxt(path, table, delimiter=",", header="a,b,c", comments="")
    folder = tmp_path / "run"
    args = ["--size", "tiny", "--epochs", 2, "--out", folder, "--quiet"]
    assert run(monkeypatch, "train", "realnvp", "--data", path, *args) == 0
    out = tmp_path / "samples.csv"
    assert run(monkeypatch, "sample", folder, "-n", 7, "--out", out) == 0
    lines = out.read_text().splitlines()
    assert lines[0] == "a,b,c"
    assert len(lines) == 8


def test_a_recipe_with_overrides(tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: realnvp\nsize: tiny\ndata: {source: moons, size: 100}\ntraining: {steps: 5}\n"
    )
    folder = tmp_path / "run"
    args = ["training.batch_size=16", "hyper.layers=2", "--quiet", "--out", folder]
    assert run(monkeypatch, "train", recipe, *args) == 0
    stored = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert stored["training"]["batch_size"] == 16
    assert stored["hyper"] == {"layers": 2}
    again = tmp_path / "again"
    assert run(monkeypatch, "train", folder / "recipe.yaml", "--quiet", "--out", again) == 0
    for name in ("model.safetensors",):
        assert (folder / name).read_bytes() == (again / name).read_bytes()


def test_demo(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "demo"
    for _ in range(2):
        assert run(monkeypatch, "demo", "--out", folder, "--minutes", 0.02, "--quiet") == 0
    assert "bits/dim" in capsys.readouterr().out
    assert (folder / "report.html").is_file()


def test_models(monkeypatch, capsys):
    assert run(monkeypatch, "models", "--json") == 0
    names = {c["name"] for c in json.loads(capsys.readouterr().out)}
    assert names >= {"nice", "realnvp", "measure_preserving", "revnet"}


MISTAKES = {
    "an unknown model": (["train", "realnpv", "--data", "digits"], "did you mean 'realnvp'"),
    "unknown data": (["train", "nice", "--data", "digts"], "digits"),
    "a missing file": (["train", "nice", "--data", "nowhere.csv"], "nowhere.csv"),
    "a missing recipe": (["train", "nowhere.yaml"], "nowhere.yaml"),
    "no data": (["train", "nice"], "--data"),
    "a bad override": (["train", "nice", "training.lr", "--data", "digits"], "key=value"),
    "a misspelt override": (
        ["train", "nice", "training.epoch=3", "--data", "digits"],
        "did you mean 'epochs'",
    ),
    "a misspelt model setting": (
        ["train", "nice", "hyper.coupling=3", "--data", "digits"],
        "did you mean 'couplings'",
    ),
    "a wrong size": (["train", "nice", "--data", "digits", "--size", "big"], "size"),
    "no run": (["evaluate", "nowhere"], "nowhere"),
    "an unknown split": (["evaluate", "RUN", "--split", "all"], "'all'"),
    "a file type nobody writes": (["sample", "RUN", "--out", "x.gif"], ".gif"),
    "a table of pictures": (["sample", "RUN", "--out", "x.csv"], ".npy"),
    "other data that do not fit": (["evaluate", "RUN", "--data", "moons"], "(1, 8, 8)"),
    "a folder that holds a run": (
        ["train", "nice", "--data", "digits", "--out", "RUN"],
        "already holds a run",
    ),
    "an unknown command": (["trian"], "trian"),
    "a picture model on a table": (["train", "revnet", "--data", "moons"], "(2,)"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_and_exit_2(name, trained, tmp_path, monkeypatch, capsys):
    args, words = MISTAKES[name]
    before = sorted(p.name for p in trained.iterdir())
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *[trained if a == "RUN" else a for a in args]) == 2
    said = capsys.readouterr()
    assert words in said.err.replace("\n", " ") + said.out
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())
    assert sorted(p.name for p in trained.iterdir()) == before
