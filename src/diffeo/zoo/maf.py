"""Masked autoregressive flow: MADEs with Gaussian conditionals, the order reversed from layer to layer.

Papamakarios, Pavlakou, Murray. Masked autoregressive flow for density estimation. 2017, arXiv:1705.07057.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from ..distributions import StandardNormal
from ..families import Affine, GaussianMixtureCDF, Inverted
from ..families.affine import Scale
from ..flow import Flow
from ..nets import MADE
from ..parts import Shape
from ..transforms import Autoregressive, BatchNorm, Chain
from .base import Card, model
from .preprocessing import Levels, Parts, preprocessing

CARD = Card(
    name="maf",
    title="Masked Autoregressive Flow for Density Estimation",
    authors="George Papamakarios, Theo Pavlakou, Iain Murray",
    year=2017,
    arxiv="1705.07057",
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="Autoregressive Gaussian conditionals by masked networks, stacked with reversed orders and batch norm",
    notes="paper: five MADEs of two hidden layers of 512, as for HEPMASS and MINIBOONE; those of other sets are in "
    "recipes. Not published: s is bounded by 3 in size, so that no input overflows; batch norm has no gain and shift, "
    "which the next layer's affine maps have.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "hidden": (16,)},
    "small": {},
    "paper": {"hidden": (512, 512)},
}


@model(CARD, SIZES)
def maf(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 5,
    hidden: tuple[int, ...] = (128, 128),
    activation: str = "relu",
    order: Literal["reverse", "random"] = "reverse",
    scale: Scale = "clamp",
    batch_norm: bool = True,
    components: int | None = None,
    dropout: float = 0.0,
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """z_i = (x_i - mu(x_<i)) exp(-s(x_<i)), `layers` times: p(x_i | x_<i) = N(mu, exp(s)^2); sampling entry by entry.

    hidden, activation, dropout: of the MADEs. order: reversed from layer to layer, or random in each. scale: how s
    comes from a network's output (exp: as it is; clamp: bounded). batch_norm: after each layer. components: of one more
    layer on the latent side, a MADE with mixtures of that many Gaussians (MAF-MoG; the paper has 10). levels, alpha,
    standardize: as for realnvp. Images are flattened.
    """
    parts: Parts = preprocessing(
        event_shape, levels, alpha=alpha, standardize=standardize, flatten=True
    )
    net = partial(MADE, hidden=tuple(hidden), activation=activation, dropout=dropout)
    layer = partial(Autoregressive, net=net, context_shape=context_shape)

    def order_of(i: int) -> str:
        return "random" if order == "random" else ("given", "reverse")[i % 2]

    for i in range(layers):
        parts.append(partial(layer, family=Inverted(Affine(scale)), order=order_of(i)))
        if batch_norm:
            parts.append(partial(BatchNorm, eps=1e-5))
    if components is not None:
        family = GaussianMixtureCDF(components)
        parts.append(partial(layer, family=family, order=order_of(layers)))
    chain = Chain(event_shape, parts)
    return Flow(chain, StandardNormal(chain.latent_shape))
