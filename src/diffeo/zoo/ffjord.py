"""FFJORD: continuous flows whose field is any network, trained by maximum likelihood.

Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud. FFJORD. 2018, arXiv:1810.01367.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ..distributions import StandardNormal
from ..errors import ShapeError
from ..flow import Flow
from ..nets import ConcatSquash, ConcatSquashConv, ConvResNet
from ..parts import Shape
from ..transforms import Chain, Continuous, Flatten, Squeeze, Transform, split_whitened
from .base import Card, model
from .preprocessing import Dequantization, Levels, preprocessing
from .realnvp import automatic_scales

CARD = Card(
    name="ffjord",
    title="FFJORD: Free-form continuous dynamics for scalable reversible generative models",
    authors="Will Grathwohl, Ricky T. Q. Chen, Jesse Bettencourt, Ilya Sutskever, David Duvenaud",
    year=2018,
    arxiv="1810.01367",
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="Continuous flows: the latent is the end of an ODE, its volume the integral of the field's divergence.",
    notes="Exact to the solver's tolerance, which `flow.properties.bias` states; with more than 16 entries an unbiased "
    "estimate by Hutchinson's trace, one random vector a solve. paper: the released code's settings, for vectors those "
    "of the toy densities. Every example has steps of its own, where the release has steps for the whole batch. "
    "Images: the release joins the time as a channel of ones, which differs at the border.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden": (4,),
        "channels": (2,),
        "blocks": 1,
        "time": 0.1,
        "learn_time": False,
        "solver": "rk4",
        "steps": 1,
        "trace": "exact",
    },
    "small": {"hidden": (64, 64), "channels": (16, 16), "rtol": 1e-4, "atol": 1e-4},
    "paper": {"adjoint": True},
}
EXACT_ENTRIES = 16


@model(CARD, SIZES)
def ffjord(
    event_shape: Shape,
    context_shape: Any,
    *,
    hidden: tuple[int, ...] = (64, 64, 64),
    channels: tuple[int, ...] = (64, 64, 64),
    blocks: int | None = None,
    activation: Literal["tanh", "softplus", "silu"] | None = None,
    gated: bool | None = None,
    time: float | None = None,
    learn_time: bool = True,
    solver: str = "dopri5",
    steps: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    trace: Literal["auto", "exact", "hutchinson"] = "auto",
    adjoint: bool = False,
    kinetic: float = 0.0,
    jacobian: float = 0.0,
    scales: int | None = None,
    split: Literal["fixed", "learned", "conditional"] = "fixed",
    levels: Levels = "auto",
    dequantization: Dequantization = "uniform",
    alpha: float | None = 1e-6,
    standardize: bool | None = None,
) -> Flow:
    """z = x(T) of dx/dt = f(x, t, context), `blocks` times; images multi-scale, with splits.

    Vectors: perceptrons of `hidden` widths, tanh, gated by time, T = 0.5 at first. Images [C, H, W]: dequantized, logit
    with alpha, then per scale `blocks` (2) flows, a squeeze, as many flows, and half of the channels leave; at the last
    scale `blocks` flows; convolutions of `channels`, softplus, T = 1 at first; scales None: until the smaller side is 4
    or odd. gated: whether time also multiplies each layer (concatsquash) or is only added (concat, of images).
    solver, steps, rtol, atol, adjoint, kinetic, jacobian: as in `Continuous`. trace auto: exact for up to 16 entries.
    split: the Gaussian of the half that leaves. levels: of integer data (auto: 256 for images, None for vectors).
    standardize: by default for real-valued data only.
    """
    if len(event_shape) not in (1, 3):
        raise ShapeError(
            f"ffjord takes vectors (D,) or images (channels, height, width), got {event_shape}"
        )
    image = len(event_shape) == 3
    count = (2 if image else 1) if blocks is None else blocks
    first = preprocessing(
        event_shape,
        levels,
        alpha=alpha,
        standardize=standardize,
        dequantization=dequantization,
        context_shape=context_shape,
    )
    net: Any = partial(
        ConcatSquash,
        hidden=hidden,
        activation=activation or "tanh",
        gated=True if gated is None else gated,
    )
    if image:
        net = partial(
            ConcatSquashConv,
            channels=channels,
            activation=activation or "softplus",
            gated=False if gated is None else gated,
        )

    def flow(shape: Shape) -> Continuous:
        exact = trace == "exact" or (trace == "auto" and math.prod(shape) <= EXACT_ENTRIES)
        return Continuous(
            shape,
            net,
            time=(1.0 if image else 0.5) if time is None else time,
            learn_time=learn_time,
            solver=solver,
            steps=steps,
            rtol=rtol,
            atol=atol,
            trace="exact" if exact else "hutchinson",
            adjoint=adjoint,
            kinetic=kinetic,
            jacobian=jacobian,
            context_shape=context_shape,
        )

    flows: list[Callable[[Shape], Transform]] = [flow] * count
    if not image:
        chain = Chain(event_shape, [*first, *flows])
        return Flow(chain, StandardNormal(chain.latent_shape))
    depth = automatic_scales(event_shape) if scales is None else scales

    def recurse(shape: Shape, i: int) -> Chain:
        if i >= depth - 1:
            return Chain(shape, [*flows, Flatten])
        prior: Any = (
            partial(ConvResNet, width=channels[0], blocks=1, batch_norm=False)
            if split == "conditional"
            else split
        )
        whiten = partial(
            split_whitened,
            rest=lambda kept: recurse(kept, i + 1),
            prior=prior,
            context_shape=context_shape,
        )
        return Chain(shape, [*flows, Squeeze, *flows, whiten])

    chain = Chain(event_shape, [*first, lambda shape: recurse(shape, 0)])
    return Flow(chain, StandardNormal(chain.latent_shape))
