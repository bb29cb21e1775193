"""Inverse autoregressive flow: each layer samples in one pass, and finds latents entry by entry.

Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling. Improved variational inference with inverse autoregressive flow.
2016, arXiv:1606.04934.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..distributions import StandardNormal
from ..families import Affine
from ..families.affine import Scale
from ..flow import Flow
from ..nets import MADE
from ..parts import Shape
from ..transforms import Autoregressive, Chain, Inverse
from .base import Card, model
from .preprocessing import Levels, Parts, preprocessing

CARD = Card(
    name="iaf",
    title="Improved Variational Inference with Inverse Autoregressive Flow",
    authors="Diederik P. Kingma, Tim Salimans, Rafal Jozefowicz, Xi Chen, Ilya Sutskever, Max Welling",
    year=2016,
    arxiv="1606.04934",
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="Autoregressive affine maps of the latents: samples with their density in one pass, as for posteriors",
    notes="paper: 8 layers of width 1920, the largest of its MNIST table, quoted from memory. The update is "
    "sigmoid(s + 2) z + t; the paper writes t as (1 - sigmoid(s)) m. The density of given data takes as many steps as "
    "there are entries.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "hidden": (16,)},
    "small": {},
    "paper": {"layers": 8, "hidden": (1920, 1920)},
}


@model(CARD, SIZES)
def iaf(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 4,
    hidden: tuple[int, ...] = (128, 128),
    activation: str = "elu",
    scale: Scale = "sigmoid",
    dropout: float = 0.0,
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """x_i = exp(s(z_<i)) z_i + t(z_<i), `layers` times, the order reversed from layer to layer.

    hidden, activation, dropout: of the MADEs. scale: how s comes from a network's output. levels, alpha, standardize:
    as for realnvp. Images are flattened.
    """
    parts: Parts = preprocessing(
        event_shape, levels, alpha=alpha, standardize=standardize, flatten=True
    )
    net = partial(MADE, hidden=tuple(hidden), activation=activation, dropout=dropout)

    def layer(shape: Shape, order: str) -> Inverse:
        return Inverse(
            Autoregressive(shape, Affine(scale), net, order=order, context_shape=context_shape)
        )

    parts += [partial(layer, order=("given", "reverse")[i % 2]) for i in range(layers)]
    chain = Chain(event_shape, parts)
    return Flow(chain, StandardNormal(chain.latent_shape))
