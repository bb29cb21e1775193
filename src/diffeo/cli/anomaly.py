"""The command `diffeo anomaly`: which pictures are unlike those that a flow has learned."""

from __future__ import annotations

import csv
import io
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import AsJson, RunFolder, app, console, example, progress_bar, say, say_json
from .complete import data_names
from .editing import Fitting, Pictures

if TYPE_CHECKING:
    from torch import Tensor

    from .runs import Opened


class Named(str, Enum):
    """The names of `applications.anomaly.STATISTICS`."""

    log_prob = "log_prob"
    typicality = "typicality"
    complexity = "complexity"
    coarse = "coarse"
    levels = "levels"
    norm = "norm"
    combined = "combined"


@app.command(
    epilog=example(
        "diffeo anomaly digits-glow new.png other.png",
        "diffeo anomaly runs/faces new/ --reference more-faces/ --alpha 0.05 --out scores.csv",
    )
)
def anomaly(
    run: RunFolder,
    pictures: Pictures,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Ordinary pictures that the flow was not trained on: a folder, a .npy or .npz file, or a name.",
            autocompletion=data_names,
            show_default="the run's validation data",
        ),
    ] = None,
    statistic: Annotated[Named, typer.Option(help="What is compared.")] = Named.combined,
    alpha: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="A",
            help="Flag p-values up to this: the share of ordinary pictures that are flagged.",
        ),
    ] = 0.01,
    most: Annotated[
        int, typer.Option(min=1, metavar="N", help="Reference pictures, at most.")
    ] = 1000,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .csv file to write.", show_default=False),
    ] = None,
    fit: Fitting = None,
    as_json: AsJson = False,
) -> None:
    """Find pictures that are unlike those that a flow has learned: a score and a p-value each.

    The p-value is the share of ordinary pictures that are at least as strange.
    """
    from ..applications.anomaly import STATISTICS, Detector, evidence
    from ..applications.outputs import check_not_input, check_suffix
    from ..applications.pictures import read_pictures
    from ..files import write_atomically
    from .runs import open_flow

    opened = open_flow(run)
    fitting = None if fit is None else fit.value
    files = _files(pictures)
    if out is not None:
        check_suffix(out, (".csv",), "scores")
        for path in (*files, *([] if reference is None else [Path(reference)])):
            check_not_input(out, path)
    x = read_pictures(files, opened.flow, fit=fitting)
    ordinary, source = _reference(run, opened, reference, fitting, most)
    _check_alpha(alpha, len(ordinary))
    with progress_bar("reference") as progress:
        detector = Detector(evidence(opened.flow, ordinary, progress=progress), statistic.value)
    with progress_bar("pictures") as progress:
        found = evidence(opened.flow, x, progress=progress)
    scores, p_values = detector.score(found).tolist(), detector.p_value(found).tolist()
    rows = [
        {"file": str(file), "score": score, "p_value": p, "flagged": p <= alpha}
        for file, score, p in zip(files, scores, p_values, strict=True)
    ]
    if out is not None:
        write_atomically(out, _csv(rows))
    chosen = {"statistic": statistic.value, "meaning": STATISTICS[statistic.value].meaning}
    facts = {**chosen, "alpha": alpha, "reference": source, "reference_size": len(detector)}
    if as_json:
        say_json({**facts, "rows": rows})
        return
    _show(rows, facts)
    if out is not None:
        say(f"scores: {out}")


def _files(pictures: list[Path]) -> list[Path]:
    from ..data.images import picture_files

    return [
        file for path in pictures for file in (picture_files(path) if path.is_dir() else [path])
    ]


def _reference(
    run: Path, opened: Opened, given: str | None, fit: str | None, most: int
) -> tuple[Tensor, str]:
    """At most so many ordinary events, and where they are from."""
    import numpy as np
    import torch

    from ..applications.pictures import read_pictures
    from ..applications.tables import open_for
    from ..data import load
    from ..data.stream import SUFFIXES
    from ..errors import DataError

    flow, path = opened.flow, Path(given or "").expanduser()
    if given is None:
        x, source = _own(run, opened)
    elif path.is_dir():
        x, source = read_pictures(path, flow, fit=fit), str(path)
    elif path.suffix.lower() in SUFFIXES:
        rows = np.concatenate(list(open_for(flow, path, opened.reading).batches(1024)))
        x, source = torch.from_numpy(rows), str(path)
    else:
        data = load(given, bits=opened.reading.bits)
        x, source = data.validation, f"{given} (validation)"
    if x.shape[1:] != flow.event_shape:
        raise DataError(
            f"{source} holds rows of shape {tuple(x.shape[1:])}, but the model in {run} is for {flow.event_shape}"
        )
    flow.check(x[:1])
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:most]
    return x[chosen.sort().values], source


def _own(run: Path, opened: Opened) -> tuple[Tensor, str]:
    """The validation data of the run."""
    from ..errors import DataError, InputError
    from ..training.run import stored_recipe
    from .runs import read_for

    hint = "give ordinary pictures with --reference"
    chosen = stored_recipe(run)
    if chosen is None:
        raise InputError(f"{run} does not say what data it was trained on: {hint}")
    try:
        data = read_for(opened.flow, run, chosen, None)
    except DataError as error:
        raise DataError(f"{str(error).rstrip('.')}; or {hint}") from error
    return data.validation, f"{data.name} (validation)"


def _check_alpha(alpha: float, n: int) -> None:
    from ..errors import InputError

    if alpha * (n + 1) < 1:
        raise InputError(
            f"with a reference of {n} pictures no p-value is below {1 / (n + 1):.2g}, so nothing could be flagged at "
            f"--alpha {alpha:g}: give a larger one, or more pictures with --reference"
        )


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "flagged": str(row["flagged"]).lower()} for row in rows)
    return text.getvalue()


def _show(rows: list[dict[str, Any]], facts: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{facts['statistic']}: {facts['meaning']}", header_style="bold")
    table.add_column("picture", overflow="fold")
    for name in ("score", "p-value", "flagged"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = (f"{row['score']:.3f}", f"{row['p_value']:.4f}")
        style = "bold red" if row["flagged"] else ""
        table.add_row(escape(row["file"]), *numbers, "yes" if row["flagged"] else "", style=style)
    console.print(table)
    flagged = sum(row["flagged"] for row in rows)
    say(
        f"{flagged} of {len(rows)} flagged at {facts['alpha']:g}, beside {facts['reference_size']} pictures of "
        f"{facts['reference']}"
    )
