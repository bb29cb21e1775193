"""Pictures drawn given a picture: coloured from grey, enlarged from small. Each is one sample of p(x | context)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError
from ..flow import Flow
from .pictures import Files, picture_levels, read_as


def colorize(
    flow: Flow,
    grey: Tensor,
    samples: int = 4,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Pictures in colour, [samples, n, 3, H, W], given grey ones [n, 1, H, W], by a flow trained with `given` grey.

    Their mean over the samples is the best guess in squared error. Raises ConfigError for another flow, ShapeError or
    InputError for pictures that do not fit it.
    """
    check_colorizes(flow)
    return flow.sample(samples, grey, temperature, generator=generator, batch_size=batch_size)


def enlarge(
    flow: Flow,
    small: Tensor,
    samples: int = 4,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Pictures [samples, n, C, H, W] given small ones [n, C, h, w], by a flow trained with `given` half or quarter.

    Their mean over the samples is the best guess in squared error. Raises ConfigError for another flow, ShapeError or
    InputError for pictures that do not fit it.
    """
    check_enlarges(flow)
    return flow.sample(samples, small, temperature, generator=generator, batch_size=batch_size)


def read_given(files: Sequence[Files] | Files, flow: Flow, *, fit: str | None = None) -> Tensor:
    """Picture files, or those of a folder, as contexts [n, *context_shape] of a flow that is given pictures.

    As `read_pictures`: colour becomes grey, and other sizes fit, only with `fit`. Raises DataError for a file that is
    no picture or does not fit, ConfigError for another flow.
    """
    return read_as(files, _context(flow), picture_levels(flow), fit=fit)


def check_colorizes(flow: Flow) -> None:
    """Raise ConfigError unless the flow draws pictures in colour given grey ones of the same size."""
    c, *size = _context(flow)
    channels, *full = flow.event_shape
    if (c, channels) != (1, 3) or size != full:
        raise ConfigError(f"this needs a model of colours given grey pictures, and {_words(flow)}")


def check_enlarges(flow: Flow) -> None:
    """Raise ConfigError unless the flow draws pictures given smaller ones."""
    c, h, w = _context(flow)
    channels, height, width = flow.event_shape
    if c != channels or h * w >= height * width:
        raise ConfigError(f"this needs a model of pictures given small ones, and {_words(flow)}")


def _context(flow: Flow) -> tuple[int, int, int]:
    shape = flow.context_shape
    picture_levels(flow)
    if not isinstance(shape, tuple) or len(shape) != 3:
        raise ConfigError(
            "this needs a model of pictures given a picture, trained with data.given=grey, half or quarter, and this "
            f"one {'is given nothing' if shape is None else f'has a context {shape}'}"
        )
    return shape[0], shape[1], shape[2]


def _words(flow: Flow) -> str:
    return f"this one draws pictures {flow.event_shape} given {flow.context_shape}"
