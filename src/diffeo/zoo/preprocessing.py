"""The first layers of a model: from the user's units to what the published architecture expects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ..errors import ConfigError
from ..families import Logit, Rescale
from ..parts import Shape
from ..transforms import Dequantize, Elementwise, Flatten, Standardize, Transform
from .dequantization import variational_dequantize

Parts = list[Callable[[Shape], Transform]]
Levels = int | Literal["auto"] | None
Dequantization = Literal["uniform", "variational"]


def resolve_levels(event_shape: Shape, levels: Levels) -> int | None:
    """`auto`: 256 levels for images [C, H, W], real numbers for everything else."""
    if levels == "auto":
        return 256 if len(event_shape) == 3 else None
    return levels


def preprocessing(
    event_shape: Shape,
    levels: Levels,
    *,
    alpha: float | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    standardize: bool | None = None,
    flatten: bool = False,
    dequantization: Dequantization | Callable[..., Transform] = "uniform",
    context_shape: Any = None,
) -> Parts:
    """Dequantize and rescale integers to an interval, then a logit with alpha; standardize; then flatten.

    standardize: by default only what is no integer. dequantization: of integers, by uniform noise, or `variational`:
    by noise from a small flow conditioned on them and on the context; or a callable `(event_shape, levels=)`.
    """
    levels = resolve_levels(event_shape, levels)
    parts: Parts = []
    if dequantization not in ("uniform", "variational") and not callable(dequantization):
        raise ConfigError(f"dequantization must be uniform or variational, got {dequantization!r}")
    if levels is not None:
        if levels < 2:
            raise ConfigError(f"levels must be at least 2, got {levels}")
        dequantize: Any = Dequantize if dequantization == "uniform" else dequantization
        if dequantization == "variational":
            dequantize = partial(variational_dequantize, context_shape=context_shape)
        parts.append(partial(dequantize, levels=levels))
        target = interval if alpha is None else (0.0, 1.0)
        parts.append(partial(Elementwise, family=Rescale((0, levels), target)))
        if alpha is not None:
            parts.append(partial(Elementwise, family=Logit(alpha)))
    if levels is None if standardize is None else standardize:
        parts.append(Standardize)
    if flatten and len(event_shape) != 1:
        parts.append(Flatten)
    return parts
