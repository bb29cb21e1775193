"""Commands that edit pictures by a flow: `diffeo edit ...`. Each imports what it needs, so --help is quick."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import AsJson, RunFolder, app, example, say, say_json

if TYPE_CHECKING:
    from torch import Tensor

    from ..flow import Flow

edit = typer.Typer(
    name="edit",
    help="Edit pictures by the latents of a trained flow.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(edit)


class Fit(str, Enum):
    """How a picture of another size is made to fit."""

    resize = "resize"
    crop = "crop"


class Way(str, Enum):
    """A path between latents."""

    spherical = "spherical"
    linear = "linear"


Out = Annotated[
    Path,
    typer.Option(
        metavar="PATH",
        help="A .png (a sheet, if there are several pictures), or a folder that gets one .png each.",
    ),
]
Fitting = Annotated[
    Fit | None,
    typer.Option(
        help="Resize or crop what has another size, and turn colour to grey or back.",
        show_default="refuse",
    ),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the noise.")]
Pictures = Annotated[
    list[Path], typer.Argument(metavar="PICTURE...", help="PNG or JPEG files, or a folder of them.")
]
Picture = Annotated[Path, typer.Argument(help="A PNG or JPEG file.", show_default=False)]


@edit.command(
    epilog=example("diffeo edit interpolate runs/faces a.png b.png --out path.png --steps 7")
)
def interpolate(
    run: RunFolder,
    first: Picture,
    second: Picture,
    out: Out,
    steps: Annotated[int, typer.Option(min=2, metavar="N", help="Pictures, ends included.")] = 9,
    path: Annotated[Way, typer.Option(help="Between the latents.")] = Way.spherical,
    fit: Fitting = None,
    as_json: AsJson = False,
) -> None:
    """Go from one picture to another through pictures that the flow finds likely."""
    from ..applications import interpolate as between
    from ..errors import InputError

    flow, x = _opened(run, [first, second], out, fit)
    if len(x) != 2:
        raise InputError(f"a path goes from one picture to another, got {len(x)} pictures")
    _write(between(flow, x[0], x[1], steps, path=path.value), out, flow, as_json, columns=steps)


@edit.command(epilog=example("diffeo edit manifold runs/faces a.png b.png c.png d.png --out m.png"))
def manifold(
    run: RunFolder,
    corners: Annotated[
        list[Path], typer.Argument(metavar="PICTURE...", help="Four PNG or JPEG files.")
    ],
    out: Out,
    steps: Annotated[int, typer.Option(min=2, metavar="N", help="Rows, and columns.")] = 8,
    fit: Fitting = None,
    as_json: AsJson = False,
) -> None:
    """Lay a surface through four pictures, as in figure 6 of the Real NVP paper."""
    from ..applications import manifold as surface

    flow, x = _opened(run, corners, out, fit)
    _write(surface(flow, x, steps).flatten(0, 1), out, flow, as_json, columns=steps)


@edit.command(
    epilog=example(
        "diffeo edit attribute runs/faces a.png --having smiling/ --lacking others/ --out smile.png"
    )
)
def attribute(
    run: RunFolder,
    pictures: Pictures,
    having: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Pictures that have the attribute.")
    ],
    lacking: Annotated[Path, typer.Option(metavar="FOLDER", help="Pictures that do not.")],
    out: Out,
    strength: Annotated[
        list[float] | None,
        typer.Option(
            metavar="S",
            help="Times the mean difference of the latents; may be repeated.",
            show_default="-1, -0.5, 0, 0.5, 1",
        ),
    ] = None,
    fit: Fitting = None,
    as_json: AsJson = False,
) -> None:
    """Move pictures along an attribute, found from labelled examples: a row of strengths for each."""
    from ..applications import attribute as direction
    from ..applications import read_pictures, shift

    flow, x = _opened(run, pictures, out, fit, [having, lacking])
    kinds = [
        read_pictures(f, flow, fit=None if fit is None else fit.value) for f in (having, lacking)
    ]
    strengths = strength or [-1.0, -0.5, 0.0, 0.5, 1.0]
    moved = shift(flow, x, direction(flow, *kinds), strengths).flatten(0, 1)
    _write(moved, out, flow, as_json, columns=len(strengths))


@edit.command(epilog=example("diffeo edit keep runs/faces a.png --fraction 0.25 --out coarse.png"))
def keep(
    run: RunFolder,
    pictures: Pictures,
    out: Out,
    fraction: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, metavar="F", help="Of the latents, from the coarsest."),
    ] = 0.25,
    temperature: Annotated[
        float, typer.Option(min=0.0, metavar="T", help="Scales the noise that replaces the others.")
    ] = 1.0,
    seed: Seed = 0,
    fit: Fitting = None,
    as_json: AsJson = False,
) -> None:
    """Keep the coarse latents of pictures and draw the fine ones anew: what the coarse levels carry."""
    import torch

    from ..applications import keep as keep_coarse

    flow, x = _opened(run, pictures, out, fit)
    generator = torch.Generator().manual_seed(seed)
    kept = keep_coarse(flow, x, fraction, temperature=temperature, generator=generator)
    _write(kept, out, flow, as_json)


def _opened(
    run: Path, pictures: list[Path], out: Path, fit: Fit | None, others: Sequence[Path] = ()
) -> tuple[Flow, Tensor]:
    """The flow, and the pictures that it edits. others: what else is read, so that nothing writes over it."""
    from ..applications import read_pictures
    from ..applications.pictures import check_pictures_output
    from .runs import open_flow

    flow = open_flow(run).flow
    check_pictures_output(out, [*pictures, *others])
    return flow, read_pictures(pictures, flow, fit=None if fit is None else fit.value)


def _write(
    x: Tensor, out: Path, flow: Flow, as_json: bool, *, columns: int | None = None, **facts: Any
) -> None:
    from ..applications import write_pictures

    paths = write_pictures(x, out, flow, columns=columns)
    n = f"{len(x)} picture" + ("s" if len(x) > 1 else "")
    say_json({"pictures": len(x), "paths": paths, **facts}) if as_json else say(f"{n}: {out}")


from . import restoring, translating  # noqa: E402, F401  (they add their commands)
