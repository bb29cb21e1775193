"""What the commands share: the application, its consoles, how errors end, and the table of results."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from ..pretrained import located
from .complete import run_folders

INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended

# The panels of --help and the commands in them, in this order.
PANELS = {
    "Train": ("train", "demo"),
    "Use a run": (
        "evaluate",
        "sample",
        "score",
        "impute",
        "anomaly",
        "encode",
        "decode",
        "edit",
        "strength",
    ),
    "Look": ("models", "report", "audit"),
}


class Commands(TyperGroup):
    """The commands in the order of PANELS; whatever ends one early is said in a sentence."""

    def list_commands(self, ctx: Any) -> list[str]:
        order = {name: i for i, name in enumerate(sum(PANELS.values(), ()))}
        panel_of = {name: panel for panel, names in PANELS.items() for name in names}
        for name, command in self.commands.items():
            command.rich_help_panel = panel_of.get(name)  # type: ignore[attr-defined]
        return sorted(super().list_commands(ctx), key=lambda name: order.get(name, len(order)))

    def invoke(self, ctx: Any) -> Any:
        from ..errors import DiffeoError, TrainingError

        try:
            return super().invoke(ctx)
        except DiffeoError as error:
            say_error(str(error))
            raise typer.Exit(1 if isinstance(error, TrainingError) else 2) from error
        except KeyboardInterrupt as error:
            errors.print("interrupted", highlight=False)
            raise typer.Exit(INTERRUPTED) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has gone
                raise
            place = f"cannot use {error.filename}: " if error.filename else "cannot go on: "
            say_error(place + (error.strerror or str(error)))
            raise typer.Exit(2) from error


def example(*commands: str) -> str:
    """The end of a help page: commands to try."""
    title = "Example" if len(commands) == 1 else "Examples"
    # \b keeps the lines of a paragraph.
    return "\b\n" + "\n".join([f"[dim]{title}[/]", *(f"[bold]{c}[/]" for c in commands)])


app = typer.Typer(
    name="diffeo",
    cls=Commands,
    help="Flow-based generative models: an exact likelihood, an exact latent and a sampler from one invertible map.",
    epilog=example(
        "diffeo demo",
        "diffeo train realnvp --data table.csv --out runs/first",
        "diffeo evaluate runs/first",
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()
errors = Console(stderr=True)

RunFolder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run folder, as `diffeo train` leaves it, or the name of a flow that comes with diffeo.",
        autocompletion=run_folders,
        callback=located,
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else, for machines.")]


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"diffeo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def say_error(sentence: str | Exception) -> None:
    """One sentence on standard error."""
    text = " ".join(str(sentence).split())
    errors.print(f"[bold red]error:[/] {_escape(text)}", highlight=False, soft_wrap=True)


def say(sentence: str) -> None:
    """A line on standard output, never wrapped, so that a file name in it can be copied."""
    console.print(_escape(sentence), highlight=False, soft_wrap=True)


def say_json(value: Any) -> None:
    """A value as JSON; numbers that are not finite, which JSON does not have, are null."""
    typer.echo(json.dumps(_plain(value), indent=1))


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error where that is a terminal; call it with the rows done and their number if known."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=errors, transient=True, disable=not errors.is_terminal
    ) as progress:
        task = progress.add_task(what, total=None)

        def show(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield show


def show_results(results: dict[str, Any]) -> None:
    """The likelihood table: lower is better."""
    rows = results["rows"]
    split = results.get("split", "test")
    discrete = rows[0]["bits"] is not None
    table = Table(title=f"-log p on {split} data, lower is better", header_style="bold")
    table.add_column("model", overflow="fold")
    if discrete:
        table.add_column("bits/dim", justify="right", no_wrap=True)
    table.add_column("nats", justify="right", no_wrap=True)
    # With its note in the same column: the longest word of a kind takes a quarter of a terminal.
    table.add_column("kind", overflow="fold")
    for i, r in enumerate(rows):
        bits = [with_error(r["bits"], r["bits_error"])] if discrete else []
        nats = with_error(r["nats"], r["nats_error"])
        style = "" if i else "bold green"
        kind = "; ".join(filter(None, (r["kind"], r["note"])))
        table.add_row(_escape(r["name"]), *bits, nats, _escape(kind), style=style)
    console.print(table)
    head = rows[0]
    shown = [f"{with_error(head['bits'], head['bits_error'])} bits/dim"] if discrete else []
    shown.append(f"{with_error(head['nats'], head['nats_error'])} nats")
    say(f"{head['name']}: {', '.join(shown)} on {split} data ({head['kind']})")


def with_error(value: float, error: float | None) -> str:
    """A mean and its standard error."""
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
