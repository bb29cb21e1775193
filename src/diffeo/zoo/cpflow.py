"""Convex potential flow: every layer is the gradient of a strongly convex function.

Huang, Chen, Tsirigotis, Courville. Convex potential flows: universal probability distributions with optimal transport
and convex optimization. ICLR 2021, arXiv:2012.05942.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from ..distributions import StandardNormal
from ..errors import ConfigError, ShapeError
from ..flow import Flow
from ..nets.convex import ICNN, ConvICNN
from ..parts import Shape
from ..transforms import ActNorm, Chain, ConvexPotential, Flatten, Squeeze
from .base import Card, model
from .preprocessing import Levels, preprocessing

CARD = Card(
    name="cpflow",
    title="Convex potential flows: universal probability distributions with optimal transport and convex optimization",
    authors="Chin-Wei Huang, Ricky T. Q. Chen, Christos Tsirigotis, Aaron Courville",
    year=2021,
    arxiv="2012.05942",
    domain="vector",
    likelihood="exact",
    event_shape=(6,),
    description="Gradients of strongly convex potentials by input-convex networks; one layer can be the optimal "
    "transport map between two densities.",
    notes="paper: the released code's settings for tables, 10 layers of 10 hidden layers of 64 units. With more than "
    "100 entries the likelihood is an estimate that is in expectation too low. Not published: a floor of 0.01 under "
    "every Hessian; the context also gates the layers' inputs.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 1, "depth": 2, "width": 4, "context_width": 4},
    "small": {},
    "paper": {"layers": 10, "depth": 10, "width": 64},
}


@model(CARD, SIZES)
def cpflow(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 3,
    depth: int = 3,
    width: int = 64,
    scales: int = 1,
    activation: Literal["softplus", "gaussian", "laplace", "cauchy"] = "softplus",
    augmented: bool = True,
    symmetric: bool = True,
    context_width: int = 32,
    strong: float = 0.01,
    estimator: Literal["auto", "exact", "lanczos"] = "auto",
    probes: int = 1,
    steps: int = 100,
    tolerance: float = 1e-3,
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """`layers` times [actnorm, x -> grad G(x, context)], for images at each scale, squeezes between; a last actnorm.

    G: an input-convex network of `depth` hidden layers of `width` units (images: feature maps of 3x3 convolutions),
    plus a square. activation, augmented, symmetric, context_width: of the network, see `nets.ICNN`. strong, estimator,
    probes, steps, tolerance: see `transforms.ConvexPotential`; the estimator is exact up to 100 entries and Lanczos
    beyond unless it is given. Weights trained with one estimator can be evaluated with another: the parameters are the
    same. levels: of integer data (auto: 256 for images, None for vectors), then a logit with alpha. standardize: by
    default for real-valued data only.
    """
    image = len(event_shape) == 3
    if len(event_shape) not in (1, 3):
        raise ShapeError(
            f"cpflow takes vectors (D,) or images (channels, height, width), got {event_shape}"
        )
    if layers < 1 or depth < 1 or scales < 1 or (scales > 1 and not image):
        raise ConfigError(
            f"cpflow needs layers, depth and scales of 1 or more, and scales of 1 for vectors, got {layers}, {depth} "
            f"and {scales}"
        )
    network = partial(
        ConvICNN if image else ICNN,
        hidden=(width,) * depth,
        activation=activation,
        augmented=augmented,
        symmetric=symmetric,
        context_width=context_width,
    )
    convex = partial(
        ConvexPotential,
        potential=network,
        strong=strong,
        estimator=estimator,
        probes=probes,
        steps=steps,
        tolerance=tolerance,
        context_shape=context_shape,
    )
    parts: list[Any] = preprocessing(event_shape, levels, alpha=alpha, standardize=standardize)
    for scale in range(scales):
        parts += [*([Squeeze] if scale else []), *[ActNorm, convex] * layers]
    parts += [ActNorm, *([Flatten] if image else [])]
    chain = Chain(event_shape, parts)
    return Flow(chain, StandardNormal(chain.latent_shape))
