"""Ordinary picture files as events of an image flow, and back."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..data.images import image_table, picture_files, picture_shape
from ..errors import ConfigError, DataError, InputError
from ..files import write_atomically
from ..flow import Flow
from ..report.pictures import Scaling, image_grid
from .tables import flow_levels

Files = str | os.PathLike[str]


def read_pictures(files: Sequence[Files] | Files, flow: Flow, *, fit: str | None = None) -> Tensor:
    """Picture files, or those of a folder in the order of their names, as events [n, *event_shape] of a flow.

    8-bit values become 2^bits levels as in training, floor(x / 2^(8 - bits)), and other levels by rounding. fit:
    resize, or crop, what has another size, and turn colour to grey or back; None: raise. Raises DataError for a file
    that is no picture or does not fit, ConfigError for a flow over other things than pictures of 1 or 3 channels.
    """
    return read_as(files, flow.event_shape, picture_levels(flow), fit=fit)


def read_as(
    files: Sequence[Files] | Files, wanted: Sequence[int], levels: int, *, fit: str | None = None
) -> Tensor:
    """Picture files as integers [n, *wanted] of so many levels; see `read_pictures`. Raises DataError."""
    channels, height, width = wanted
    paths = [Path(f) for f in ([files] if isinstance(files, str | os.PathLike) else files)]
    found = [p for path in paths for p in (picture_files(path) if path.is_dir() else [path])]
    if not found:
        raise InputError("no picture is given")
    for path in found:
        shape = picture_shape(path)
        if fit is None and shape != tuple(wanted):
            raise DataError(
                f"{path} is {_words(shape)}, and the flow takes {_words(wanted)}: fit it by resize or crop"
            )
    table = image_table(
        found[0].parent, found, image_size=(height, width), fit=fit or "resize", channels=channels
    )
    blocks = [torch.from_numpy(block.values) for block in table.blocks(0, len(found))]
    x = torch.cat(blocks)
    if 256 % levels == 0:
        return x // (256 // levels)
    return (x.double() * ((levels - 1) / 255)).round().to(torch.uint8)


def write_pictures(x: Tensor, out: Files, flow: Flow, *, columns: int | None = None) -> list[Path]:
    """Events [n, *event_shape] as .png files of their own size; returns the paths.

    out: a name that ends in .png, for one picture, or for a sheet of several, enlarged, `columns` side by side; or a
    folder, which gets 0.png, 1.png, ... Raises InputError for another name.
    """
    path, scaling = Path(out), Scaling(0.0, picture_levels(flow) - 1.0)
    _check_name(path)
    if path.suffix.lower() == ".png":
        content = (
            _png(x[0], scaling)
            if len(x) == 1
            else image_grid(x, scaling, columns or min(len(x), 8), cell=64)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        return [path]
    path.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(x) - 1))
    paths = [path / f"{i:0{digits}d}.png" for i in range(len(x))]
    for name, picture in zip(paths, x, strict=True):
        write_atomically(name, _png(picture, scaling))
    return paths


def check_pictures_output(out: Files, inputs: Sequence[Files]) -> None:
    """Raise InputError for an output that would replace a picture that is read, or stand in a folder of them.

    Also for a name that `write_pictures` refuses, so that nothing is computed in vain.
    """
    _check_name(Path(out))
    path = Path(out).resolve()
    for given in inputs:
        source = Path(given).resolve()
        if path == source or source in path.parents or (path.is_dir() and path in source.parents):
            raise InputError(f"{out} would write over what is read: choose another name to write")


def _check_name(path: Path) -> None:
    if path.suffix.lower() == ".png":
        if path.is_dir():
            raise InputError(f"{path} is a folder, expected the name of a file to write")
    elif path.suffix or path.is_file():
        raise InputError(f"pictures are written as .png or into a folder, got {path.name!r}")


def picture_levels(flow: Flow) -> int:
    """Number of levels of a flow over pictures of 1 or 3 channels. Raises ConfigError for another flow."""
    levels = flow_levels(flow)
    if levels is None or len(flow.event_shape) != 3 or flow.event_shape[0] not in (1, 3):
        raise ConfigError(
            f"this needs a flow over integer pictures of 1 or 3 channels, got events of shape {flow.event_shape}"
            + ("" if levels else " over real numbers")
        )
    return levels


def _words(shape: Sequence[int]) -> str:
    """28x28 and grey."""
    return f"{shape[1]}x{shape[2]} and {'grey' if shape[0] == 1 else 'in colour'}"


def _png(x: Tensor, scaling: Scaling) -> bytes:
    """One picture [C, H, W], a pixel for a pixel."""
    from PIL import Image

    pixels = scaling(x)
    array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(array.contiguous().numpy()).save(buffer, "PNG")
    return buffer.getvalue()


__all__ = ["check_pictures_output", "read_pictures", "write_pictures"]
