"""ImpFlow: implicit blocks z + g_z(z) = x + g_x(x), whose slopes are not bounded by 2 as those of a residual block.

Lu, Chen, Li, Wang, Zhu. Implicit Normalizing Flows. 2021, arXiv:2103.09527.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ..distributions import StandardNormal
from ..fixed_points import Method
from ..flow import Flow
from ..nets import LipschitzConvNet, LipschitzMLP
from ..parts import Shape
from ..transforms import Implicit
from .base import Card, model
from .preprocessing import Dequantization, Levels, preprocessing
from .residual_stack import Estimator, estimator_of, residual_stack

CARD = Card(
    name="impflow",
    title="Implicit Normalizing Flows",
    authors="Cheng Lu, Jianfei Chen, Chongxuan Li, Qiuhao Wang, Jun Zhu",
    year=2021,
    arxiv="2103.09527",
    domain="vector",
    likelihood="estimate",
    event_shape=(2,),
    description="Implicit blocks z + g_z(z) = x + g_x(x), solved by Broyden's method in both directions",
    notes="paper: on vectors the toy model, 6 blocks of two layers of 128 with sine, coefficient 0.99 (POWER: 20 "
    "blocks of four such layers); on images the CIFAR-10 model, 3 scales of 2 blocks with 512 feature maps, LipSwish, "
    "coefficient 0.9, 5.5 million parameters. The release evaluates vectors of up to 10 entries with the exact "
    "determinant: estimator exact. Fixed points are solved to rounding; the release stops at 1e-6, or after 30 steps.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"depth": 2, "hidden": (4, 4), "blocks": (1, 1), "width": 4, "coeff": 0.8},
    "small": {},
    "paper": {
        "depth": 6,
        "hidden": (128, 128),
        "activation": "sin",
        "coeff": 0.99,
        "blocks": (2, 2, 2),
        "width": 512,
        "estimator": "poisson",
        "exact_terms": 10,
        "squeeze_first": False,
    },
}


@model(CARD, SIZES)
def impflow(
    event_shape: Shape,
    context_shape: Any,
    *,
    depth: int = 5,
    hidden: tuple[int, ...] = (64, 64, 64),
    blocks: tuple[int, ...] = (2, 2),
    width: int = 64,
    activation: str = "lipswish",
    coeff: float = 0.95,
    image_activation: str = "lipswish",
    image_coeff: float = 0.9,
    squeeze_first: bool = True,
    estimator: Estimator = "geometric",
    terms: int = 10,
    exact_terms: int = 2,
    eval_terms: int = 20,
    method: Method = "broyden",
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
    dequantization: Dequantization = "uniform",
) -> Flow:
    """Blocks of actnorm and z + g_z(z) = x + g_x(x): as many parameters as twice as many residual blocks.

    Vectors: `depth` blocks, both g with `hidden` widths, `activation` and norms of at most `coeff`. Images [C, H, W]:
    for each scale a squeeze, at the first one with `squeeze_first`, and blocks[i] blocks with g of 3x3, 1x1 and 3x3
    convolutions, `width` feature maps, `image_activation` and `image_coeff`; nothing is factored out. activation: sin,
    lipswish, elu or clipswish. method: of the fixed points, picard, anderson or broyden. estimator, terms, exact_terms,
    eval_terms, context, levels, alpha, standardize, dequantization: see residual_flow.
    """
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
        dense=partial(LipschitzMLP, hidden=tuple(hidden), activation=activation, coeff=coeff),
        depth=depth,
        conv=partial(LipschitzConvNet, width=width, activation=image_activation, coeff=image_coeff),
        blocks=tuple(blocks),
        squeeze_first=squeeze_first,
        layer=partial(Implicit, method=method),
        context_shape=context_shape,
    )
    return Flow(chain, StandardNormal(chain.latent_shape))
