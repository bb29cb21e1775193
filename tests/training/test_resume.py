"""Killed at any moment, a run goes on to the weights that it would have had."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import diffeo
from diffeo.errors import ConfigError, SavedModelError, TrainingError
from diffeo.training import run as runs
from diffeo.training.checkpoint import checkpoint_path, read_checkpoint
from diffeo.training.recipe import recipe

# Shuffling, dequantization noise, dropout, averages, schedule, batch norm and early stopping all on.
RECIPE = {
    "model": "realnvp",
    "size": "tiny",
    "hyper": {"flatten": True, "layers": 3, "dropout": 0.2},
    "data": {"source": "digits"},
    "training": {
        "batch_size": 64,
        "epochs": 3,
        "validate_every": 9,
        "patience": 20,
        "ema": 0.9,
        "warmup": 5,
        "checkpoint_steps": 4,
        "checkpoint_minutes": None,
        "threads": 1,
    },
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    runs.train(recipe(RECIPE), folder, progress=False)
    return folder


def child(folder, moment, count=1, **kwargs):
    path = folder.parent / "recipe.yaml"
    path.write_text(recipe(RECIPE).to_yaml())
    command = [sys.executable, "-m", "tests.training.killing", moment, str(count)]
    command += ["train", str(path), "--out", str(folder), "--resume", "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs
    )


def assert_same(folder, whole):
    """The weights and the curves, bit for bit."""
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    mine, theirs = (runs.open_run(f)[2] for f in (folder, whole))
    assert mine["history"] == theirs["history"]
    assert mine["rows"] == theirs["rows"]
    lines = [
        [line.split(",")[:4] for line in (f / "metrics.csv").read_text().splitlines()]
        for f in (folder, whole)
    ]
    assert lines[0] == lines[1]


def test_three_kills(whole, tmp_path):
    folder = tmp_path / "run"
    # The rename of the recipe is the first, that of the first checkpoint the second.
    steps = []
    for moment, count in (("in a step", 14), ("before the rename", 3), ("after a validation", 2)):
        process = child(folder, moment, count)
        out = process.communicate(timeout=120)[0].decode()
        assert process.returncode == -signal.SIGKILL, out
        steps.append(read_checkpoint(folder)["step"])
        assert not (folder / "results.json").exists()
    assert steps == sorted(steps)
    assert steps[0] == 12
    assert steps[-1] > steps[0]
    runs.train(recipe(RECIPE), folder, progress=False, resume=True)
    assert_same(folder, whole)
    assert not list(checkpoint_path(folder).parent.glob(".*"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_at_random_moments(tmp_path, monkeypatch):
    # Images: convolutions and batch norm, a checkpoint after every other step.
    monkeypatch.setitem(RECIPE, "hyper", {"width": 4, "dropout": 0.2})
    monkeypatch.setitem(RECIPE, "training", RECIPE["training"] | {"checkpoint_steps": 2})
    runs.train(recipe(RECIPE), tmp_path / "whole", progress=False)
    folder, chance, killed, steps = tmp_path / "run", random.Random(0), 0, set()
    while killed < 20:
        process = child(folder, "never")
        # From the moment on that training begins, which rewrites metrics.csv.
        begun, curves = time.time_ns(), folder / "metrics.csv"
        while process.poll() is None and not (
            curves.exists() and curves.stat().st_mtime_ns > begun
        ):
            time.sleep(0.005)
        try:
            process.wait(chance.uniform(0.0, 3.0))
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
            state = read_checkpoint(folder)
            steps.add(None if state is None else state["step"])
        out = process.communicate()[0].decode()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, out
        if (folder / "results.json").exists():
            runs.train(recipe(RECIPE), folder, progress=False, resume=True)
            assert_same(folder, tmp_path / "whole")
            shutil.rmtree(folder)
    runs.train(recipe(RECIPE), folder, progress=False, resume=True)
    assert_same(folder, tmp_path / "whole")
    assert len(steps) > 5, f"too few moments: {steps}"


def interrupted(folder, monkeypatch, step):
    """A run in this process that ends with an error of ours after a step."""
    from diffeo.training.module import MaximumLikelihood

    original = MaximumLikelihood.on_train_batch_end

    def end(self, outputs, batch, batch_idx):
        original(self, outputs, batch, batch_idx)
        if self.step == step:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(MaximumLikelihood, "on_train_batch_end", end)
        with pytest.raises(RuntimeError, match="killed"):
            runs.train(recipe(RECIPE), folder, progress=False)


def test_before_the_first_checkpoint_it_begins_again(whole, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    interrupted(folder, monkeypatch, 3)
    checkpoint_path(folder).unlink()
    runs.train(recipe(RECIPE), folder, progress=False, resume=True)
    assert_same(folder, whole)


def test_a_finished_run_is_left_as_it_is(whole):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    results = runs.train(recipe(RECIPE), whole, progress=False, resume=True)
    assert results["stopped"] in ("budget", "early stopping")
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


def test_after_training_only_the_results_are_made(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "results.json").unlink()
    (folder / "model.safetensors").unlink()
    runs.train(recipe(RECIPE), folder, progress=False, resume=True)
    assert_same(folder, whole)


def fits(folder, data=None, **settings):
    torch.manual_seed(0)
    flow = diffeo.zoo.build("realnvp", (2,), size="tiny")
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(1)) if data is None else data
    defaults = {"batch_size": 32, "steps": 20, "checkpoint_steps": 5, "progress": False}
    diffeo.fit(flow, x, folder=folder, **(defaults | settings))
    return torch.cat([p.detach().flatten() for p in flow.parameters()])


def test_other_data_and_other_settings_are_refused(tmp_path):
    fits(tmp_path)
    with pytest.raises(ConfigError, match=r"lr = 0\.001"):
        fits(tmp_path, resume=True, lr=1e-2)
    with pytest.raises(ConfigError, match="the data are not those"):
        fits(tmp_path, resume=True, data=torch.randn(200, 2))
    loader = torch.utils.data.DataLoader(torch.randn(64, 2), batch_size=8)
    with pytest.raises(ConfigError, match="DataLoader"):
        fits(tmp_path, resume=True, data=loader)
    with pytest.raises(ConfigError, match="folder"):
        fits(None, resume=True)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    fits(tmp_path)
    path = checkpoint_path(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SavedModelError, match="truncated"):
        fits(tmp_path, resume=True)
    torch.save({"format": Path("x")}, path)
    with pytest.raises(SavedModelError, match="truncated or edited"):
        fits(tmp_path, resume=True)
    torch.save({"format": "other"}, path)
    with pytest.raises(SavedModelError, match="not written by diffeo"):
        fits(tmp_path, resume=True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, number):
    from diffeo.training import checkpoint

    expected = fits(tmp_path / "whole")
    original, calls = checkpoint.write_atomically, 0

    def full(path, content):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(number, os.strerror(number))
        return original(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full)
        with pytest.raises(TrainingError, match="that of step 5 is kept") as raised:
            fits(tmp_path / "full")
    assert os.strerror(number) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert read_checkpoint(tmp_path / "full")["step"] == 5
    assert torch.equal(fits(tmp_path / "full", resume=True), expected)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot write into"):
        fits(tmp_path / "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_curves_on_a_full_disk(tmp_path):
    (tmp_path / "metrics.csv").symlink_to("/dev/full")
    with pytest.raises(
        TrainingError, match=r"cannot write .*metrics\.csv: No space left"
    ) as raised:
        fits(tmp_path)
    assert "\n" not in str(raised.value)
