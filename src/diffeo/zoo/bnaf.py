"""Block neural autoregressive flow: masked networks that are themselves the maps.

De Cao, Titov, Aziz. Block neural autoregressive flow. 2019, arXiv:1904.04676.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..distributions import StandardNormal
from ..flow import Flow
from ..parts import Shape
from ..transforms import BlockAutoregressive, Chain, Permutation
from .base import Card, model
from .preprocessing import Levels, preprocessing

CARD = Card(
    name="bnaf",
    title="Block neural autoregressive flow",
    authors="Nicola De Cao, Ivan Titov, Wilker Aziz",
    year=2019,
    arxiv="1904.04676",
    domain="vector",
    likelihood="exact",
    event_shape=(6,),
    description="Networks with positive diagonal blocks and free blocks below: the autoregressive map is the network.",
    notes="A tanh network has a bounded image, so with a last flow that has no residual, as in the released code, the "
    "density integrates to less than 1; here every flow has the gated residual, which maps onto the whole space. "
    "paper: the defaults of the released code, 5 flows, one hidden layer of 10 units for each entry.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "width": 2, "depth": 1},
    "small": {},
    "paper": {"layers": 5, "width": 10, "depth": 1},
}


@model(CARD, SIZES)
def bnaf(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 3,
    width: int = 32,
    depth: int = 2,
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """z = s net(x) + (1 - s) x, net_i increasing in x_i, from x_<=i and the context; `layers` times, order reversed.

    width: units for each entry in every one of `depth` hidden layers of tanh. levels: of integer data (auto: 256 for
    images, None for vectors), then a logit with alpha. standardize: by default for real-valued data only.
    """
    first = preprocessing(event_shape, levels, alpha=alpha, standardize=standardize, flatten=True)
    block = partial(BlockAutoregressive, width=width, layers=depth, context_shape=context_shape)
    flip = partial(Permutation, order="reverse")
    parts = [part for i in range(layers) for part in ((flip, block) if i else (block,))]
    chain = Chain(event_shape, [*first, *parts])
    return Flow(chain, StandardNormal(chain.latent_shape))
