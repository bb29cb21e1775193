"""Commands that use a run: evaluate, sample, score, encode, decode. Each imports what it needs, so --help is quick."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import (
    AsJson,
    RunFolder,
    app,
    example,
    progress_bar,
    say,
    say_json,
    show_results,
    with_error,
)
from .complete import data_names

if TYPE_CHECKING:
    from ..flow import Flow


class Engine(str, Enum):
    """Where rows are computed."""

    local = "local"
    ray = "ray"


class Split(str, Enum):
    """A part of the data."""

    train = "train"
    validation = "validation"
    test = "test"


BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Rows at a time.",
        show_default="by size",
        rich_help_panel="Machine",
    ),
]
Engines = Annotated[
    Engine,
    typer.Option(
        help="ray: Ray Data, on this machine or the cluster that RAY_ADDRESS names.",
        rich_help_panel="Machine",
    ),
]
Rows = Annotated[
    str | None,
    typer.Argument(
        metavar="TABLE",
        help="A .csv, .parquet, .npy or .npz file with the model's columns, a .txt file with a string a line, or a "
        "folder of pictures.",
        autocompletion=data_names,
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="TABLE",
        help="Another way to give the table, as for train.",
        autocompletion=data_names,
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the noise.")]


@app.command(
    epilog=example(
        "diffeo evaluate runs/first",
        "diffeo evaluate runs/first --data more.csv --json",
        "diffeo evaluate runs/pictures --importance 64",
    )
)
def evaluate(
    run: RunFolder,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Other data than the run's own.",
            autocompletion=data_names,
            show_default=False,
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="Which part of the data.")] = Split.test,
    draws: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Draws of dequantization noise, for integers.",
            show_default="10, fewer for many rows",
        ),
    ] = None,
    importance: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="For integers: the importance-weighted bound of K draws an example, tighter the larger K.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure -log p on held-out data: nats and bits/dim, with standard error and kind.

    Beside it: what simple models give on the same data.
    """
    from ..evaluation import baselines
    from ..evaluation import evaluate as measure
    from ..training.run import open_run
    from .runs import check_run, read_for

    check_run(run)
    flow, chosen, _ = open_run(run)
    there = read_for(flow, run, chosen, data)
    name = f"{chosen.model} ({chosen.size})"
    rows = [measure(flow, there, split=split.value, draws=draws, importance=importance, name=name)]
    rows += baselines(there, split=split.value, draws=draws)
    results = {
        "rows": [vars(r) for r in rows],
        "split": split.value,
        "data": there.source,
        "levels": there.levels,
    }
    say_json(results) if as_json else show_results(results)


@app.command(
    epilog=example(
        "diffeo sample runs/first -n 100 --out new.csv",
        "diffeo sample runs/first --out new.png --temperature 0.7",
        "diffeo sample digits-glow --out large.png --size 16x16",
    )
)
def sample(
    run: RunFolder,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A .csv or .parquet (vectors), .png (images), .txt (strings) or .npy file to write.",
        ),
    ],
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--rows",
            min=1,
            metavar="N",
            help="How many; of each row of a file of given values.",
            show_default="64; 1 of each given row",
        ),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE",
            help="Of a table with given columns: their values, or one file with rows of them.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0.0, metavar="T", help="Scales the latent noise.")
    ] = 1.0,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW",
            help="Height and width of pictures, for models made of convolutions alone, such as glow.",
            show_default="as trained",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Same seed, same samples.")] = 0,
    batch_size: BatchSize = None,
    engine: Engines = Engine.local,
    as_json: AsJson = False,
) -> None:
    """Draw samples into a file.

    Sample i depends on the seed and i alone, not on --batch-size or --engine.
    """
    from ..applications import flow_schema, sample_table, synthesize
    from .runs import open_flow

    opened = open_flow(run)
    flow = opened.flow if size is None else _resized(opened.flow, size)
    if flow_schema(flow) is not None and out.suffix.lower() in (".csv", ".parquet"):
        with progress_bar("rows") as progress:
            path = synthesize(
                flow,
                n,
                out,
                given=_values(given or []),
                temperature=temperature,
                seed=seed,
                batch_size=batch_size,
                engine=engine.value,
                progress=progress,
            )
        _done(as_json, f"synthetic rows: {path}", path=path, seed=seed, temperature=temperature)
        return
    if given:
        raise typer.BadParameter("--given is for models of tables with given columns")
    n = n or 64
    with progress_bar("samples") as progress:
        path = sample_table(
            flow,
            n,
            out,
            columns=opened.columns,
            temperature=temperature,
            seed=seed,
            batch_size=batch_size,
            engine=engine.value,
            progress=progress,
        )
    _done(as_json, f"{n} samples: {path}", path=path, rows=n, seed=seed, temperature=temperature)


