"""Runs of a few seconds, trained once for all tests of the command line, and how a command is run."""

import numpy as np
import pytest
from tests.cli.command import run


@pytest.fixture
def diffeo_command(monkeypatch):
    """`diffeo_command("sample", ...)` is the exit code of that command."""
    return lambda *args: run(monkeypatch, *args)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run on digits, 8 x 8 images of 17 levels."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        args = ["train", "nice", "--data", "digits", "--size", "tiny", "--steps", "30"]
        assert run(patch, *args, "--out", folder, "--quiet") == 0
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """A csv of 200 rows: a name and three real columns, of which two are a model's."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("tables") / "people.csv"
    x = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)) + [1, 2, 3]
    lines = [f"p{i:03d},{a:.4f},{b:.4f},{c:.4f}" for i, (a, b, c) in enumerate(x)]
    path.write_text("\n".join(["name,age,height,weight", *lines]))
    return path


@pytest.fixture(scope="session")
def table_run(table, tmp_path_factory):
    """A run on the columns weight and age of the table, in this order."""
    folder = tmp_path_factory.mktemp("runs") / "people"
    with pytest.MonkeyPatch.context() as patch:
        args = ["train", "realnvp", "data.columns=[weight, age]", "--data", table, "--size", "tiny"]
        assert run(patch, *args, "--steps", "5", "--out", folder, "--quiet") == 0
    return folder


@pytest.fixture
def refused(diffeo_command, capsys):
    """`refused(...)` is the sentence with which an edit ends."""

    def run(*args):
        assert diffeo_command("edit", *args) == 2
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return " ".join(text.split())

    return run
