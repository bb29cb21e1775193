"""Commands for runs on tables of mixed columns: impute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import AsJson, RunFolder, app, example, progress_bar, say, say_json
from .complete import data_names


@app.command(
    epilog=example(
        "diffeo impute runs/people people.csv --out filled.csv",
        "diffeo impute runs/people people.csv --out filled.parquet --draws 5",
    )
)
def impute(
    run: RunFolder,
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="A .csv or .parquet file with the columns of the run, some cells empty.",
            autocompletion=data_names,
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .csv or .parquet file to write.")],
    draws: Annotated[
        int, typer.Option(min=1, metavar="K", help="Fillings of each row (multiple imputation).")
    ] = 1,
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Sweeps of the sampler for each filling.")
    ] = 200,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Same seed, same cells.")] = 0,
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Rows at a time.", rich_help_panel="Machine")
    ] = 1000,
    as_json: AsJson = False,
) -> None:
    """Fill empty cells by draws given the cells that are there.

    Draws, not means: rows that are filled several times say how sure the model is.
    """
    from ..applications import impute_table
    from .runs import open_flow

    flow = open_flow(run).flow
    with progress_bar("rows") as progress:
        done = impute_table(
            flow,
            table,
            out,
            draws=draws,
            steps=steps,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
    if as_json:
        say_json(vars(done))
        return
    say(
        f"{done.filled} of {done.rows} rows filled, {done.accepted:.0%} of the moves accepted: {done.path}"
    )
