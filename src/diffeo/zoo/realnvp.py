"""Real NVP: affine couplings with checkerboard and channel masks, multi-scale; or alternating halves of a vector.

Dinh, Sohl-Dickstein, Bengio. Density estimation using Real NVP. 2016, arXiv:1605.08803.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ..distributions import StandardNormal
from ..errors import ShapeError
from ..families import Affine
from ..families.affine import Scale
from ..flow import Flow
from ..nets import MLP, ConvResNet
from ..parts import Shape
from ..transforms import (
    BatchNorm,
    Chain,
    Checkerboard,
    Coupling,
    Flatten,
    Halves,
    Partition,
    Permutation,
    Squeeze,
    Transform,
    split_whitened,
    unsqueeze,
)
from .base import Card, model
from .preprocessing import Dequantization, Levels, preprocessing

CARD = Card(
    name="realnvp",
    title="Density estimation using Real NVP",
    authors="Laurent Dinh, Jascha Sohl-Dickstein, Samy Bengio",
    year=2016,
    arxiv="1605.08803",
    domain="image",
    likelihood="bound",
    event_shape=(3, 8, 8),
    description="Affine couplings: multi-scale with checkerboard and channel masks for images; alternating for vectors",
    notes="paper: the CIFAR-10 settings, 64 feature maps, 8 residual blocks, 2 scales; its parameter count is not "
    "published. The released code starts the scale of checkerboard couplings at 0; so does size paper.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 4, "hidden": (16,), "width": 4, "blocks": 1, "scales": None},
    "small": {"growth": 1, "blocks": 1},
    "paper": {
        "layers": 10,
        "hidden": (512, 512),
        "width": 64,
        "blocks": 8,
        "scales": 2,
        "zero_init": False,
        "initial_scale": 0.0,
    },
}


@model(CARD, SIZES)
def realnvp(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 8,
    mixing: Literal["alternate", "permutation"] = "alternate",
    hidden: tuple[int, ...] = (128, 128),
    activation: str = "relu",
    width: int = 32,
    growth: int = 2,
    blocks: int = 2,
    scales: int | None = None,
    split: Literal["fixed", "learned", "conditional"] = "fixed",
    scale: Scale = "tanh",
    initial_scale: float = 1.0,
    batch_norm: bool = True,
    dropout: float = 0.0,
    zero_init: bool = True,
    levels: Levels = "auto",
    dequantization: Dequantization = "uniform",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
    flatten: bool = False,
) -> Flow:
    """z_c = x_c exp(s(x_v)) + t(x_v) over alternating partitions; images multi-scale, whitened splits.

    Images [C, H, W]: dequantized, logit with alpha, then per scale 3 checkerboard couplings, squeeze, 3 channel
    couplings, and half of the checkerboard leaves; 4 checkerboard couplings at the last scale. width (feature maps,
    times `growth` after each squeeze), blocks (residual blocks), scales (None: until the smaller side is 4 or odd),
    split (the Gaussian of the half that leaves), batch_norm (between couplings and in the networks).
    Vectors [D], or images with `flatten`: `layers` couplings with MLPs of `hidden` widths, over alternating entries, or
    over halves after a fixed random permutation each (mixing).
    levels: of integer data (auto: 256 for images, None for vectors). dequantization: of integers, by uniform noise, or
    `variational`, by a flow conditioned on them. standardize: by default for real-valued data only.
    scale, initial_scale: the family's scale parametrization. dropout: in the networks.
    """
    if len(event_shape) not in (1, 3):
        raise ShapeError(
            f"realnvp takes vectors (D,) or images (channels, height, width), got {event_shape}"
        )
    as_vector = flatten or len(event_shape) == 1
    first = preprocessing(
        event_shape,
        levels,
        alpha=alpha,
        standardize=standardize,
        flatten=as_vector,
        dequantization=dequantization,
        context_shape=context_shape,
    )

    def coupling(net: Any, partition: Callable[[Shape], Partition]) -> Callable[[Shape], Transform]:
        def make(shape: Shape) -> Coupling:
            family = Affine(scale, initial=initial_scale)
            return Coupling(shape, family, net, partition, context_shape=context_shape)

        return make

    if as_vector:
        mlp = partial(
            MLP, hidden=tuple(hidden), activation=activation, dropout=dropout, zero_init=zero_init
        )
        vector: list[Callable[[Shape], Transform]] = []
        if mixing == "alternate":
            # Halves of the sorted entries are contiguous, so they split and join faster than the alternating ones.
            vector.append(partial(Permutation, order="odd_first"))
        for i in range(layers):
            if mixing == "permutation":
                vector += [Permutation, coupling(mlp, Halves)]
            else:
                vector.append(coupling(mlp, partial(Halves, flip=i % 2 == 0)))
        chain = Chain(event_shape, [*first, *vector])
        return Flow(chain, StandardNormal(chain.latent_shape))

    depth = automatic_scales(event_shape) if scales is None else scales

    def recurse(shape: Shape, i: int) -> Chain:
        def resnet(features: int) -> Any:
            return partial(
                ConvResNet,
                width=features,
                blocks=blocks,
                batch_norm=batch_norm,
                dropout=dropout,
                zero_init=zero_init,
            )

        def group(
            kind: Callable[..., Partition], flips: tuple[bool, ...], features: int
        ) -> list[Callable[[Shape], Transform]]:
            made: list[Callable[[Shape], Transform]] = []
            for flip in flips:
                partition = partial(kind, flip=flip)
                made.append(coupling(resnet(features), partition))
                if batch_norm:
                    made.append(partial(BatchNorm, partition=partition))
            return made

        features = width * growth**i
        if i == depth - 1:
            last = group(Checkerboard, (True, False, True, False), features)
            return Chain(shape, [*last, Flatten])
        prior: Any = resnet(features) if split == "conditional" else split
        return Chain(
            shape,
            [
                *group(Checkerboard, (True, False, True), features),
                Squeeze,
                *group(Halves, (False, True, False), growth * features),
                unsqueeze,
                partial(Squeeze, order="checkerboard"),
                partial(
                    split_whitened,
                    rest=lambda kept: recurse(kept, i + 1),
                    prior=prior,
                    context_shape=context_shape,
                ),
            ],
        )

    chain = Chain(event_shape, [*first, lambda shape: recurse(shape, 0)])
    return Flow(chain, StandardNormal(chain.latent_shape))


def automatic_scales(event_shape: Shape) -> int:
    """The paper's rule: halve until the smaller side is 4, or until a side is odd."""
    _, h, w = event_shape
    scales = 1
    while h % 2 == 0 and w % 2 == 0 and min(h, w) > 4:
        h, w, scales = h // 2, w // 2, scales + 1
    return scales
