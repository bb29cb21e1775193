"""Glow: actnorm, invertible 1x1 convolution and affine coupling, multi-scale, with learned priors at every level.

Kingma, Dhariwal. Glow: Generative Flow with Invertible 1x1 Convolutions. 2018, arXiv:1807.03039.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ..distributions import StandardNormal
from ..errors import ConfigError, ShapeError
from ..families import Additive, Affine, Inverted
from ..flow import Flow
from ..nets import MLP, GlowConv, PerChannel, ZeroConv
from ..nets.pyramid import PerPixel, Pyramid, reading
from ..parts import Shape
from ..transforms import (
    ActNorm,
    Chain,
    Coupling,
    Elementwise,
    Flatten,
    Householder,
    InvertibleConv1x1,
    LabelPrior,
    PeriodicConv,
    Permutation,
    Squeeze,
    Transform,
    split_whitened,
)
from .base import Card, model
from .preprocessing import Dequantization, Levels, preprocessing, resolve_levels

Layer = Callable[[Shape], Transform]

CARD = Card(
    name="glow",
    title="Glow: Generative Flow with Invertible 1x1 Convolutions",
    authors="Diederik P. Kingma, Prafulla Dhariwal",
    year=2018,
    arxiv="1807.03039",
    domain="image",
    likelihood="bound",
    event_shape=(3, 8, 8),
    description="Steps of actnorm, invertible 1x1 convolution and coupling: multi-scale for images, or for vectors",
    notes="paper: the CIFAR-10 settings, 3 levels of 32 steps with 512 feature maps. Not published: log sigma of the "
    "priors is bounded by 3, and the prior of the last level is an actnorm.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"depth": 1, "width": 4, "hidden": (16,), "context_width": 4},
    "small": {},
    "paper": {"depth": 32, "width": 512, "scales": 3, "hidden": (512, 512)},
}
MIXING: dict[str, Layer] = {
    "conv1x1": InvertibleConv1x1,
    "direct": partial(InvertibleConv1x1, form="direct"),
    "householder": Householder,
    "periodic": PeriodicConv,
    "reverse": partial(Permutation, order="reverse"),
    "shuffle": Permutation,
}


@model(CARD, SIZES)
def glow(
    event_shape: Shape,
    context_shape: Any,
    *,
    scales: int | None = None,
    depth: int = 8,
    width: int = 64,
    hidden: tuple[int, ...] = (128, 128),
    dropout: float = 0.0,
    coupling: Literal["affine", "additive"] = "affine",
    mixing: str = "conv1x1",
    split: Literal["fixed", "learned", "conditional"] = "conditional",
    condition: Literal["top", "all"] = "top",
    context_width: int = 32,
    classifier: float = 0.0,
    levels: Levels = "auto",
    alpha: float | None = None,
    standardize: bool | None = None,
    dequantization: Dequantization | Callable[..., Transform] = "uniform",
) -> Flow:
    """Per scale: squeeze 2, `depth` times [actnorm, mixing, coupling], and half of the channels leaves, whitened.

    Images [C, H, W]: scales (None: halve until the smaller side is 4, twice at least, or until a side is odd), width
    (feature maps), coupling (z = sigmoid(raw + 2) x + t, or x + t), mixing (conv1x1, by its PLU factors; direct, the
    same by its matrix; householder; periodic, a convolution of the whole field; reverse and shuffle, permutations),
    split (the Gaussian of the half that leaves: N(0, 1), learned, or a zero convolution of what stays).
    Vectors [D]: `depth` times [actnorm, mixing, coupling by an MLP of `hidden` widths]. dropout: in the networks.
    context: moves the Gaussian of the last scale, per channel; all couplings and splits, too, with condition `all`, and
    always for vectors. A picture as context, of any size, with the levels of the data, is embedded by a `Pyramid` of
    `context_width` features; each scale reads those of its own size and, with `all`, begins by whitening with a
    Gaussian of them. Not published in this form; SRFlow (Lugmayr et al., 2020, arXiv:2006.14200) is conditioned in like
    manner. classifier: the context is a one-hot label, and `diffeo.fit` adds to the loss in bits/dim this much (0.01 in
    the paper) times the cross-entropy, in bits, of a linear classifier of the last scale's mean latent.
    levels: of integer data (auto: 256 for images, None for vectors). alpha: of a logit, not published, which pictures
    with much black or white need; None: the interval [-1/2, 1/2]. standardize: by default for real-valued data only.
    dequantization: uniform, or variational (see `preprocessing`).
    """
    if len(event_shape) not in (1, 3):
        raise ShapeError(
            f"glow takes vectors (D,) or images (channels, height, width), got {event_shape}"
        )
    if mixing not in tuple(MIXING):
        raise ConfigError(f"mixing must be one of {', '.join(MIXING)}, got {mixing!r}")
    if depth < 1 or (scales is not None and scales < 1) or not 0 <= dropout < 1:
        raise ConfigError(
            f"glow needs depth and scales of 1 or more and a dropout in [0, 1), got depth {depth}, scales {scales} and "
            f"dropout {dropout}"
        )
    image = len(event_shape) == 3
    if classifier and (
        not image or not isinstance(context_shape, tuple) or len(context_shape) != 1
    ):
        raise ConfigError(
            f"the classifier of glow needs images and a one-hot label (classes,) as context, got context_shape "
            f"{context_shape}"
        )
    picture = image and isinstance(context_shape, tuple) and len(context_shape) == 3
    levels_left = automatic_scales(event_shape) if image and scales is None else scales or 1
    inner = _sizes(event_shape, levels_left, context_width) if picture else context_shape
    if picture and condition == "top":
        inner = dict([inner.popitem()])
    seen = inner if condition == "all" or not image else None

    def couple(shape: Shape, net: Any) -> Coupling:
        family = Affine("sigmoid") if coupling == "affine" else Additive()
        return Coupling(shape, family, net, context_shape=seen)

    first = preprocessing(
        event_shape,
        levels,
        alpha=alpha,
        interval=(-0.5, 0.5),
        standardize=standardize,
        dequantization=dequantization,
        context_shape=None if picture else seen,
    )
    if not image:
        mlp = partial(MLP, hidden=tuple(hidden), dropout=dropout)
        steps: list[Layer] = [ActNorm, MIXING[mixing], partial(couple, net=mlp)] * depth
        chain = Chain(event_shape, [*first, *steps])
        return Flow(chain, StandardNormal(chain.latent_shape))

    def recurse(shape: Shape, left: int) -> Chain:
        def here(net: Any) -> Any:
            return reading(net, _key(levels_left - left)) if picture and seen else net

        conv = here(partial(GlowConv, width=width, dropout=dropout))
        prior: list[Layer] = []
        if picture:
            prior = [_prior(reading(PerPixel, _key(levels_left - left)), inner)]
        elif classifier:
            prior = [partial(LabelPrior, classifier=classifier, context_shape=inner)]
        elif inner is not None:
            prior = [_prior(PerChannel, inner)]
        step: list[Layer] = [ActNorm, MIXING[mixing], partial(couple, net=conv)]
        layers: list[Layer] = [Squeeze, *(prior if picture and seen else []), *step * depth]
        if left <= 1:
            return Chain(shape, [*layers, ActNorm, *prior, Flatten])
        leaving: Any = here(ZeroConv) if split == "conditional" else split
        rest = partial(recurse, left=left - 1)
        split_off = partial(split_whitened, rest=rest, prior=leaving, context_shape=seen)
        return Chain(shape, [*layers, split_off])

    chain = Chain(event_shape, [*first, partial(recurse, left=levels_left)])
    base = StandardNormal(chain.latent_shape)
    if not picture:
        return Flow(chain, base)
    embedding = Pyramid(context_shape, inner, levels=resolve_levels(event_shape, levels))
    return Flow(chain, base, embedding=embedding, context_shape=context_shape)


def _key(scale: int) -> str:
    """The name of the features that a scale reads, the first of them 0."""
    return f"scale{scale + 1}"


def _sizes(event_shape: Shape, scales: int, width: int) -> dict[str, Shape]:
    """The features of each scale, fine to coarse."""
    _, h, w = event_shape
    return {_key(i): (width, h >> (i + 1), w >> (i + 1)) for i in range(scales)}


def _prior(net: Any, context_shape: Any) -> Layer:
    """eps = (z - mu(context)) / sigma(context)."""

    def whiten(shape: Shape) -> Transform:
        return Elementwise(shape, Inverted(Affine("clamp")), net, context_shape=context_shape)

    return whiten


def automatic_scales(event_shape: Shape) -> int:
    """Halve until the smaller side is 4, twice at least, or until a side is odd: 3 for 32x32, 2 for 28x28 and 8x8."""
    _, h, w = event_shape
    scales = 0
    while h % 2 == 0 and w % 2 == 0 and (scales < 2 or min(h, w) > 4):
        h, w, scales = h // 2, w // 2, scales + 1
    return max(scales, 1)
