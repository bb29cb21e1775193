"""The train command: resume, Ctrl-C, divergence and warm starts, as the shell sees them."""

import json
import os
import signal

import pytest
from tests.cli.command import run

from diffeo.training.module import MaximumLikelihood

ARGUMENTS = ["train", "realnvp", "--data", "moons", "--size", "tiny", "--batch-size", 32, "--quiet"]


@pytest.fixture
def press(monkeypatch):
    """Ctrl-C while the 15th step is computed."""
    original = MaximumLikelihood.training_step

    def step(self, batch, batch_idx):
        if batch.step == 14:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(MaximumLikelihood, "training_step", step)


def test_ctrl_c_leaves_a_run_that_works_and_goes_on(press, tmp_path, monkeypatch, capsys):
    arguments = [*ARGUMENTS, "--steps", 40, "data.size=300", "--ema", 0.9]
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments, "--out", "run") == 130
    assert "--resume --out run" in " ".join(capsys.readouterr().out.split())
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["stopped"] == "interrupted"
    assert results["metrics"]["steps"] == 15
    assert (tmp_path / "run" / "report.html").is_file()
    assert run(monkeypatch, "evaluate", "run") == 0
    assert run(monkeypatch, "sample", "run", "-n", 3, "--out", "x.csv") == 0
    assert run(monkeypatch, "train", "--resume", "--out", "run", "--quiet") == 0
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert run(patch, *arguments, "--out", "whole") == 0
    first, second = (tmp_path / f / "model.safetensors" for f in ("run", "whole"))
    assert first.read_bytes() == second.read_bytes()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that reached its end."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    with pytest.MonkeyPatch.context() as patch:
        assert run(patch, *ARGUMENTS, "--steps", 5, "data.size=300", "--out", folder) == 0
    return folder


def test_resume_of_a_finished_run(finished, monkeypatch, capsys):
    assert run(monkeypatch, "train", "--resume", "--out", finished) == 0
    assert "is finished: there is nothing to resume" in " ".join(capsys.readouterr().out.split())


def test_a_run_from_another(finished, tmp_path, monkeypatch):
    folder = tmp_path / "second"
    arguments = ["train", "--from", finished, "--steps", 3, "--out", folder, "--quiet"]
    assert run(monkeypatch, *arguments, "training.warmup=0", "--device", "cpu") == 0
    stored = (folder / "recipe.yaml").read_text()
    assert f"start: {finished}" in stored
    assert "model: realnvp" in stored


def test_divergence_is_one_sentence_and_exit_1(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    arguments = [*ARGUMENTS, "--steps", 50, "data.size=300", "training.warmup=0", "--lr", 1e6]
    assert run(monkeypatch, *arguments, "--out", folder) == 1
    said = capsys.readouterr().err
    assert "error: training diverged at step" in said
    assert "transform.parts." in said
    assert "Traceback" not in said
    assert run(monkeypatch, "train", "--resume", "--out", folder) == 2
    assert "would diverge again" in capsys.readouterr().err
    assert run(monkeypatch, "sample", folder, "-n", 2, "--out", tmp_path / "x.npy") == 0


MISTAKES = {
    "another setting": (["train", "--resume", "--lr", 1, "--out", "RUN"], "begun with training.lr"),
    "another model": (["train", "nice", "--resume", "--out", "RUN"], "begun with model"),
    "nothing to resume": (["train", "--resume", "--out", "nowhere"], "say what to train"),
    "a run that is not there": (["train", "--from", "nowhere"], "holds no run to start from"),
    "a run of another model": (["train", "nice", "--from", "RUN"], "is a realnvp, not a nice"),
    "other data": (
        ["train", "--from", "RUN", "--data", "digits", "--out", "second"],
        "models events of shape (2,)",
    ),
    "an unknown device": ([*ARGUMENTS, "--device", "gpu"], "training.device"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name, finished, tmp_path, monkeypatch, capsys):
    arguments, words = MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *[finished if a == "RUN" else a for a in arguments]) == 2
    said = capsys.readouterr()
    assert words in " ".join(said.err.split()) + said.out
    assert "Traceback" not in said.err
    assert not list(tmp_path.iterdir())


def test_an_unknown_model_is_said_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "train", "realnpv") == 2
    assert "there is no model 'realnpv', did you mean 'realnvp'?" in capsys.readouterr().err
    assert run(monkeypatch, "train", "realnvp") == 2
    assert "say what to train on" in capsys.readouterr().err
