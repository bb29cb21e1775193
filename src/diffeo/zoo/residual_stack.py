"""What the models of residual blocks share: actnorm and z = x + g(x), in turn, between squeezes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ..errors import ConfigError, ShapeError
from ..nets.lipschitz import LipschitzNet
from ..parts import Shape
from ..transforms import ActNorm, Chain, Flatten, Residual, Split, Squeeze, Transform
from ..transforms.logdet import Exact, LogDet, PowerSeries, Roulette
from .preprocessing import Parts

Estimator = Literal["exact", "series", "geometric", "poisson"]
Net = Callable[..., LipschitzNet]


def estimator_of(name: Estimator, *, terms: int, exact_terms: int, eval_terms: int) -> LogDet:
    """How log|det| is found: exact, a series of `terms` terms, or by roulette with that law."""
    if name == "exact":
        return Exact()
    if name == "series":
        return PowerSeries(terms)
    if name not in ("geometric", "poisson"):
        raise ConfigError(f"estimator must be exact, series, geometric or poisson, got {name!r}")
    return Roulette(name, exact_terms=exact_terms, eval_terms=eval_terms)


def residual_stack(
    event_shape: Shape,
    first: Parts,
    *,
    estimator: LogDet,
    dense: Net,
    depth: int,
    conv: Net,
    blocks: tuple[int, ...],
    squeeze_first: bool,
    factor_out: bool = False,
    end: Net | None = None,
    end_blocks: int = 0,
    layer: Callable[..., Transform] = Residual,
    context_shape: Any = None,
) -> Chain:
    """Vectors: `depth` times [actnorm, residual(dense)]. Images: for each scale, squeeze, and blocks[i] times
    [actnorm, residual(conv)], every network but the first beginning with an activation.

    squeeze_first: whether the first scale begins with a squeeze, too. factor_out: half of the channels leaves after
    each scale. end: networks of `end_blocks` more blocks on all latents, flat. layer: Residual, or Implicit.
    """
    if len(event_shape) not in (1, 3):
        raise ShapeError(
            f"residual blocks take vectors (D,) or images (channels, height, width), got {event_shape}"
        )
    if depth < 1 or end_blocks < 0 or not blocks or any(n < 1 for n in blocks):
        raise ConfigError(
            f"a model of residual blocks needs at least one for vectors and for each scale, got {depth} and {blocks}"
        )

    def block(shape: Shape, net: Net) -> Transform:
        return layer(shape, net, estimator=estimator, context_shape=context_shape)

    def pair(net: Net) -> Parts:
        return [ActNorm, partial(block, net=net)]

    if len(event_shape) == 1:
        return Chain(event_shape, [*first, *pair(dense) * depth])
    last: Parts = [Flatten, *(pair(end) * end_blocks if end is not None else [])]

    def scale(shape: Shape, i: int) -> Chain:
        layers: Parts = [Squeeze] if i or squeeze_first else []
        for n in range(blocks[i]):
            layers += pair(partial(conv, preactivation=i + n > 0))
        if i + 1 == len(blocks):
            return Chain(shape, [*layers, *(last if factor_out or not i else [])])
        rest = partial(scale, i=i + 1)
        return Chain(shape, [*layers, partial(Split, rest=rest) if factor_out else rest])

    chain: Parts = [*first, partial(scale, i=0)]
    if not factor_out and len(blocks) > 1:
        chain += last
    return Chain(event_shape, chain)
