"""Commands that draw pictures given pictures: `diffeo edit colorize` and `diffeo edit enlarge`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import AsJson, RunFolder, example
from .editing import Fit, Fitting, Out, Pictures, Seed, _write, edit

if TYPE_CHECKING:
    from ..flow import Flow

Samples = Annotated[int, typer.Option(min=1, metavar="N", help="How many, of each picture.")]
Temperature = Annotated[
    float, typer.Option(min=0.0, metavar="T", help="Scales the latent noise: 0 is one answer.")
]


@edit.command(
    epilog=example(
        "diffeo edit colorize runs/colours grey.png --out colour.png",
        "diffeo edit colorize runs/colours photos/ --fit crop --samples 1 --out coloured",
    )
)
def colorize(
    run: RunFolder,
    pictures: Pictures,
    out: Out,
    samples: Samples = 4,
    temperature: Temperature = 0.7,
    seed: Seed = 0,
    fit: Fitting = None,
    as_json: AsJson = False,
) -> None:
    """Draw colours for grey pictures: a row of samples for each.

    The run is of a model that was trained with data.given=grey.
    """
    from ..applications.translating import check_colorizes

    _draw(run, pictures, out, samples, temperature, seed, fit, as_json, check_colorizes)


@edit.command(
    epilog=example(
        "diffeo edit enlarge runs/larger small.png --out large.png --samples 4 --temperature 0.7"
    )
)
def enlarge(
    run: RunFolder,
    pictures: Pictures,
    out: Out,
    samples: Samples = 4,
    temperature: Temperature = 0.7,
    seed: Seed = 0,
    fit: Fitting = None,
    as_json: AsJson = False,
) -> None:
    """Draw larger pictures for small ones: a row of samples for each.

    The run is of a model that was trained with data.given=half or quarter.
    """
    from ..applications.translating import check_enlarges

    _draw(run, pictures, out, samples, temperature, seed, fit, as_json, check_enlarges)


def _draw(
    run: Path,
    pictures: list[Path],
    out: Path,
    samples: int,
    temperature: float,
    seed: int,
    fit: Fit | None,
    as_json: bool,
    check: Callable[[Flow], None],
) -> None:
    """Samples given each picture, in this order."""
    import torch

    from ..applications.pictures import check_pictures_output
    from ..applications.translating import read_given
    from .runs import open_flow

    flow = open_flow(run).flow
    check(flow)
    check_pictures_output(out, pictures)
    given = read_given(pictures, flow, fit=None if fit is None else fit.value)
    generator = torch.Generator().manual_seed(seed)
    x = flow.sample(samples, given, temperature, generator=generator, batch_size=64)
    _write(
        x.transpose(0, 1).flatten(0, 1), out, flow, as_json, columns=samples, samples=samples,
        seed=seed, temperature=temperature,
    )  # fmt: skip
