"""Neural autoregressive flows: deep or dense sigmoidal maps whose parameters come from a masked network.

Huang, Krueger, Lacoste, Courville. Neural autoregressive flows. 2018, arXiv:1804.00779.
"""

from __future__ import annotations

from typing import Any, Literal

from ..families import DeepSigmoid, DenseSigmoid
from ..flow import Flow
from ..parts import Shape
from .base import Card, model
from .preprocessing import Levels
from .stacks import autoregressive_stack

CARD = Card(
    name="naf",
    title="Neural autoregressive flows",
    authors="Chin-Wei Huang, David Krueger, Alexandre Lacoste, Aaron Courville",
    year=2018,
    arxiv="1804.00779",
    domain="vector",
    likelihood="exact",
    event_shape=(6,),
    description="Autoregressive flow of logits of mixtures of sigmoids: a universal density model.",
    notes="paper: the defaults of the released code, 5 dense sigmoidal layers of 16 units, masked networks of 100 "
    "units. Those have conditional weight normalization and an affine layer at the end, left out here, so parameter "
    "counts differ. Each map has slope at least 0.001, where the publication clips the sigmoids at 1e-6.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "hidden": (8,), "units": 2},
    "small": {},
    "paper": {
        "layers": 5,
        "hidden": (100, 100),
        "activation": "elu",
        "family": "dense",
        "units": 16,
        "depth": 1,
    },
}


@model(CARD, SIZES)
def naf(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 3,
    hidden: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    family: Literal["deep", "dense"] = "deep",
    units: int = 8,
    depth: int = 2,
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """z_i = logit(sum_k w_k sigmoid(a_k x_i + b_k)), (a, b, w) = MADE(x_<i, context); `layers` times, orders in turn.

    hidden, activation: of the masked networks. family: `deep` (DSF, one mixture) or `dense` (DDSF, `depth` layers of
    them), of `units` sigmoids. levels: of integer data (auto: 256 for images, None for vectors), then a logit with
    alpha. standardize: by default for real-valued data only.
    """
    return autoregressive_stack(
        event_shape,
        context_shape,
        lambda: DeepSigmoid(units) if family == "deep" else DenseSigmoid(units, depth),
        layers=layers,
        hidden=hidden,
        activation=activation,
        levels=levels,
        alpha=alpha,
        standardize=standardize,
    )
