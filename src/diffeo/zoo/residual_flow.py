"""Residual Flow: residual blocks with an unbiased log-determinant, and gradients whose memory does not grow.

Chen, Behrmann, Duvenaud, Jacobsen. Residual Flows for Invertible Generative Modeling. 2019, arXiv:1906.02735.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from ..distributions import StandardNormal
from ..flow import Flow
from ..nets import LipschitzConvNet, LipschitzMLP
from ..parts import Shape
from .base import Card, model
from .preprocessing import Dequantization, Levels, preprocessing
from .residual_stack import Estimator, estimator_of, residual_stack

CARD = Card(
    name="residual_flow",
    title="Residual Flows for Invertible Generative Modeling",
    authors="Ricky T. Q. Chen, Jens Behrmann, David Duvenaud, Joern-Henrik Jacobsen",
    year=2019,
    arxiv="1906.02735",
    domain="vector",
    likelihood="estimate",
    event_shape=(2,),
    description="Residual blocks with LipSwish, and an unbiased estimate of the log-det by Russian roulette",
    notes="paper: the CIFAR-10 model, 3 scales of 16 blocks with 512 feature maps and 4 blocks of two layers of 128 at "
    "the end, 25.2 million parameters; on vectors 100 blocks of four layers of 128. Probes are random signs, the "
    "number of terms is drawn for each example.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "depth": 2,
        "hidden": (4, 4),
        "blocks": (1, 1),
        "width": 4,
        "end_blocks": 1,
        "end_hidden": (4,),
    },
    "small": {},
    "paper": {
        "depth": 100,
        "hidden": (128,) * 4,
        "blocks": (16, 16, 16),
        "width": 512,
        "end_blocks": 4,
        "end_hidden": (128, 128),
        "image_coeff": 0.98,
        "squeeze_first": False,
        "estimator": "poisson",
    },
}


@model(CARD, SIZES)
def residual_flow(
    event_shape: Shape,
    context_shape: Any,
    *,
    depth: int = 10,
    hidden: tuple[int, ...] = (64, 64, 64),
    blocks: tuple[int, ...] = (4, 4),
    width: int = 64,
    end_blocks: int = 2,
    end_hidden: tuple[int, ...] = (64, 64),
    activation: str = "lipswish",
    norm: float | Literal["learned"] = 2.0,
    coeff: float = 0.9,
    image_coeff: float = 0.98,
    squeeze_first: bool = True,
    estimator: Estimator = "geometric",
    terms: int = 10,
    exact_terms: int = 2,
    eval_terms: int = 20,
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
    dequantization: Dequantization = "uniform",
) -> Flow:
    """Blocks of actnorm and x + g(x), log det(I + dg/dx) estimated without bias, nothing factored out.

    Vectors: `depth` blocks, g with `hidden` widths and norms of at most `coeff`. Images [C, H, W]: for each scale a
    squeeze, at the first one with `squeeze_first`, and blocks[i] blocks with g of 3x3, 1x1 and 3x3 convolutions,
    `width` feature maps and norms of at most `image_coeff`; then `end_blocks` blocks of `end_hidden` widths on all
    latents. activation: lipswish, elu or clipswish. norm: p of the norms, or learned (see LipschitzMLP). estimator:
    geometric or poisson, the law of the random number of terms after `exact_terms` exact ones, of which there are
    `eval_terms` outside training; series, of `terms` terms; exact, for few entries. context: moves the first layer of
    every g. levels, alpha, standardize, dequantization: see realnvp; the paper's alpha is 0.05, and 1e-6 on MNIST.
    """
    dense = partial(LipschitzMLP, activation=activation, norm=norm)
    chain = residual_stack(
        event_shape,
        preprocessing(
            event_shape,
            levels,
            alpha=alpha,
            standardize=standardize,
            dequantization=dequantization,
            context_shape=context_shape,
        ),
        estimator=estimator_of(
            estimator, terms=terms, exact_terms=exact_terms, eval_terms=eval_terms
        ),
        dense=partial(dense, hidden=tuple(hidden), coeff=coeff),
        depth=depth,
        conv=partial(
            LipschitzConvNet, width=width, activation=activation, coeff=image_coeff, norm=norm
        ),
        blocks=tuple(blocks),
        squeeze_first=squeeze_first,
        end=partial(dense, hidden=tuple(end_hidden), coeff=image_coeff, preactivation=True),
        end_blocks=end_blocks,
        context_shape=context_shape,
    )
    return Flow(chain, StandardNormal(chain.latent_shape))
