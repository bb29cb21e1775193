"""Bernstein-polynomial flow: autoregressive Bernstein polynomials with increasing coefficients.

Ramasinghe, Fernando, Khan, Barnes. Robust normalizing flows using Bernstein-type polynomials. 2021, arXiv:2102.03509;
for conditional densities of one entry, Sick, Hothorn, Duerr. Deep transformation models. 2020, arXiv:2004.00464.
"""

from __future__ import annotations

from typing import Any

from ..families import Bernstein
from ..flow import Flow
from ..parts import Shape
from .base import Card, model
from .preprocessing import Levels
from .stacks import autoregressive_stack

CARD = Card(
    name="bernstein",
    title="Robust normalizing flows using Bernstein-type polynomials",
    authors="Sameera Ramasinghe, Kasun Fernando, Salman Khan, Nick Barnes",
    year=2021,
    arxiv="2102.03509",
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="Autoregressive, every entry by a Bernstein polynomial with increasing coefficients",
    notes="paper: one layer of degree 100 and three hidden layers; this configuration is unverified. Not published: "
    "the line in place of an interval, by tangents beyond the bound.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 1, "degree": 4, "hidden": (8,)},
    "small": {},
    "paper": {"layers": 1, "degree": 100, "hidden": (128, 128, 128)},
}


@model(CARD, SIZES)
def bernstein(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 5,
    degree: int = 40,
    bound: float = 3.0,
    minimum_slope: float = 1e-3,
    hidden: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """z_i = sum_k a_k(x_<i) C(n, k) t_i^k (1 - t_i)^(n - k), t_i in [0, 1] over [-bound, bound], a_k increasing.

    layers: autoregressive transforms, the order reversed between them. degree: n. bound, minimum_slope: of the family.
    hidden, activation: of the networks. levels, alpha, standardize: as for realnvp.
    """
    return autoregressive_stack(
        event_shape,
        context_shape,
        lambda: Bernstein(degree, bound=bound, minimum_slope=minimum_slope),
        layers=layers,
        hidden=hidden,
        activation=activation,
        levels=levels,
        alpha=alpha,
        standardize=standardize,
    )
