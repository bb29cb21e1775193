"""Gaussianization flow: rotations and learned marginal Gaussianization in turn.

Meng, Song, Song, Ermon. Gaussianization flows. 2020, arXiv:2003.01941.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from ..distributions import StandardNormal
from ..flow import Flow
from ..nets import MLP
from ..parts import Shape
from ..transforms import Chain, MarginalGaussianization, Rotation
from .base import Card, model
from .preprocessing import Levels, Parts, preprocessing

CARD = Card(
    name="gaussianization",
    title="Gaussianization flows",
    authors="Chenlin Meng, Yang Song, Jiaming Song, Stefano Ermon",
    year=2020,
    arxiv="2003.01941",
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="Rotations and mixture CDFs to the normal, entry by entry: iterative Gaussianization, learned",
    notes="paper: 20 layers of 50 logistic kernels, the released code's settings for 2-D data; for tables it has 5 "
    "layers of 100. Here the kernels' weights are learned as well, and rotations are matrix exponentials.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "components": 3, "hidden": (8,)},
    "small": {},
    "paper": {"layers": 20, "components": 50, "kernel": "logistic"},
}


@model(CARD, SIZES)
def gaussianization(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 8,
    components: int = 12,
    kernel: Literal["logistic", "gaussian"] = "logistic",
    hidden: tuple[int, ...] = (64, 64),
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """z = psi_n(R_n ... psi_1(R_1 x)), psi_i = Phi^-1(F_i(x_i)), R_i learned rotations; F_i mixtures of `components`.

    layers: rotations with their mixtures. kernel: of the mixtures. hidden: widths of the networks that turn a context
    into changes of the mixtures. levels, alpha, standardize: as for realnvp. Data-dependent initialization, layer by
    layer, is what makes it start as iterative Gaussianization.
    """
    parts: Parts = preprocessing(
        event_shape, levels, alpha=alpha, standardize=standardize, flatten=True
    )
    net = None if context_shape is None else partial(MLP, hidden=tuple(hidden))
    for _ in range(layers):
        marginals = partial(
            MarginalGaussianization,
            components=components,
            kernel=kernel,
            net=net,
            context_shape=context_shape,
        )
        parts += [partial(Rotation, learned=True), marginals]
    chain = Chain(event_shape, parts)
    return Flow(chain, StandardNormal(chain.latent_shape))
