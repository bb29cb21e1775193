"""diffeo strength: how hard strings are to guess under a trained model of strings."""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from .app import AsJson, RunFolder, app, console, example, say, say_json

if TYPE_CHECKING:
    from ..applications.strength import Strength

SHOWN = 20


@app.command(
    epilog=example(
        "diffeo strength runs/passwords",
        "diffeo strength runs/passwords --strings list.txt --json",
        "diffeo strength runs/passwords --strings list.txt --out strengths.csv",
    )
)
def strength(
    run: RunFolder,
    strings: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A .txt or .txt.gz file with a string a line; - for standard input.",
            show_default="ask for one, or standard input",
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Draws of the model behind every rank.")
    ] = 10_000,
    draws: Annotated[
        int,
        typer.Option(min=1, metavar="K", help="Draws of noise, where the likelihood is a bound."),
    ] = 64,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the samples.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a .csv file with the strings themselves, too: keep it safe.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how hard strings are to guess: bits, and rank with a 95 % confidence interval.

    Strings are shown and kept nowhere, except in the file that --out names. rank: how many strings the model finds
    likelier.
    """
    from ..applications.outputs import check_not_input, check_suffix
    from ..applications.strength import strength as measure
    from .runs import open_flow

    if out is not None:
        check_suffix(out, (".csv",), "strengths")
        if strings not in (None, "-"):
            check_not_input(out, Path(str(strings)))
    flow = open_flow(run).flow
    numbered = _given(strings)
    found = measure(flow, [s for _, s in numbered], samples=samples, draws=draws, seed=seed)
    if out is not None:
        _write(out, numbered, found)
    if as_json:
        lines = [number for number, _ in numbered]
        say_json(_summary(found) | {"out": out, "strings": _rows(lines, found)})
        return
    _show([number for number, _ in numbered], found)
    if out is not None:
        say(f"{len(numbered)} strings: {out}")


def _given(source: str | None) -> list[tuple[int, str]]:
    """Strings with their line numbers, of a file, of standard input, or typed in without being shown."""
    from ..data.strings import is_text, read_lines
    from ..errors import DataError

    if source is not None and source != "-":
        path = Path(source).expanduser()
        if not is_text(path) or not path.is_file():
            raise DataError(
                f"{path} is no file that ends in .txt or .txt.gz, expected one with a string a line."
            )
        found = list(read_lines(path))
    elif source is None and sys.stdin.isatty():
        return [(1, typer.prompt("string (not shown)", hide_input=True, err=True))]
    else:
        try:
            text = sys.stdin.buffer.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError("standard input is no text in UTF-8.") from error
        found = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line]
    if not found:
        raise DataError("there is no string to judge, expected one a line.")
    return found


def _rows(lines: list[int], found: Strength) -> list[dict[str, Any]]:
    numbers = zip(found.bits, found.bits_error, found.rank, found.low, found.high, strict=True)
    names = ("bits", "bits_error", "rank", "low", "high")
    return [
        {"line": line, **dict(zip(names, map(float, row), strict=True)), "reason": reason}
        for line, row, reason in zip(lines, numbers, found.reasons, strict=True)
    ]


def _summary(found: Strength) -> dict[str, Any]:
    return {"kind": found.kind, "samples": found.samples, "ill_formed": found.ill_formed}


def _show(lines: list[int], found: Strength) -> None:
    table = Table(title="Harder to guess is higher", header_style="bold")
    for name in ("line", "bits", "strings that are likelier", "95 % interval"):
        table.add_column(name, justify="right", overflow="fold")
    for row in _rows(lines, found)[:SHOWN]:
        if row["reason"] is not None:
            table.add_row(str(row["line"]), "-", "-", f"{row['reason']}: not of this model")
            continue
        error = f" ± {row['bits_error']:.1f}" if row["bits_error"] else ""
        high = f"{row['high']:.3g}" if math.isfinite(row["high"]) else "?"
        interval = f"{row['low']:.3g} to {high}"
        table.add_row(str(row["line"]), f"{row['bits']:.1f}{error}", f"{row['rank']:.3g}", interval)
    console.print(table)
    if len(lines) > SHOWN:
        say(f"and {len(lines) - SHOWN} more: see --json or --out")
    say(
        f"bits: {found.kind}; ranks from {found.samples} samples of the model, {found.ill_formed:.2%} of them codes of "
        "no string"
    )


def _write(path: Path, numbered: list[tuple[int, str]], found: Strength) -> None:
    from ..applications.outputs import replacing

    rows = _rows([number for number, _ in numbered], found)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["line", "string", *list(rows[0])[1:]], lineterminator="\n")
        writer.writeheader()
        for (_, string), row in zip(numbered, rows, strict=True):
            writer.writerow(row | {"string": string})
