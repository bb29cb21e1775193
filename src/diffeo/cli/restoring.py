"""`diffeo edit inpaint` and `diffeo edit denoise`: pictures restored under the exact likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import AsJson, RunFolder, console, example, progress_bar, say, say_json
from .editing import Fit, Fitting, Out, Pictures, Seed, _opened, edit

if TYPE_CHECKING:
    from torch import Tensor

    from ..flow import Flow

MapOnly = Annotated[
    bool,
    typer.Option("--map", help="The most likely picture, without draws, instead of their mean."),
]
Uncertainty = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Also write the deviation of the draws: white is half of the range from black to white.",
        show_default=False,
    ),
]
Chains = Annotated[int, typer.Option(min=2, metavar="N", help="Markov chains a picture.")]
Draws = Annotated[int, typer.Option(min=4, metavar="N", help="Draws a chain, which are kept.")]
Warmup = Annotated[
    int, typer.Option(min=0, metavar="N", help="Draws a chain before them, which are not.")
]
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "rhat": ("R-hat", "{:.3f}".format),
    "effective": ("effective draws", "{:.0f}".format),
    "accepted": ("accepted", "{:.0%}".format),
    "converged": ("converged", lambda good: "yes" if good else "no"),
}


@edit.command(
    epilog=example(
        "diffeo edit inpaint runs/faces a.png --mask mask.png --out whole.png",
        "diffeo edit inpaint runs/faces a.png --box 8,8,16,16 --out whole.png --uncertainty dev.png",
    )
)
def inpaint(
    run: RunFolder,
    pictures: Pictures,
    out: Out,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG",
            help="A picture that is white where nothing is known, and black elsewhere.",
            show_default=False,
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            metavar="TOP,LEFT,HEIGHT,WIDTH",
            help="A rectangle of pixels where nothing is known, instead of a mask.",
            show_default=False,
        ),
    ] = None,
    most_likely: MapOnly = False,
    uncertainty: Uncertainty = None,
    chains: Chains = 8,
    draws: Draws = 2000,
    warmup: Warmup = 100,
    seed: Seed = 0,
    fit: Fitting = None,
    as_json: AsJson = False,
) -> None:
    """Fill in what a mask hides, by the mean of draws that agree with the rest."""
    import torch

    flow, x = _inputs(run, pictures, mask, out, uncertainty, fit, most_likely)
    hidden = _hidden(flow, mask, box).expand(flow.event_shape)
    sigma = torch.where(hidden, math.inf, 0.0)
    lengths = {"chains": chains, "draws": draws, "warmup": warmup}
    found, told = _restored(flow, x, sigma, most_likely, lengths, seed)
    restored = torch.where(hidden, found[0], x.to(found[0].dtype))
    deviation = None if found[1] is None else found[1] * hidden
    _show(flow, pictures, (restored, deviation), out, uncertainty, told, as_json)


@edit.command(epilog=example("diffeo edit denoise runs/faces a.png --sigma 40 --out clean.png"))
def denoise(
    run: RunFolder,
    pictures: Pictures,
    out: Out,
    sigma: Annotated[
        float,
        typer.Option(
            metavar="S",
            help="Deviation of the Gaussian noise in grey values, of which white is 255.",
        ),
    ],
    most_likely: MapOnly = False,
    uncertainty: Uncertainty = None,
    chains: Chains = 8,
    draws: Draws = 2000,
    warmup: Warmup = 100,
    seed: Seed = 0,
    fit: Fitting = None,
    as_json: AsJson = False,
) -> None:
    """Take Gaussian noise out of pictures, by the mean of draws from what the flow and the noise allow."""
    from ..applications.tables import flow_levels
    from ..errors import InputError

    if not 0 < sigma < math.inf:
        raise InputError(f"--sigma must be a positive number of grey values, got {sigma:g}")
    flow, x = _inputs(run, pictures, None, out, uncertainty, fit, most_likely)
    levels = flow_levels(flow) or 256
    lengths = {"chains": chains, "draws": draws, "warmup": warmup}
    found, told = _restored(flow, x, sigma * (levels - 1) / 255, most_likely, lengths, seed)
    _show(flow, pictures, found, out, uncertainty, told, as_json)


def _inputs(
    run: Path,
    pictures: list[Path],
    mask: Path | None,
    out: Path,
    uncertainty: Path | None,
    fit: Fit | None,
    most_likely: bool,
) -> tuple[Flow, Tensor]:
    """The flow and the pictures, once what is written is known to replace nothing that is read."""
    from ..applications.pictures import check_pictures_output
    from ..errors import InputError

    if uncertainty is not None and most_likely:
        raise InputError(
            "--uncertainty is that of draws, and --map makes none: leave one of them out"
        )
    read = [*pictures, *([] if mask is None else [mask])]
    for path in [out] if uncertainty is None else [out, uncertainty]:
        check_pictures_output(path, read)
    if uncertainty is not None and uncertainty.resolve() == out.resolve():
        raise InputError(f"--out and --uncertainty are both {out}: choose two names")
    return _opened(run, pictures, out, fit)


def _hidden(flow: Flow, mask: Path | None, box: str | None) -> Tensor:
    """True where nothing is known, [1, H, W]."""
    import torch

    from ..errors import InputError

    if (mask is None) == (box is None):
        raise InputError("give what is hidden either by --mask or by --box, one of them")
    if mask is not None:
        return _mask(mask, flow)
    _, height, width = flow.event_shape
    try:
        top, left, h, w = (int(part) for part in str(box).split(","))
    except ValueError as error:
        raise InputError(f"--box takes TOP,LEFT,HEIGHT,WIDTH in pixels, got {box!r}") from error
    if min(top, left, h - 1, w - 1) < 0 or top + h > height or left + w > width:
        raise InputError(f"--box {box} is not within the picture, which is {height}x{width}")
    if (h, w) == (height, width):
        raise InputError("--box hides the whole picture: draw one with diffeo sample instead")
    hidden = torch.zeros(1, height, width, dtype=torch.bool)
    hidden[:, top : top + h, left : left + w] = True
    return hidden


def _mask(path: Path, flow: Flow) -> Tensor:
    """A picture file as True where it is lighter than middle grey, [1, H, W]."""
    import torch

    from ..data.images import image_table, picture_shape
    from ..errors import DataError

    size, wanted = picture_shape(path)[1:], flow.event_shape[1:]
    if size != wanted:
        raise DataError(
            f"the mask {path} is {size[0]}x{size[1]}, and the flow's pictures are {wanted[0]}x{wanted[1]}: "
            "draw it in their size"
        )
    table = image_table(path.parent, [path], image_size=size, fit="resize", channels=1)
    (block,) = table.blocks(0, 1)
    hidden = torch.from_numpy(block.values)[0] > 127
    if not bool(hidden.any()) or bool(hidden.all()):
        what, meaning = (
            ("black", "nothing is hidden")
            if not bool(hidden.any())
            else ("white", "nothing is known")
        )
        raise DataError(
            f"the mask {path} is all {what}, so {meaning}: paint what is to be filled in white, the rest black"
        )
    return hidden


def _restored(
    flow: Flow,
    x: Tensor,
    sigma: Any,
    most_likely: bool,
    lengths: dict[str, int],
    seed: int,
) -> tuple[tuple[Tensor, Tensor | None], dict[str, list[Any]]]:
    """Restored pictures and their deviations, and the diagnostics of each."""
    import torch

    from ..applications import most_likely as restore
    from ..applications import posterior

    if most_likely:
        return (restore(flow, x, sigma), None), {}
    generator = torch.Generator(flow.device).manual_seed(seed)
    with progress_bar("drawing") as show:
        found = posterior(flow, x, sigma, generator=generator, progress=show, **lengths)
    told = {
        "rhat": found.rhat.tolist(),
        "effective": found.effective.tolist(),
        "accepted": found.accepted.tolist(),
        "converged": found.converged.tolist(),
    }
    return (found.mean, found.deviation), told


def _show(
    flow: Flow,
    pictures: list[Path],
    found: tuple[Tensor, Tensor | None],
    out: Path,
    uncertainty: Path | None,
    told: dict[str, list[Any]],
    as_json: bool,
) -> None:
    """Write the pictures, and say what the chains are worth."""
    from rich.table import Table

    from ..applications import write_pictures

    restored, deviation = found
    paths = write_pictures(restored, out, flow)
    facts: dict[str, Any] = {"pictures": len(restored), "paths": paths}
    if uncertainty is not None and deviation is not None:
        facts["uncertainty"] = write_pictures(2 * deviation, uncertainty, flow)
    if as_json:
        return say_json(facts | told)
    if told:
        table = Table("picture", *(COLUMNS[key][0] for key in told))
        for i, row in enumerate(zip(*told.values(), strict=True)):
            cells = (COLUMNS[key][1](value) for key, value in zip(told, row, strict=True))
            table.add_row(str(i), *cells)
        console.print(table)
    n = f"{len(restored)} picture" + ("s" if len(restored) > 1 else "")
    say(f"{n}: {out}")
    bad = told.get("converged", []).count(False)
    if bad:
        say(f"{bad} of {n} not converged (R-hat <= 1.05, 100 effective draws): more --draws")
    return None
