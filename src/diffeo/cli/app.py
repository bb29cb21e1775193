"""What the commands share: the application, its consoles, and the table of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    name="diffeo",
    help="Flow-based generative models: an exact likelihood, an exact latent and a sampler from one invertible map.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

RunFolder = Annotated[Path, typer.Argument(help="A run folder, as `diffeo train` leaves it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def say_error(error: Exception) -> None:
    """One sentence on standard error."""
    errors.print(f"[bold red]error:[/] {_escape(str(error))}", highlight=False, soft_wrap=True)


def show_results(results: dict[str, Any]) -> None:
    """The likelihood table: lower is better."""
    bits = results["rows"][0]["bits"] is not None
    unit = "bits/dim" if bits else "nats"
    key = "bits" if bits else "nats"
    table = Table(
        title=f"{results.get('split', 'test')} {unit}, lower is better", header_style="bold"
    )
    table.add_column("model")
    table.add_column(unit, justify="right")
    table.add_column("standard error", justify="right")
    table.add_column("kind")
    table.add_column("note", overflow="fold")
    for i, r in enumerate(results["rows"]):
        error = r[f"{key}_error"]
        shown = "" if error is None else f"{error:.3f}"
        table.add_row(
            r["name"],
            f"{r[key]:.3f}",
            shown,
            r["kind"],
            r["note"],
            style="bold green" if not i else "",
        )
    console.print(table)
    head = results["rows"][0]
    console.print(
        f"{head['name']}: {head[key]:.3f} {unit} on {results.get('split', 'test')} data ({head['kind']})"
    )


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
