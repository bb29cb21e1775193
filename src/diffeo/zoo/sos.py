"""Sum-of-squares polynomial flow: autoregressive integrals of sums of squared polynomials.

Jaini, Selby, Yu. Sum-of-squares polynomial flow. 2019, arXiv:1905.02325.
"""

from __future__ import annotations

from typing import Any

from ..families import SumOfSquares
from ..flow import Flow
from ..parts import Shape
from .base import Card, model
from .preprocessing import Levels
from .stacks import autoregressive_stack

CARD = Card(
    name="sos",
    title="Sum-of-Squares Polynomial Flow",
    authors="Priyank Jaini, Kira A. Selby, Yaoliang Yu",
    year=2019,
    arxiv="1905.02325",
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="Autoregressive, every entry by an increasing polynomial, the integral of a sum of squares",
    notes="paper: 8 layers of 5 polynomials of degree 4, so of maps of degree 9; this configuration is unverified. Not "
    "published: a slope of at least 1e-3, and tangents beyond the bound in place of the polynomial.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 1, "polynomials": 2, "degree": 2, "hidden": (8,)},
    "small": {},
    "paper": {"layers": 8, "polynomials": 5, "degree": 4, "hidden": (200, 200)},
}


@model(CARD, SIZES)
def sos(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 4,
    polynomials: int = 3,
    degree: int = 3,
    bound: float = 5.0,
    minimum_slope: float = 1e-3,
    hidden: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """z_i = c + int_0^(x_i) (e + sum_k p_k(u)^2) du, the coefficients of c and p_k by a MADE of x_<i.

    layers: autoregressive transforms, the order reversed between them. polynomials, degree, bound, minimum_slope: of
    the family. hidden, activation: of the networks. levels, alpha, standardize: as for realnvp.
    """
    return autoregressive_stack(
        event_shape,
        context_shape,
        lambda: SumOfSquares(polynomials, degree, bound=bound, minimum_slope=minimum_slope),
        layers=layers,
        hidden=hidden,
        activation=activation,
        levels=levels,
        alpha=alpha,
        standardize=standardize,
    )
