"""UMNN-MAF: integrals of positive networks whose embeddings come from a masked network.

Wehenkel and Louppe. Unconstrained monotonic neural networks. 2019, arXiv:1908.05164.
"""

from __future__ import annotations

from typing import Any

from ..families import UMNN
from ..flow import Flow
from ..parts import Shape
from .base import Card, model
from .preprocessing import Levels
from .stacks import autoregressive_stack

CARD = Card(
    name="umnn",
    title="Unconstrained monotonic neural networks",
    authors="Antoine Wehenkel, Gilles Louppe",
    year=2019,
    arxiv="1908.05164",
    domain="vector",
    likelihood="exact",
    event_shape=(6,),
    description="Autoregressive flow of integrals of a positive network, by Clenshaw-Curtis quadrature.",
    notes="The log-determinant is that of the exact integral; the latent carries the quadrature's error, which "
    "`UMNN.quadrature_error` measures. paper: the released code's defaults for the tabular sets. The positive function "
    "is a smooth softplus, at least 0.001, where the publication has ELU + 1; the map is linear outside [-10, 10].",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "hidden": (8,), "embedding": 2, "integrand": (4,), "nodes": 10},
    "small": {},
    "paper": {
        "layers": 5,
        "hidden": (512, 512),
        "activation": "relu",
        "embedding": 30,
        "integrand": (50, 50, 50, 50),
        "nodes": 50,
    },
}


@model(CARD, SIZES)
def umnn(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 2,
    hidden: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    embedding: int = 16,
    integrand: tuple[int, ...] = (32, 32),
    nodes: int = 20,
    bound: float = 10.0,
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """z_i = b + int_0^x_i f(t; h) dt, (h, b) = MADE(x_<i, context); `layers` times, orders in turn.

    hidden, activation: of the masked networks, which give embeddings h of `embedding` numbers. integrand: widths of the
    positive network f of each layer, integrated with `nodes` + 1 points and constant outside [-bound, bound]. levels:
    of integer data (auto: 256 for images, None for vectors), then a logit with alpha. standardize: by default for
    real-valued data only.
    """
    return autoregressive_stack(
        event_shape,
        context_shape,
        lambda: UMNN(embedding, integrand, nodes=nodes, bound=bound),
        layers=layers,
        hidden=hidden,
        activation=activation,
        levels=levels,
        alpha=alpha,
        standardize=standardize,
    )
