"""Measure-preserving networks: alternating up and low shears, |det| = 1 exactly.

Zhu, Jin, Tang. Approximation capabilities of measure-preserving neural networks. 2021, arXiv:2106.10911.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from ..distributions import Distribution, StandardNormal, Uniform
from ..families import Additive
from ..flow import Flow
from ..nets import MLP
from ..parts import Shape
from ..transforms import Chain, Coupling, Flatten, Halves
from .base import Card, model

CARD = Card(
    name="measure_preserving",
    title="Approximation capabilities of measure-preserving neural networks",
    authors="Aiqing Zhu, Pengzhan Jin, Yifa Tang",
    year=2021,
    arxiv="2106.10911",
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="Up and low shears x + a^T sigma(K x_rest + b): volume preserving, so densities move without change.",
    notes="paper: depth 16, width 64, as in the sheet of the method; the publication states no single configuration.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"depth": 4, "width": 16},
    "small": {"depth": 8, "width": 64},
    "paper": {"depth": 16, "width": 64},
}


@model(CARD, SIZES)
def measure_preserving(
    event_shape: Shape,
    context_shape: Any,
    *,
    depth: int = 8,
    width: int = 64,
    activation: str = "sigmoid",
    base: Literal["normal", "uniform"] = "normal",
    bound: float = 4.0,
) -> Flow:
    """x_I <- x_I + a^T sigma(K x_rest + b), up and low halves in turn; log |det| = 0 exactly.

    depth: shears. width: units of each. base: `normal`, or `uniform` on [-bound, bound], whose density is constant.
    """
    net = partial(MLP, hidden=(width,), activation=activation, output_bias=False)
    shears = [
        partial(
            Coupling,
            family=Additive(),
            net=net,
            partition=partial(Halves, flip=i % 2 == 1),
            context_shape=context_shape,
        )
        for i in range(depth)
    ]
    first = [] if len(event_shape) == 1 else [Flatten]
    chain = Chain(event_shape, [*first, *shears])
    prior: Distribution = StandardNormal(chain.latent_shape)
    if base == "uniform":
        prior = Uniform(chain.latent_shape, -bound, bound)
    return Flow(chain, prior)
