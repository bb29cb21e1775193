"""A stack of autoregressive transforms of one family: what several published models are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..distributions import StandardNormal
from ..families import Family
from ..flow import Flow
from ..nets import MADE
from ..parts import Shape
from ..transforms import Autoregressive, Chain
from .preprocessing import Levels, preprocessing


def autoregressive_stack(
    event_shape: Shape,
    context_shape: Any,
    family: Callable[[], Family],
    *,
    layers: int,
    hidden: Sequence[int],
    activation: str,
    levels: Levels,
    alpha: float | None,
    standardize: bool | None,
) -> Flow:
    """Preprocessing, then `layers` times z_i = f(x_i; MADE(x_<i, context)), in the given order and the reverse."""
    first = preprocessing(event_shape, levels, alpha=alpha, standardize=standardize, flatten=True)

    def layer(shape: Shape, i: int) -> Autoregressive:
        return Autoregressive(
            shape,
            family(),
            partial(MADE, hidden=tuple(hidden), activation=activation),
            order="reverse" if i % 2 else "given",
            context_shape=context_shape,
        )

    chain = Chain(event_shape, [*first, *(partial(layer, i=i) for i in range(layers))])
    return Flow(chain, StandardNormal(chain.latent_shape))
