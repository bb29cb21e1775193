"""`models`, `train`, `demo`. Heavy modules are imported by the command that needs them, so that --help is quick."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..errors import ConfigError
from .app import AsJson, app, console, show_results

if TYPE_CHECKING:
    from ..training.recipe import Recipe

INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended


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
    model: Annotated[
        str | None, typer.Argument(help="A model's name, or a recipe (.yaml).")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of a recipe, key.key=value.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A built-in name (digits, moons, ...), a table or array, or a folder of pictures."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder to make.")] = None,
    size: Annotated[str | None, typer.Option(help="tiny, small or paper.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Budget: passes over the data.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget: optimizer steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget: wall time.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Examples per step, over all processes.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    ema: Annotated[float | None, typer.Option(help="Decay of the weights' moving average.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; small networks are faster on one.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Validations without improvement before stopping.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and noise.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps or auto.")] = None,
    levels: Annotated[int | None, typer.Option(help="Levels of integer data in a file.")] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="A run whose model and weights to start from (fine-tuning)."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train a model on real data and leave a run folder with a report.

    For example: diffeo train realnvp --data digits --minutes 2 --out runs/first
    """
    from ..training.machines import main_process
    from ..training.recipe import override, recipe
    from ..training.run import finished, stored_recipe
    from ..training.run import report as write
    from ..training.run import train as run

    # Without a model, what would be its name is the first of the settings.
    if model is not None and "=" in model:
        overrides = [model, *(overrides or [])]
        model = None
    values = _values(model, start)
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
        "device": device,
    }
    for key, value in (given | {f"training.{k}": v for k, v in training.items()}).items():
        _put(values, key, value)
    values = override(values, overrides or [])
    folder = out or _folder(values)
    stored = stored_recipe(folder) if resume else None
    if stored is not None:
        chosen = _same(stored, values, folder)
    elif "model" not in values:
        raise typer.BadParameter(
            "say what to train, for example: diffeo train realnvp --data digits"
        )
    elif "data" not in values:
        raise typer.BadParameter("say what to train on, for example --data digits")
    else:
        chosen = recipe(values)
    if resume and finished(folder) is not None:
        if not (folder / "report.html").exists():
            write(folder)
        console.print(f"the run in {folder} is finished: there is nothing to resume")
        return
    results = run(chosen, folder, progress=not quiet, resume=resume)
    if not main_process():
        return
    show_results(results)
    console.print(f"report: {write(folder)}")
    if results["stopped"] == "interrupted":
        console.print(f"interrupted: go on with diffeo train --resume --out {folder}")
        raise typer.Exit(INTERRUPTED)


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


def _values(model: str | None, start: Path | None) -> dict[str, Any]:
    """The settings to begin with: of a recipe, of a model's name, or of the run to start from."""
    from ..training.recipe import read_recipe
    from ..training.run import stored_recipe

    values: dict[str, Any] = {}
    if model is not None:
        is_recipe = model.endswith((".yaml", ".yml"))
        values = read_recipe(model) if is_recipe else {"model": model}
    if start is None:
        return values
    before = stored_recipe(start)
    if before is None:
        raise ConfigError(f"{start} holds no run to start from: there is no recipe.yaml")
    if values.get("model", before.model) != before.model:
        raise ConfigError(f"the run {start} is a {before.model}, not a {values['model']}")
    same = {"model": before.model, "size": before.size, "hyper": before.hyper}
    data = before.data.model_dump()
    return {"data": data} | values | same | {"start": str(start)}


def _folder(values: dict[str, Any]) -> Path:
    data = values.get("data")
    source = data.get("source") if isinstance(data, dict) else None
    return Path("runs") / f"{values.get('model')}-{Path(str(source)).stem}"


def _same(stored: Recipe, values: dict[str, Any], folder: Path) -> Recipe:
    """The stored recipe. Raises ConfigError if a setting was given that is another one there."""
    from ..training.recipe import recipe

    plain = stored.model_dump(mode="json")
    merged = recipe(_merge(plain, values)).model_dump(mode="json")
    for name, before, now in _differences(plain, merged):
        if name != "description":
            raise ConfigError(
                f"the run in {folder} was begun with {name} = {before!r}, not {now!r}: --resume goes on with the "
                "settings that it began with; --from starts another run from its weights"
            )
    return stored


def _merge(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {k: _merge(old.get(k), v) for k, v in new.items()}
    return new


def _differences(a: Any, b: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
    elif a != b:
        yield path, a, b


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        return
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
    values[last] = value
