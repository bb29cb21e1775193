"""Commands that look into a run: report and audit."""

from __future__ import annotations

from typing import Annotated

import typer

from .app import AsJson, RunFolder, app, example, say, say_json
from .complete import data_names


@app.command(epilog=example("diffeo report runs/first"))
def report(
    run: RunFolder,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the samples shown.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write the run's report.html again: curves, samples, likelihood, audit on one page."""
    from ..errors import SavedModelError
    from ..pretrained import HERE
    from ..training.run import report as write
    from .runs import check_run

    check_run(run)
    if run.parent == HERE:
        raise SavedModelError(
            f"{run.name} comes with diffeo, where nothing is written: copy the folder {run}, and give the copy"
        )
    path = write(run, seed=seed)
    say_json({"path": path}) if as_json else say(f"report: {path}")


@app.command(
    epilog=example("diffeo audit runs/first", "diffeo audit runs/first --data new.csv --rows 100")
)
def audit(
    run: RunFolder,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Other data than the run's test data.",
            autocompletion=data_names,
            show_default=False,
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, metavar="N", help="How many rows, at most.")] = 256,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the choice of rows.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check that the model is the invertible map that it claims to be; exit code 1 if not.

    Round trips, ladj against autograd, conditioning and tails, for the whole and for every layer, in words and numbers.
    """
    from ..auditing import audit as measure
    from ..training.run import open_run
    from .runs import check_run, read_for

    check_run(run)
    flow, chosen, _ = open_run(run)
    there = read_for(flow, run, chosen, data)
    x, given = there.test.to(flow.device), there.context_rows("test", 0, len(there.test))
    found = measure(flow, x, given, seed=seed, rows=rows)
    if as_json:
        say_json(found.to_dict())
    else:
        typer.echo(str(found))
    raise typer.Exit(0 if found.passes else 1)
