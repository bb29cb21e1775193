"""Flow++: mixture-of-logistics couplings with gated attention networks, and variational dequantization.

Ho, Chen, Srinivas, Duan, Abbeel. Flow++: Improving Flow-Based Generative Models with Variational Dequantization and
Architecture Design. 2019, arXiv:1902.00275.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from ..distributions import StandardNormal
from ..errors import ConfigError, ShapeError
from ..flow import Flow
from ..nets import MLP, GatedAttentionNet
from ..parts import Shape
from ..transforms import (
    ActNorm,
    Chain,
    Coupling,
    Flatten,
    Halves,
    InvertibleConv1x1,
    Partition,
    Squeeze,
    Transform,
)
from .base import Card, model
from .dequantization import CouplingKind, coupling_family, spatial, variational_dequantize
from .preprocessing import Dequantization, Levels, preprocessing

CARD = Card(
    name="flowpp",
    title="Flow++: Improving Flow-Based Generative Models with Variational Dequantization and Architecture Design",
    authors="Jonathan Ho, Xi Chen, Aravind Srinivas, Yan Duan, Pieter Abbeel",
    year=2019,
    arxiv="1902.00275",
    domain="image",
    likelihood="bound",
    event_shape=(3, 8, 8),
    description="Mixture-of-logistics couplings with convolutions and self-attention, learned dequantization noise",
    notes="paper: the CIFAR-10 settings, 31.3 million parameters (31.4 published). ActNorm has one pair of numbers per "
    "channel, where the released code has one per entry; the 1x1 convolution mixes all channels, not halves; networks "
    "start at zero; the noise ends in the normal distribution function, not a sigmoid, and so starts near uniform.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "couplings": (2, 1, 1),
        "components": 2,
        "width": 4,
        "blocks": 1,
        "heads": 2,
        "dequantizer_couplings": 2,
        "dequantizer_width": 4,
        "dequantizer_blocks": 1,
        "layers": 2,
        "hidden": (8,),
    },
    "small": {},
    "paper": {
        "components": 32,
        "width": 96,
        "blocks": 10,
        "attention_positions": None,
        "dropout": 0.2,
        "dequantizer_width": 96,
        "dequantizer_blocks": 2,
        "layers": 10,
        "hidden": (512, 512),
    },
}


@model(CARD, SIZES)
def flowpp(
    event_shape: Shape,
    context_shape: Any,
    *,
    coupling: CouplingKind = "mixture",
    components: int = 8,
    couplings: tuple[int, int, int] = (4, 2, 3),
    width: int = 32,
    blocks: int = 2,
    heads: int = 4,
    attention_positions: int | None = 256,
    dropout: float = 0.0,
    dequantization: Dequantization = "variational",
    dequantizer_couplings: int = 4,
    dequantizer_width: int = 32,
    dequantizer_blocks: int = 1,
    layers: int = 6,
    hidden: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """z_c = exp(s) logit F(x_c) + t, F a mixture of logistics whose parameters, with s and t, come from x_v.

    Images [C, H, W], H and W even: dequantized, logit with alpha, then `couplings` of columns, of channels after a
    squeeze, and of columns again, each after ActNorm and an invertible 1x1 convolution; nothing is factored out.
    Networks of `width` and `blocks`, whose attention of `heads` is left out where it would see more than
    attention_positions positions (None: nowhere). dequantizer_*: the same of the variational dequantization.
    Vectors [D]: `layers` couplings with MLPs of `hidden` widths, each after ActNorm and an invertible linear map.
    coupling: `affine` is z_c = exp(s) x_c + t (the noise keeps its mixtures). components: of the mixtures. dropout: in
    the networks. levels: of integer data (auto: 256 for images, None for vectors). standardize: by default for
    real-valued data only.
    """
    if len(event_shape) not in (1, 3):
        raise ShapeError(
            f"flowpp takes vectors (D,) or images (channels, height, width), got {event_shape}"
        )
    if min(couplings) < 0 or layers < 0 or (attention_positions or 0) < 0:
        raise ConfigError(
            f"flowpp needs couplings, layers and attention_positions of 0 or more, got {couplings}, {layers} and "
            f"{attention_positions}"
        )
    if dequantization == "variational":
        dequantize: Any = partial(
            variational_dequantize,
            context_shape=context_shape,
            coupling="mixture",
            components=components,
            couplings=dequantizer_couplings,
            width=dequantizer_width,
            blocks=dequantizer_blocks,
            heads=heads_where(event_shape, heads, attention_positions),
            dropout=dropout,
        )
    else:
        dequantize = dequantization
    first = preprocessing(
        event_shape, levels, alpha=alpha, standardize=standardize, dequantization=dequantize
    )

    def layer(shape: Shape, kind: Callable[..., Partition], flip: bool) -> Chain:
        if len(shape) == 1:
            net: Any = partial(MLP, hidden=tuple(hidden), activation=activation, dropout=dropout)
        else:
            given = heads_where(shape, heads, attention_positions, halved=kind is not Halves)
            net = partial(
                GatedAttentionNet, width=width, blocks=blocks, heads=given, dropout=dropout
            )
        made = partial(
            Coupling,
            family=coupling_family(coupling, components),
            net=net,
            partition=partial(kind, flip=flip),
            context_shape=context_shape,
        )
        return Chain(shape, [ActNorm, *([InvertibleConv1x1] if shape[0] > 1 else []), made])

    def group(n: int, kind: Any = None) -> list[Callable[[Shape], Transform]]:
        def one(shape: Shape, i: int) -> Chain:
            return layer(shape, kind or spatial(shape), flip=i % 2 == 1)

        return [partial(one, i=i) for i in range(n)]

    if len(event_shape) == 1:
        chain = Chain(event_shape, [*first, *group(layers, Halves)])
        return Flow(chain, StandardNormal(chain.latent_shape))
    columns, channels, last = couplings
    body = [*group(columns), Squeeze, *group(channels, Halves), *group(last)]
    chain = Chain(event_shape, [*first, *body, Flatten])
    return Flow(chain, StandardNormal(chain.latent_shape))


def heads_where(shape: Shape, heads: int, most: int | None, halved: bool = True) -> int:
    """The heads of attention over an image [C, H, W] or half of it; 0 where that is more than `most` positions."""
    if len(shape) != 3:
        return 0
    positions = math.prod(shape[1:]) // (2 if halved and shape[2] % 2 == 0 else 1)
    return 0 if most is not None and positions > most else heads
