"""`models`, `train`, `demo`. Heavy modules are imported by the command that needs them, so that --help is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from .app import AsJson, app, console, show_results


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the published models."""
    from .. import zoo

    cards = [zoo.card(name) for name in zoo.names()]
    if as_json:
        console.print_json(json.dumps([vars(c) for c in cards]))
        return
    table = Table(title="Models", header_style="bold", row_styles=["", "dim"])
    table.add_column("name", no_wrap=True)
    for column in ("what it is", "for", "likelihood", "published"):
        table.add_column(column, overflow="fold")
    for c in cards:
        table.add_row(c.name, c.description, c.domain, c.likelihood, f"{c.year}, arXiv:{c.arxiv}")
    console.print(table)
    console.print("[dim]diffeo train NAME --data digits --out runs/first[/]")


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A model's name, or a recipe (.yaml).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of a recipe, key.key=value.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A built-in name (digits, moons, ...) or a .npy, .npz or .csv file."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to make.")] = None,
    size: Annotated[str | None, typer.Option(help="tiny, small or paper.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Budget: passes over the data.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget: optimizer steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget: wall time.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples per step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the weights' moving average.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; small networks are faster on one.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Validations without improvement before stopping.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and noise.")] = None,
    levels: Annotated[int | None, typer.Option(help="Levels of integer data in a file.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train a model on real data and leave a run folder with a report.

    For example: diffeo train realnvp --data digits --minutes 2 --out runs/first
    """
    from ..training.recipe import override, read_recipe, recipe
    from ..training.run import report as write
    from ..training.run import train as run

    is_recipe = model.endswith((".yaml", ".yml"))
    values: dict[str, Any] = read_recipe(model) if is_recipe else {"model": model}
    given: dict[str, Any] = {"size": size, "data.source": data, "data.levels": levels}
    training = {
        "epochs": epochs,
        "steps": steps,
        "minutes": minutes,
        "batch_size": batch_size,
        "lr": lr,
        "ema": ema,
        "patience": patience,
        "seed": seed,
        "threads": threads,
    }
    for key, value in (given | {f"training.{k}": v for k, v in training.items()}).items():
        _put(values, key, value)
    values = override(values, overrides or [])
    if "data" not in values:
        raise typer.BadParameter("say what to train on, for example --data digits")
    chosen = recipe(values)
    folder = out or Path("runs") / f"{Path(model).stem}-{Path(chosen.data.source).stem}"
    results = run(chosen, folder, progress=not quiet)
    show_results(results)
    console.print(f"report: {write(folder)}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run folder to make.")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(min=0.01, help="Training time.")] = 2.5,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train on scikit-learn's scanned digits for two and a half minutes and write a report."""
    from ..training.run import report as write
    from ..training.run import train as run
    from .demo import demo_recipe, replace_demo

    console.print(
        f"[bold]diffeo demo[/]: a flow on 8x8 scans of digits, {minutes:g} minutes of training"
    )
    replace_demo(out)
    results = run(demo_recipe(minutes), out, progress=not quiet)
    show_results(results)
    console.print(f"report: [bold]{write(out)}[/]  (open it in a browser)")


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        return
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
    values[last] = value
