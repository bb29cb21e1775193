"""A model of any table: its columns as real numbers, then a neural spline flow.

Durkan, Bekasov, Murray, Papamakarios. Neural Spline Flows. 2019, arXiv:1906.04032. Levels are dequantized as in
Hoogeboom, Nielsen, Jaini, Forré, Welling. Argmax Flows and Multinomial Diffusion. 2021, arXiv:2102.05379, with binary
factors and thresholds by frequency.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ..columns import Schema, continuous
from ..columns import schema as as_schema
from ..distributions import StandardNormal
from ..errors import ShapeError
from ..families import RationalQuadraticSpline
from ..flow import Flow
from ..nets import ResidualMADE, ResidualMLP, TableFeatures
from ..parts import Shape
from ..transforms import (
    ActNorm,
    Autoregressive,
    Chain,
    Coupling,
    Halves,
    LULinear,
    Permutation,
    Transform,
    TypedColumns,
)
from .base import Card, model

Layer = Literal["coupling", "autoregressive"]

CARD = Card(
    name="tabular",
    title="Neural Spline Flows",
    authors="Conor Durkan, Artur Bekasov, Iain Murray, George Papamakarios",
    year=2019,
    arxiv="1906.04032",
    domain="vector",
    likelihood="exact",
    event_shape=(3,),
    description="Tables of mixed columns: each dequantized or mapped by its kind, then RQ-spline couplings",
    notes="Exact for real columns without missing cells, else a bound; the card says it for columns that are all "
    "continuous. Not published in this form: dequantization as in arXiv:2102.05379 with binary factors, thresholds by "
    "frequency; ActNorm before each layer. paper: the layers of RQ-NSF (C) for POWER.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 1, "width": 8, "blocks": 1, "bins": 2},
    "small": {"layers": 5, "width": 96},
    "paper": {},
}


@model(CARD, SIZES)
def tabular(
    event_shape: Shape,
    context_shape: Any,
    *,
    schema: Any = None,
    layer: Layer = "coupling",
    layers: int = 10,
    width: int = 256,
    blocks: int = 2,
    bins: int = 8,
    bound: float = 4.0,
    activation: str = "relu",
    dropout: float = 0.0,
) -> Flow:
    """z = layers of ActNorm, permutation, LU and spline, after TypedColumns; the given columns are the context.

    schema: a `diffeo.columns.Schema`, or what its `plain` gives; without it every entry is a continuous column. layer:
    `coupling`, or `autoregressive`, slower to sample. layers; width and blocks of the residual networks, activation,
    dropout; bins and bound of the splines. event_shape is that of the schema, and so is context_shape, which may be
    left out; without given columns any context is taken as it is.
    """
    known: Schema = continuous(*event_shape) if schema is None else as_schema(schema)
    if known.event_shape != event_shape:
        raise ShapeError(
            f"tabular: the schema has {known.event_shape[0]} entries ({', '.join(known.entries)}), the event shape is "
            f"{event_shape}"
        )
    features = TableFeatures(known) if known.given else None
    if features is not None and context_shape not in (None, known.context_shape):
        raise ShapeError(
            f"tabular: the given columns have {known.context_shape}, the context shape is {context_shape}"
        )
    seen = context_shape if features is None else features.out_shape
    settings: dict[str, Any] = {
        "width": width,
        "blocks": blocks,
        "activation": activation,
        "dropout": dropout,
    }

    def spline(shape: Shape, i: int) -> Transform:
        family = RationalQuadraticSpline(bins, bound)
        if layer == "autoregressive":
            net: Any = partial(ResidualMADE, **settings)
            return Autoregressive(shape, family, net, context_shape=seen)
        net = partial(ResidualMLP, **settings)
        return Coupling(shape, family, net, partial(Halves, flip=i % 2 == 1), context_shape=seen)

    first = TypedColumns(known)
    parts: list[Transform | Callable[[Shape], Transform]] = [first]
    for i in range(layers):
        parts += [ActNorm, Permutation, LULinear, partial(spline, i=i)]
    chain = Chain(event_shape, [*parts, ActNorm, Permutation, LULinear])
    base = StandardNormal(chain.latent_shape)
    if features is None:
        return Flow(chain, base)
    return Flow(chain, base, embedding=features, context_shape=known.context_shape)
