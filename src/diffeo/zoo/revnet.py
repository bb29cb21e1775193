"""Reversible residual networks as a flow: RevNet blocks between squeezes, |det| = 1 up to the units of the data.

Gomez, Ren, Urtasun, Grosse. The Reversible Residual Network. 2017, arXiv:1707.04585; Jacobsen, Smeulders, Oyallon.
i-RevNet: Deep Invertible Networks. 2018, arXiv:1802.07088 (bijective: squeezes in place of strides).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..distributions import DiagonalNormal
from ..errors import ShapeError
from ..families import Additive
from ..flow import Flow
from ..nets import Bottleneck
from ..parts import Shape
from ..transforms import Chain, Coupling, Flatten, Halves, Squeeze, Transform
from .base import Card, model
from .preprocessing import Dequantization, Levels, preprocessing

CARD = Card(
    name="revnet",
    title="The Reversible Residual Network: Backpropagation Without Storing Activations",
    authors="Aidan N. Gomez, Mengye Ren, Raquel Urtasun, Roger B. Grosse",
    year=2017,
    arxiv="1707.04585",
    domain="image",
    likelihood="bound",
    event_shape=(3, 8, 8),
    description="y1 = x1 + F(x2), y2 = x2 + G(y1) with bottleneck convolutions, squeezes between the stages.",
    notes="paper: 3 stages of 18 blocks, as RevNet-110 and the CIFAR i-RevNet. Those classifiers add channels, which "
    "no bijection can, so their parameter counts do not carry over.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"blocks": (1, 1), "width": 4},
    "small": {"blocks": (4, 4), "width": 32},
    "paper": {"blocks": (18, 18, 18), "width": 64},
}


@model(CARD, SIZES)
def revnet(
    event_shape: Shape,
    context_shape: Any,
    *,
    blocks: tuple[int, ...] = (4, 4),
    width: int = 32,
    batch_norm: bool = True,
    activation: str = "relu",
    dropout: float = 0.0,
    levels: Levels = "auto",
    alpha: float | None = None,
    dequantization: Dequantization = "uniform",
) -> Flow:
    """Per stage: squeeze 2, then blocks y1 = x1 + F(x2), y2 = x2 + G(y1); the latent under a learned diagonal Gaussian.

    blocks: per stage. width: feature maps inside F and G at the first stage, doubled per stage.
    levels, alpha, dequantization: see realnvp.
    Raises ShapeError for events that are no images, or whose sides 2^stages does not divide.
    """
    if len(event_shape) != 3:
        raise ShapeError(f"revnet takes images (channels, height, width), got {event_shape}")
    layers: list[Callable[[Shape], Transform]] = []
    for stage, count in enumerate(blocks):
        net = partial(
            Bottleneck,
            width=width * 2**stage,
            batch_norm=batch_norm,
            activation=activation,
            dropout=dropout,
        )
        layers.append(Squeeze)
        for flip in (True, False) * count:
            layers.append(
                partial(
                    Coupling,
                    family=Additive(),
                    net=net,
                    partition=partial(Halves, flip=flip),
                    context_shape=context_shape,
                )
            )
    first = preprocessing(
        event_shape,
        levels,
        alpha=alpha,
        standardize=False,
        dequantization=dequantization,
        context_shape=context_shape,
    )
    chain = Chain(event_shape, [*first, *layers, Flatten])
    return Flow(chain, DiagonalNormal(chain.latent_shape))
