"""The examples of the documentation run: Python blocks are executed, commands are parsed."""

from __future__ import annotations

import doctest
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")), "README.md"]
# Blocks that are marked `no-run` (they would train for long, or show a part of a file), and why.
NOT_RUN = {
    "docs/architecture.md": 1,  # the contract, with names that stand for any transform
    "docs/contributing.md": 3,  # parts of files to write
}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, other words of its info string, its text, and the line where it starts."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    found = []
    for token in MarkdownIt().parse((ROOT / page).read_text()):
        if token.type == "fence" and token.map is not None:
            words = [w.lstrip(".") for w in token.info.strip("{} ").split()] or [""]
            found.append(Block(words[0], tuple(words[1:]), token.content, token.map[0] + 1))
    return found


def python_blocks(page: str) -> list[Block]:
    return [b for b in blocks(page) if b.language == "python"]


def is_run(block: Block) -> bool:
    return "no-run" not in block.words and not any(w.startswith("title=") for w in block.words)


@pytest.mark.parametrize("page", [p for p in PAGES if any(map(is_run, python_blocks(p)))])
def test_python(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page, one after another in one namespace, from an empty folder, under seed 0."""
    monkeypatch.chdir(tmp_path)
    # zuko, which sbi imports, switches off the argument checks of all of torch.distributions.
    distribution = torch.distributions.Distribution
    monkeypatch.setattr(distribution, "_validate_args", distribution._validate_args)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in filter(is_run, python_blocks(page)):
        if ">>>" in block.text:
            test = doctest.DocTestParser().get_doctest(block.text, names, page, page, block.line)
            report: list[str] = []
            runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
            runner.run(test, out=report.append, clear_globs=False)
            names.update(test.globs)
            assert not runner.failures, "".join(report)
        else:
            exec(compile("\n" * block.line + block.text, str(ROOT / page), "exec"), names)


def test_blocks_that_are_not_run() -> None:
    """They are few, and every one is in the list."""
    counts = {p: sum(not is_run(b) for b in python_blocks(p)) for p in PAGES}
    assert {p: n for p, n in counts.items() if n} == NOT_RUN


def commands(page: str) -> list[str]:
    """The `diffeo ...` lines of a page's shell blocks, without comments."""
    found = []
    for block in blocks(page):
        if block.language in ("sh", "bash", "console"):
            text = re.sub(r"\\\n\s*", " ", block.text)
            found += re.findall(r"^(?:\$ |torchrun .*?-m )?(diffeo [^#|\n]*)", text, re.MULTILINE)
    return found


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)])
def test_commands(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command exists and takes the options that the page gives it."""
    from typer.main import get_command

    from diffeo.cli import anomaly, editing, looking, strings, tabular, training, using  # noqa: F401  (their commands)
    from diffeo.cli.app import app

    monkeypatch.chdir(tmp_path)
    for line in commands(page):
        name, command, arguments = "diffeo", get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands"):
            name, *arguments = arguments
            command = command.commands.get(name)
            assert command is not None, f"{page}: there is no command {name!r}: {line}"
        try:
            command.make_context(name, arguments)
        except Exception as error:  # a usage error of the copy of click inside typer
            raise AssertionError(f"{page}: {line}: {getattr(error, 'message', error)}") from error
