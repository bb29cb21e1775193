"""i-DenseNet: residual flows whose g concatenates, with weights that are learned, and CLipSwish.

Perugachi-Diaz, Tomczak, Bhulai. Invertible DenseNets with Concatenated LipSwish. 2021, arXiv:2102.02694.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..distributions import StandardNormal
from ..flow import Flow
from ..nets import LipschitzDenseNet, LipschitzMLP
from ..parts import Shape
from .base import Card, model
from .preprocessing import Dequantization, Levels, preprocessing
from .residual_stack import Estimator, estimator_of, residual_stack

CARD = Card(
    name="idensenet",
    title="Invertible DenseNets with Concatenated LipSwish",
    authors="Yura Perugachi-Diaz, Jakub M. Tomczak, Sandjai Bhulai",
    year=2021,
    arxiv="2102.02694",
    domain="vector",
    likelihood="estimate",
    event_shape=(2,),
    description="A residual flow with densely connected blocks, learned weights of concatenation, and CLipSwish",
    notes="paper: the CIFAR-10 model, 3 scales of 16 blocks of depth 3 and growth 172; on vectors 100 blocks of depth "
    "3 and growth 16. The weights of concatenation are learned from the first step; the paper starts at epoch 25. The "
    "4 blocks at the end are those of residual_flow, so that the model has 25.3 million parameters where 24.9 are "
    "published.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "depth": 2,
        "layers": 2,
        "growth": 4,
        "blocks": (1, 1),
        "image_growth": 4,
        "end_blocks": 1,
        "end_hidden": (4,),
    },
    "small": {},
    "paper": {
        "depth": 100,
        "blocks": (16, 16, 16),
        "image_growth": 172,
        "end_blocks": 4,
        "end_hidden": (128, 128),
        "squeeze_first": False,
        "estimator": "poisson",
    },
}


@model(CARD, SIZES)
def idensenet(
    event_shape: Shape,
    context_shape: Any,
    *,
    depth: int = 10,
    layers: int = 3,
    growth: int = 16,
    blocks: tuple[int, ...] = (4, 4),
    image_growth: int = 32,
    end_blocks: int = 2,
    end_hidden: tuple[int, ...] = (64, 64),
    activation: str = "clipswish",
    coeff: float = 0.9,
    image_coeff: float = 0.98,
    concat_coeff: float = 0.98,
    learn_concat: bool = True,
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
    """Blocks of actnorm and x + g(x), g a dense block: `layers` times h <- [a h, b act(W h)], then a last linear map.

    growth: channels that each layer adds on vectors, image_growth on images, even numbers with clipswish. concat_coeff:
    sqrt(a^2 + b^2). learn_concat: whether a and b are learned; equal otherwise. depth, blocks, end_blocks, end_hidden,
    coeff, image_coeff, squeeze_first, estimator, terms, exact_terms, eval_terms and the rest: see residual_flow.
    """
    net: dict[str, Any] = {
        "depth": layers,
        "activation": activation,
        "concat_coeff": concat_coeff,
        "learn": learn_concat,
    }
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
        dense=partial(LipschitzDenseNet, growth=growth, coeff=coeff, **net),
        depth=depth,
        conv=partial(_without_activation, growth=image_growth, coeff=image_coeff, **net),
        blocks=tuple(blocks),
        squeeze_first=squeeze_first,
        end=partial(LipschitzMLP, hidden=tuple(end_hidden), coeff=image_coeff, preactivation=True),
        end_blocks=end_blocks,
        context_shape=context_shape,
    )
    return Flow(chain, StandardNormal(chain.latent_shape))


def _without_activation(*shapes: Any, preactivation: bool, **settings: Any) -> LipschitzDenseNet:
    """A dense block begins with its first linear map, wherever it stands."""
    return LipschitzDenseNet(*shapes, **settings)
