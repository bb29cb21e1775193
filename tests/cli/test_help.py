"""Help, version and what the shell offers on Tab."""

import pytest

import diffeo
from diffeo.cli.complete import data_names, model_names, run_folders

COMMANDS = [
    "train",
    "demo",
    "evaluate",
    "sample",
    "score",
    "encode",
    "decode",
    "models",
    "report",
    "audit",
]


def test_version(diffeo_command, capsys):
    assert diffeo_command("--version") == 0
    assert capsys.readouterr().out == f"diffeo {diffeo.__version__}\n"


def test_help_groups_the_commands_in_order(diffeo_command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert diffeo_command("--help") == 0
    text = capsys.readouterr().out
    places = [text.index(f"─ {panel} ") for panel in ("Train", "Use a run", "Look")]
    assert places == sorted(places)
    commands = [text.index(f"│ {name} ") for name in COMMANDS]
    assert commands == sorted(commands)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", [c for c in COMMANDS if c not in ("train", "demo", "models")])
def test_every_command_has_an_example_that_parses(name, diffeo_command, monkeypatch, capsys):
    import shlex

    from typer.main import get_command

    from diffeo.cli.app import app

    monkeypatch.setenv("COLUMNS", "100")
    assert diffeo_command(name, "--help") == 0
    lines = [s.strip() for s in capsys.readouterr().out.splitlines()]
    examples = [s for s in lines if s.startswith(f"diffeo {name} ")]
    assert examples
    group = get_command(app)
    for line in examples:
        command = group.commands[name]
        command.make_context(name, shlex.split(line)[2:], resilient_parsing=False)


def test_completion_of_models_and_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a\n")
    assert "realnvp" in [name for name, _ in model_names("real")]
    assert all(name.startswith("real") for name, _ in model_names("real"))
    assert data_names("dig") == ["digits"]
    assert data_names("ro") == ["rows.csv"]


def test_completion_of_run_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/first", "runs/second", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("first", "second"):
        (tmp_path / "runs" / name / "model.safetensors").touch()
    assert run_folders("") == ["runs/first", "runs/second", "digits-glow"]
    assert run_folders("dig") == ["digits-glow"]
    assert run_folders("runs/f") == ["runs/first"]
    assert run_folders("ot") == ["other/"]


def test_the_shell_gets_them(tmp_path, monkeypatch, diffeo_command, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "runs" / "first" / "model.safetensors").touch()
    monkeypatch.setenv("_DIFFEO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "diffeo evaluate ru")
    monkeypatch.setenv("COMP_CWORD", "2")
    diffeo_command()
    assert capsys.readouterr().out.split() == ["runs/first"]
