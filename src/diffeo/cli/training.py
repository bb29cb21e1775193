"""`models`, `train`, `demo`. Heavy modules are imported by the command that needs them, so that --help is quick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError
from .app import INTERRUPTED, AsJson, app, console, example, say, say_json, show_results
from .complete import data_names, model_names, run_folders

if TYPE_CHECKING:
    from ..training.recipe import Recipe

BUDGET, OPTIMIZER, MACHINE = "Budget (whichever ends first)", "Optimizer", "Machine"


@app.command(epilog=example("diffeo models", "diffeo models --json"))
def models(as_json: AsJson = False) -> None:
    """List the published models."""
    from .. import zoo

    cards = [zoo.card(name) for name in zoo.names()]
    if as_json:
        say_json([vars(c) for c in cards])
        return
    table = Table(title="Models", header_style="bold", row_styles=["", "dim"])
    table.add_column("name", no_wrap=True)
    for column in ("what it is", "for", "likelihood", "published"):
        table.add_column(column, overflow="fold")
    for c in cards:
        table.add_row(c.name, c.description, c.domain, c.likelihood, f"{c.year}, arXiv:{c.arxiv}")
    console.print(table)
    console.print("[dim]diffeo train NAME --data digits --out runs/first[/]")


@app.command(
    epilog=example(
        "diffeo train realnvp --data digits --minutes 2 --out runs/first",
        "diffeo train recipes/realnvp-mnist-small.yaml training.lr=5e-4",
        "diffeo train --resume --out runs/first",
        "diffeo train --from runs/first --data more.csv --out runs/second",
    )
)
def train(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model's name, or a recipe (.yaml).",
            autocompletion=model_names,
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings of the recipe, such as hyper.layers=10 or data.image_size=32.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="A built-in name (digits, moons, ...), a .csv, .parquet, .npy, .npz or .txt (strings) file, or a "
            "folder of pictures.",
            autocompletion=data_names,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="The run folder to make.",
            show_default="runs/MODEL-DATA",
            autocompletion=run_folders,
        ),
    ] = None,
    size: Annotated[str | None, typer.Option(help="tiny, small or paper.")] = None,
    levels: Annotated[
        int | None, typer.Option(metavar="N", help="Levels of integer data in a file.")
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of tabular: a .yaml of columns and their kinds; the others are inferred.",
            show_default=False,
        ),
    ] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            "--given",
            metavar="COLUMN",
            help="Of tabular: a column that the others are modelled given; may be repeated.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="A run whose model and weights to start from (fine-tuning).",
            autocompletion=run_folders,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted run in --out.")
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Passes over the data.", rich_help_panel=BUDGET),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Optimizer steps.", rich_help_panel=BUDGET)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="T", help="Wall time.", rich_help_panel=BUDGET)
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(metavar="N", help="Validations without improvement.", rich_help_panel=BUDGET),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Examples a step, over all processes.", rich_help_panel=OPTIMIZER
        ),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Largest learning rate.", rich_help_panel=OPTIMIZER),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            metavar="DECAY", help="Of the weights' moving average.", rich_help_panel=OPTIMIZER
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of weights, order and noise.", rich_help_panel=OPTIMIZER),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps or auto.", rich_help_panel=MACHINE)
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="CPU threads; small networks are faster on one.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model on real data and leave a run folder with a report.

    Ctrl-C ends a run well: it can be used, and --resume goes on with it.
    """
    from ..training.machines import main_process
    from ..training.recipe import override
    from ..training.run import finished, stored_recipe
    from ..training.run import report as write
    from ..training.run import train as run
    from ..training.tables import resolved

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
    _put_columns(values, schema, conditions)
    chosen = _new(values) if stored is None else _same(stored, values, folder)
    if resume and finished(folder) is not None:
        if not (folder / "report.html").exists():
            write(folder)
        done = finished(folder)
        say_json(done) if as_json else say(
            f"the run in {folder} is finished: there is nothing to resume"
        )
        return
    if chosen.model == "tabular" and stored is None:
        chosen, remarks = resolved(chosen)
        if main_process() and not as_json:
            _show_columns(chosen, remarks)
    results = run(chosen, folder, progress=not quiet, resume=resume)
    if not main_process():
        return
    _say_end(results, folder, write(folder), as_json)
    if results["stopped"] == "interrupted":
        if not as_json:
            say(f"interrupted: go on with diffeo train --resume --out {folder}")
        raise typer.Exit(INTERRUPTED)


@app.command(epilog=example("diffeo demo", "diffeo demo --minutes 1 --out runs/quick"))
def demo(
    out: Annotated[Path, typer.Option(help="The run folder to make.")] = Path("runs/demo"),
    minutes: Annotated[float, typer.Option(min=0.01, help="Training time.")] = 2.5,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train on scikit-learn's scanned digits for two and a half minutes and write a report."""
    from ..training.run import report as write
    from ..training.run import train as run
    from .demo import demo_recipe, replace_demo

    if not as_json:
        say(f"diffeo demo: a flow on 8x8 scans of digits, {minutes:g} minutes of training")
    replace_demo(out)
    results = run(demo_recipe(minutes), out, progress=not quiet)
    _say_end(results, out, write(out), as_json)


def _say_end(results: dict[str, Any], folder: Path, report: Path, as_json: bool) -> None:
    if as_json:
        say_json(results | {"run": folder, "report": report})
        return
    show_results(results)
    say(f"report: {report}  (open it in a browser)")


def _new(values: dict[str, Any]) -> Recipe:
    """A recipe that says what to train and on what."""
    from ..training.recipe import recipe
    from ..zoo import card

    if "model" not in values:
        raise typer.BadParameter(
            "say what to train, for example: diffeo train realnvp --data digits"
        )
    card(str(values["model"]))  # an unknown name is said before anything that is missing
    if "data" not in values:
        raise typer.BadParameter("say what to train on, for example --data digits")
    return recipe(values)


def _put_columns(values: dict[str, Any], schema: Path | None, given: list[str] | None) -> None:
    """The columns that a schema file declares, beside what the recipe says of others, and the given ones."""
    from ..data.typed import read_declared

    if schema is not None:
        declared = read_declared(schema)
        if isinstance(declared.get("columns"), dict):
            _put(values, "data.conditions", declared.get("given"))
            declared = declared["columns"]
        data = values.setdefault("data", {})
        data["kinds"] = declared | (data.get("kinds") or {})
    _put(values, "data.conditions", given or None)


def _show_columns(chosen: Recipe, remarks: dict[str, str]) -> None:
    """What every column was taken for, and how to say otherwise."""
    from ..columns import schema

    known = schema({k: v for k, v in (chosen.data.kinds or {}).items() if k != "complete"})
    table = Table(title=f"Columns of {chosen.data.source}", header_style="bold")
    for name in ("column", "kind", "values", "missing", "remark"):
        table.add_column(name, overflow="fold")
    for c in known.columns:
        given = "given" if c.name in known.given else ""
        remark = "; ".join(filter(None, (given, remarks.get(c.name, ""))))
        table.add_row(*map(escape, (c.name, c.kind, c.range, "yes" if c.missing else "", remark)))
    console.print(table)
    say("another kind: data.kinds.COLUMN=KIND, or --schema FILE; leave out: data.kinds.COLUMN=drop")


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
    from ..training.tables import without_columns

    values = without_columns(stored, values, folder)
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
