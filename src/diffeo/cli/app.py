"""The commands. Heavy modules are imported by the command that needs them, so that --help is quick."""

from __future__ import annotations

import json
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
def evaluate(
    run: RunFolder,
    data: Annotated[str | None, typer.Option(help="Other data than the run's own.")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    draws: Annotated[int, typer.Option(min=1, help="Draws of dequantization noise.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Likelihood on a split, with standard error and kind, beside simple baselines."""
    from ..errors import InputError
    from ..evaluation import baselines
    from ..evaluation import evaluate as measure
    from ..training.run import open_run, read_data

    if split not in ("train", "validation", "test"):
        raise InputError(f"split must be train, validation or test, got {split!r}")
    flow, chosen, _ = open_run(run)
    if data is not None:
        source = chosen.data.model_copy(update={"source": data})
        chosen = chosen.model_copy(update={"data": source})
    there = read_data(chosen)
    flow.check(there.test[:1])
    name = f"{chosen.model} ({chosen.size})"
    rows = [measure(flow, there, split=split, draws=draws, name=name)]
    rows += baselines(there, split=split, draws=draws)
    results = {"rows": [vars(r) for r in rows], "split": split, "data": there.source}
    if as_json:
        console.print_json(json.dumps(results))
    else:
        show_results(results)


@app.command()
def sample(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="A .png (images), .npy or .csv (vectors) file.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, help="Scales the latent noise.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
) -> None:
    """Draw samples and write them to a file."""
    import torch

    from ..training.run import open_run, read_data
    from .output import check_output, write_samples

    check_output(out)
    flow, chosen, _ = open_run(run)
    check_output(out, flow.event_shape)
    generator = torch.Generator(flow.device).manual_seed(seed)
    x = flow.sample((n,), temperature=temperature, generator=generator, batch_size=1000)
    data = read_data(chosen) if out.suffix == ".csv" else None
    columns = None if data is None else data.columns
    write_samples(out, x, levels=levels_of(flow), columns=columns)
    console.print(f"{n} samples: {out}")


@app.command()
def report(run: RunFolder, seed: Annotated[int, typer.Option(help="Seed of samples.")] = 0) -> None:
    """Write the run's report.html again."""
    from ..training.run import report as write

    console.print(f"report: {write(run, seed=seed)}")


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


def levels_of(flow: Any) -> int | None:
    """Number of levels of a flow over integers."""
    domain = flow.properties.domain
    return int(domain.high) + 1 if flow.discrete else None


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        return
    *path, last = key.split(".")
    for name in path:
        values = values.setdefault(name, {})
    values[last] = value


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
