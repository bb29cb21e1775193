"""i-ResNet: residual blocks x + g(x) with |g| < 1, and their log-determinant by a truncated power series.

Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen. Invertible Residual Networks. 2019, arXiv:1811.00995.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..distributions import DiagonalNormal
from ..flow import Flow
from ..nets import LipschitzConvNet, LipschitzMLP
from ..parts import Shape
from .base import Card, model
from .preprocessing import Dequantization, Levels, preprocessing
from .residual_stack import Estimator, estimator_of, residual_stack

CARD = Card(
    name="iresnet",
    title="Invertible Residual Networks",
    authors="Jens Behrmann, Will Grathwohl, Ricky T. Q. Chen, David Duvenaud, Joern-Henrik Jacobsen",
    year=2019,
    arxiv="1811.00995",
    domain="vector",
    likelihood="estimate",
    event_shape=(2,),
    description="Residual blocks x + g(x) with |g| < 1, inverted by fixed points; log-det by a truncated power series",
    notes="paper: the CIFAR-10 density model, 3 scales of 16 blocks with 512 feature maps; on vectors 100 blocks of "
    "four layers of 128. The likelihood is biased, by at most what flow.properties.bias says for each block.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"depth": 2, "hidden": (4, 4), "blocks": (1, 1), "width": 4},
    "small": {},
    "paper": {"depth": 100, "hidden": (128,) * 4, "blocks": (16, 16, 16), "width": 512},
}


@model(CARD, SIZES)
def iresnet(
    event_shape: Shape,
    context_shape: Any,
    *,
    depth: int = 10,
    hidden: tuple[int, ...] = (64, 64, 64),
    blocks: tuple[int, ...] = (4, 4),
    width: int = 64,
    activation: str = "elu",
    coeff: float = 0.9,
    estimator: Estimator = "series",
    terms: int = 5,
    exact_terms: int = 2,
    eval_terms: int = 20,
    levels: Levels = "auto",
    alpha: float | None = None,
    standardize: bool | None = None,
    dequantization: Dequantization = "uniform",
) -> Flow:
    """Blocks of actnorm and x + g(x), the norm of every linear map in g at most `coeff`.

    Vectors: `depth` blocks, g with `hidden` widths. Images [C, H, W]: for each scale a squeeze, blocks[i] blocks with g
    of 3x3, 1x1 and 3x3 convolutions and `width` feature maps, and half of the channels leaves; the latent under a
    learned diagonal Gaussian. activation: elu, lipswish or clipswish. estimator: series, of `terms` terms; exact, for
    few entries; geometric or poisson, the roulette of residual_flow with its exact_terms and eval_terms.
    context: moves the first layer of every g. levels, alpha, standardize, dequantization: see realnvp; integers go to
    [-1/2, 1/2] without a logit.
    """
    net: dict[str, Any] = {"activation": activation, "coeff": coeff}
    chain = residual_stack(
        event_shape,
        preprocessing(
            event_shape,
            levels,
            alpha=alpha,
            interval=(-0.5, 0.5),
            standardize=standardize,
            dequantization=dequantization,
            context_shape=context_shape,
        ),
        estimator=estimator_of(
            estimator, terms=terms, exact_terms=exact_terms, eval_terms=eval_terms
        ),
        dense=partial(LipschitzMLP, hidden=tuple(hidden), **net),
        depth=depth,
        conv=partial(LipschitzConvNet, width=width, **net),
        blocks=tuple(blocks),
        squeeze_first=True,
        factor_out=True,
        context_shape=context_shape,
    )
    return Flow(chain, DiagonalNormal(chain.latent_shape))