@app.command(epilog=example("diffeo score runs/first all.parquet --out scores.csv --keep id"))
def score(
    run: RunFolder,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .parquet or .csv file to write.")],
    table: Rows = None,
    data: Data = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Copy this column too; may be repeated. Of pictures: file.",
            show_default=False,
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, metavar="N", help="Draws of dequantization noise, for integers.")
    ] = 1,
    seed: Seed = 0,
    batch_size: BatchSize = None,
    engine: Engines = Engine.local,
    as_json: AsJson = False,
) -> None:
    """Write log p of every row of a table, of any size, in its order.

    Columns: row, the kept ones, log_prob in nats. If it is stopped, the same command goes on.
    """
    from ..applications import score_table
    from .runs import open_flow

    opened = open_flow(run)
    with progress_bar("rows") as progress:
        scores = score_table(
            opened.flow,
            _given(table, data),
            out,
            reading=opened.reading,
            keep=tuple(keep or ()),
            draws=draws,
            seed=seed,
            batch_size=batch_size,
            engine=engine.value,
            progress=progress,
        )
    mean = f"mean log p {with_error(scores.mean, scores.error)} nats ({scores.kind})"
    if scores.outside:
        mean = f"{scores.outside} of them outside the support, log p = -inf"
    resumed = f", {scores.resumed} of them from before" if scores.resumed else ""
    _done(as_json, f"{scores.rows} rows{resumed}, {mean}: {scores.path}", **vars(scores))


@app.command(
    epilog=example(
        "diffeo encode runs/first table.csv --out z.npy",
        "diffeo decode runs/first z.npy --out again.csv",
    )
)
def encode(
    run: RunFolder,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A .npy, .parquet or .csv file to write.")
    ],
    table: Rows = None,
    data: Data = None,
    batch_size: BatchSize = None,
    as_json: AsJson = False,
) -> None:
    """Map data to latents, row by row.

    Integers are taken at the centre of their bin, and decode gives them back exactly.
    """
    from ..applications import encode_table
    from .runs import open_flow

    opened = open_flow(run)
    with progress_bar("rows") as progress:
        path = encode_table(
            opened.flow,
            _given(table, data),
            out,
            reading=opened.reading,
            batch_size=batch_size,
            progress=progress,
        )
    shape = opened.flow.latent_shape
    _done(as_json, f"latents of shape {shape}: {path}", path=path, shape=shape)


@app.command(
    epilog=example(
        "diffeo decode runs/first z.npy --out again.csv",
        "diffeo decode runs/pictures z.npy --out again.png",
    )
)
def decode(
    run: RunFolder,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A .csv or .parquet (vectors), .png (images) or .npy file to write.",
        ),
    ],
    latents: Annotated[
        str | None,
        typer.Argument(
            metavar="LATENTS",
            help="A .npy, .parquet or .csv file of latents, as encode writes it.",
            autocompletion=data_names,
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    batch_size: BatchSize = None,
    as_json: AsJson = False,
) -> None:
    """Map latents to data, row by row."""
    from ..applications import decode_table
    from .runs import open_flow

    opened = open_flow(run)
    with progress_bar("rows") as progress:
        path = decode_table(
            opened.flow,
            _given(latents, data),
            out,
            columns=opened.columns,
            batch_size=batch_size,
            progress=progress,
        )
    shape = opened.flow.event_shape
    _done(as_json, f"data of shape {shape}: {path}", path=path, shape=shape)


def _resized(flow: Flow, size: str) -> Flow:
    """The flow for pictures of a size that is written as 32x48."""
    height, times, width = size.lower().partition("x")
    if not (times and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise typer.BadParameter(f"--size is a height and a width, such as 32x48, got {size!r}")
    return flow.resized((*flow.event_shape[:1], int(height), int(width)))


def _values(given: list[str]) -> dict[str, str] | Path | None:
    """COLUMN=VALUE pairs, or the one file."""
    if len(given) == 1 and "=" not in given[0]:
        return Path(given[0])
    pairs = [text.partition("=") for text in given]
    for (name, equals, _), text in zip(pairs, given, strict=True):
        if not name or not equals:
            raise typer.BadParameter(f"--given is COLUMN=VALUE or one file, got {text!r}")
    return {name: value for name, _, value in pairs} or None


def _given(table: str | None, data: str | None) -> str:
    """The table, as argument or as option."""
    if (table is None) == (data is None):
        raise typer.BadParameter("give the table once, after the run or with --data")
    return table or data or ""


def _done(as_json: bool, sentence: str, **facts: Any) -> None:
    say_json(facts) if as_json else say(sentence)
