"""The first layers of a model: from the user's units to what the published architecture expects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from ..families import Logit, Rescale
from ..parts import Shape
from ..transforms import Dequantize, Elementwise, Flatten, Standardize, Transform

Parts = list[Callable[[Shape], Transform]]
Levels = int | Literal["auto"] | None


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
) -> Parts:
    """Dequantize and rescale integers to an interval, then a logit with alpha; standardize; then flatten.

    standardize: by default only what is no integer.
    """
    levels = resolve_levels(event_shape, levels)
    parts: Parts = []
    if levels is not None:
        parts.append(partial(Dequantize, levels=levels))
        target = interval if alpha is None else (0.0, 1.0)
        parts.append(partial(Elementwise, family=Rescale((0, levels), target)))
        if alpha is not None:
            parts.append(partial(Elementwise, family=Logit(alpha)))
    if levels is None if standardize is None else standardize:
        parts.append(Standardize)
    if flatten and len(event_shape) != 1:
        parts.append(Flatten)
    return parts
