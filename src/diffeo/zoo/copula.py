"""Copula-based flows: affine autoregressive layers on a base whose tails are those of the data.

Laszkiewicz, Lederer, Fischer. Copula-Based Normalizing Flows. 2021, arXiv:2107.07352; the same, Marginal Tail-Adaptive
Normalizing Flows. 2022, arXiv:2206.10311 (base `adaptive`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from ..distributions import (
    Copula,
    Distribution,
    Laplace,
    Product,
    StandardNormal,
    StudentT,
    light_first,
    tail_adaptive,
)
from ..errors import ConfigError
from ..families import Affine
from ..flow import Flow
from ..nets import ResidualMADE
from ..parts import Shape
from ..transforms import Autoregressive, Chain, Permutation
from .base import Card, model
from .preprocessing import preprocessing

Base = Literal["normal", "heavier", "student", "learned", "copula", "adaptive"]

CARD = Card(
    name="copula",
    title="Copula-Based Normalizing Flows",
    authors="Mike Laszkiewicz, Johannes Lederer, Asja Fischer",
    year=2021,
    arxiv="2107.07352",
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="Affine autoregressive layers, which keep the type of the tails, on a base that has the right ones.",
    notes="paper: 3 layers of a reversal and a masked network of 2 residual blocks of width 4, data as they are. Its "
    "bases are normal, heavier, student with df 5 (correct family) and student with df 2 (exact marginals).",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "width": 8, "blocks": 1},
    "small": {},
    "paper": {"layers": 3, "width": 4, "blocks": 2, "standardize": False},
}


@model(CARD, SIZES)
def copula(
    event_shape: Shape,
    context_shape: Any,
    *,
    base: Base = "learned",
    df: float | Sequence[float] = 5.0,
    layers: int = 3,
    width: int = 32,
    blocks: int = 2,
    activation: str = "relu",
    standardize: bool = True,
) -> Flow:
    """log p(x) = sum_j log f_j(z_j) [+ log c(F(z))] + log |det dz/dx|, z an affine autoregressive map of x.

    base: `normal`; `heavier`, Laplace(0, 4) and then t(5) of scale 2; `student`, t(df); `learned`, t with df, location
    and scale learned; `copula`, a Gaussian copula over those; `adaptive`, Gaussian where df is infinite and t(df)
    elsewhere, learned, light entries first and mixed only among themselves. df: one number, or one per entry;
    `diffeo.distributions.tail_indices` estimates it from data.
    layers: pairs of a reversal and an autoregressive map with bounded scale. width, blocks: of its network.
    Raises ConfigError for another base, or a df that does not fit.
    """
    entries = math.prod(event_shape)
    given = [float(v) for v in df] if isinstance(df, Sequence) else [float(df)] * entries
    if len(given) != entries or not all(v > 0 for v in given):
        raise ConfigError(f"df must be one positive number or {entries}, one per entry, got {df!r}")
    if base != "adaptive" and not all(map(math.isfinite, given)):
        raise ConfigError(f"an infinite df, a light tail, is for the base adaptive, got {df!r}")
    first = preprocessing(event_shape, None, standardize=standardize, flatten=True)
    reverse: Any = partial(Permutation, order="reverse")
    if base == "adaptive":
        order = light_first(given)
        given = [given[i] for i in order]
        light = sum(map(math.isinf, given))
        first.append(partial(Permutation, order=order))
        blocks_reversed = [*range(light - 1, -1, -1), *range(entries - 1, light - 1, -1)]
        reverse = partial(Permutation, order=blocks_reversed)
    net = partial(ResidualMADE, width=width, blocks=blocks, activation=activation)
    layer = partial(Autoregressive, family=Affine(), net=net, context_shape=context_shape)
    chain = Chain(event_shape, [*first, *[reverse, layer] * layers])
    return Flow(chain, _base(base, given))


def _base(base: Base, df: list[float]) -> Distribution:
    d, floor = len(df), min(0.5, min(df) / 2)
    if base == "normal":
        return StandardNormal((d,))
    if base == "heavier":
        first = Laplace((1,), 0.0, 4.0, learned=False)
        rest = [StudentT((d - 1,), 5.0, 0.0, 2.0, learned=False)] if d > 1 else []
        return Product([first, *rest])
    if base == "adaptive":
        return tail_adaptive(df)
    student = StudentT((d,), df, learned=base != "student", floor=floor)
    return Copula(student) if base == "copula" else student
