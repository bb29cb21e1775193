"""Commands that take a run folder. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import AsJson, RunFolder, app, console, show_results


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


def levels_of(flow: Any) -> int | None:
    """Number of levels of a flow over integers."""
    domain = flow.properties.domain
    return int(domain.high) + 1 if flow.discrete else None
