"""PassFlow: short strings as integers, dequantized; affine couplings as published, and an exact model in their place.

Pagnotta, Hitaj, De Gaspari, Mancini. PassFlow: guessing passwords with generative flows. 2022, arXiv:2105.06165. The
exact model: Nielsen, Winther. Closing the dequantization gap: PixelCNN as a single-layer flow. 2020, arXiv:2002.02547.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from ..data.strings import check_alphabet
from ..distributions import StandardNormal
from ..errors import ConfigError, ShapeError
from ..families import Affine, LogisticToNormal, Logit
from ..flow import Flow
from ..nets import CausalTransformer, ResidualMLP
from ..parts import Shape
from ..transforms import (
    ActNorm,
    Chain,
    Coupling,
    DequantizeBins,
    Elementwise,
    Mask,
    SymbolAutoregressive,
)
from .base import Card, model
from .dequantization import coupling_family, variational_dequantize
from .preprocessing import Dequantization, Parts, preprocessing

CARD = Card(
    name="passflow",
    title="PassFlow: Guessing Passwords with Generative Flows",
    authors="Giulio Pagnotta, Dorjan Hitaj, Fabio De Gaspari, Luigi V. Mancini",
    year=2022,
    arxiv="2105.06165",
    domain="text",
    likelihood="exact",
    event_shape=(8,),
    description="Short strings, for likelihood and password strength: a categorical autoregressive flow, exact; or "
    "affine couplings over dequantized characters, as published",
    notes="tiny and small: layer=categorical (arXiv:2002.02547), which is exact. paper: layer=affine, 18 couplings, "
    "residual networks of 2 blocks of 256, as read in the released code; its likelihood is a bound. Not published: "
    "uniform dequantization noise, without which densities at lattice points are no probabilities; s = c tanh(raw) has "
    "no shift.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"width": 8, "blocks": 1, "heads": 2, "couplings": 2, "components": 2},
    "small": {},
    "paper": {"layer": "affine", "width": 256, "blocks": 2, "couplings": 18, "dropout": 0.0},
}
Layer = Literal["categorical", "mixture", "affine"]


@model(CARD, SIZES)
def passflow(
    event_shape: Shape,
    context_shape: Any,
    *,
    layer: Layer = "categorical",
    width: int = 96,
    blocks: int = 3,
    heads: int = 4,
    dropout: float = 0.1,
    couplings: int = 8,
    run: int = 1,
    components: int = 8,
    dequantization: Dequantization = "uniform",
    levels: int = 27,
    alphabet: str | None = None,
    alpha: float = 0.05,
) -> Flow:
    """Codes [length] of strings, 0 the end and 1, 2, ... the characters; P(string) is that of its code, ended by zeros.

    layer `categorical`: z_i = F(x_i | c_<i), F linear in every bin, by a causal transformer of `width`, `blocks` and
    `heads`: exact, one layer. `affine`: z_c = exp(s) x_c + t, s and t of x_v, as published, and `mixture`: Flow++'s
    z_c = exp(s) logit F(x_c) + t with mixtures of `components` logistics, each after ActNorm: `couplings` of the
    dequantized codes after a logit with alpha, with residual networks of `width` and `blocks`; likelihoods are bounds.
    run: of characters that a coupling sees, and then changes (char-run). dropout: in all networks. dequantization:
    `uniform` or `variational`, for the bounds. levels: number of characters plus 1. alphabet: the characters, kept with
    the model.

    Raises ShapeError for events that are no vectors, ConfigError for an alphabet that does not fit the levels.
    """
    if len(event_shape) != 1:
        raise ShapeError(f"passflow takes the codes of strings, (length,), got {event_shape}")
    if alphabet is not None:
        check_alphabet(alphabet)
        if len(alphabet) + 1 != levels:
            raise ConfigError(
                f"an alphabet of {len(alphabet)} characters has {len(alphabet) + 1} levels, got levels = {levels}"
            )
    if layer == "categorical":
        if dequantization != "uniform":
            raise ConfigError(
                "layer=categorical is exact, so variational dequantization has nothing to gain: give layer=mixture or "
                "affine, or leave dequantization out"
            )
        net = partial(CausalTransformer, width=width, blocks=blocks, heads=heads, dropout=dropout)
        parts: Parts = [
            partial(DequantizeBins, levels=levels),
            partial(
                SymbolAutoregressive, levels=levels, net=net, end=0, context_shape=context_shape
            ),
            partial(Elementwise, family=Logit(0.0)),
            partial(Elementwise, family=LogisticToNormal()),
        ]
    else:
        if layer not in ("affine", "mixture"):
            raise ConfigError(f"layer must be categorical, mixture or affine, got {layer!r}")
        if run < 1 or couplings < 0:
            raise ConfigError(
                f"run must be 1 or more and couplings 0 or more, got {run} and {couplings}"
            )
        noise: Any = dequantization
        if dequantization == "variational":
            noise = partial(
                variational_dequantize, coupling="mixture", width=32, context_shape=context_shape
            )
        parts = preprocessing(event_shape, levels, alpha=alpha, dequantization=noise)
        residual = partial(ResidualMLP, width=width, blocks=blocks, dropout=dropout)
        for i in range(couplings):
            seen = [(at // run + i) % 2 == 0 for at in range(event_shape[0])]
            family = Affine("tanh") if layer == "affine" else coupling_family(layer, components)
            if layer == "mixture":
                parts.append(ActNorm)
            parts.append(
                partial(
                    Coupling,
                    family=family,
                    net=residual,
                    partition=partial(Mask, mask=seen),
                    context_shape=context_shape,
                )
            )
    chain = Chain(event_shape, parts)
    return Flow(chain, StandardNormal(chain.latent_shape))
