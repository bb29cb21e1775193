"""Flow matching: one continuous flow whose field is regressed on straight paths from data to noise.

Lipman, Chen, Ben-Hamu, Nickel, Le. Flow matching for generative modeling. 2022, arXiv:2210.02747.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

from ..distributions import StandardNormal
from ..errors import ShapeError
from ..flow import Flow
from ..nets import ConcatSquash, ConcatSquashConv
from ..parts import Shape
from ..transforms import Chain, Continuous, Flatten
from .base import Card, model
from .ffjord import EXACT_ENTRIES
from .preprocessing import Dequantization, Levels, preprocessing

CARD = Card(
    name="flow_matching",
    title="Flow matching for generative modeling",
    authors="Yaron Lipman, Ricky T. Q. Chen, Heli Ben-Hamu, Maximilian Nickel, Matt Le",
    year=2022,
    arxiv="2210.02747",
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="A continuous flow trained without solving it: its field is regressed on straight paths to noise.",
    notes="Objective: flow_matching; likelihood and latents afterwards by the ODE, to the solver's tolerance, as in "
    "ffjord. Time runs from data (0) to noise (1), the publication's the other way. paper: the publication's U-Nets "
    "for images are not part of this model: the field is FFJORD's network, at 512 units or 128 feature maps.",
    objective="flow_matching",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden": (4,),
        "channels": (2,),
        "time": 0.1,
        "solver": "rk4",
        "steps": 1,
        "trace": "exact",
    },
    "small": {},
    "paper": {"hidden": (512, 512, 512, 512, 512), "channels": (128, 128, 128, 128)},
}


@model(CARD, SIZES)
def flow_matching(
    event_shape: Shape,
    context_shape: Any,
    *,
    hidden: tuple[int, ...] = (64, 64, 64),
    channels: tuple[int, ...] = (32, 32, 32),
    activation: Literal["tanh", "softplus", "silu"] = "silu",
    time: float = 1.0,
    solver: str = "dopri5",
    steps: int | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    trace: Literal["auto", "exact", "hutchinson"] = "auto",
    adjoint: bool = False,
    levels: Levels = "auto",
    dequantization: Dequantization = "uniform",
    alpha: float | None = None,
    standardize: bool | None = None,
) -> Flow:
    """z = x(1) of dx/dt = f(x, t, context), one field for all times.

    Vectors: perceptrons of `hidden` widths. Images [C, H, W]: dequantized to [-1, 1], or a logit with alpha; gated
    convolutions of `channels`. solver, steps, rtol, atol, adjoint: as in `Continuous`, of likelihood and samples alone.
    trace auto: exact for up to 16 entries, Hutchinson's estimate beyond. levels: of integer data (auto: 256 for images,
    None for vectors). standardize: by default for real-valued data only.
    """
    if len(event_shape) not in (1, 3):
        raise ShapeError(
            f"flow_matching takes vectors (D,) or images (channels, height, width), got {event_shape}"
        )
    image = len(event_shape) == 3
    first = preprocessing(
        event_shape,
        levels,
        alpha=alpha,
        interval=(-1.0, 1.0),
        standardize=standardize,
        dequantization=dequantization,
        context_shape=context_shape,
    )
    net: Any = partial(ConcatSquash, hidden=hidden, activation=activation)
    if image:
        net = partial(ConcatSquashConv, channels=channels, activation=activation)
    exact = trace == "exact" or (trace == "auto" and math.prod(event_shape) <= EXACT_ENTRIES)
    layer = partial(
        Continuous,
        field=net,
        time=time,
        solver=solver,
        steps=steps,
        rtol=rtol,
        atol=atol,
        trace="exact" if exact else "hutchinson",
        adjoint=adjoint,
        context_shape=context_shape,
    )
    chain = Chain(event_shape, [*first, layer, *([Flatten] if image else [])])
    return Flow(chain, StandardNormal(chain.latent_shape))
