"""NICE: additive couplings, odd-even partition, one diagonal scaling, logistic prior.

Dinh, Krueger, Bengio. NICE: Non-linear Independent Components Estimation. 2014, arXiv:1410.8516.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from ..distributions import Logistic, StandardNormal
from ..families import Additive, Scaling
from ..flow import Flow
from ..nets import MLP
from ..parts import Shape
from ..transforms import Chain, Coupling, Elementwise, Halves, Permutation
from .base import Card, model
from .preprocessing import Dequantization, Levels, preprocessing

CARD = Card(
    name="nice",
    title="NICE: Non-linear Independent Components Estimation",
    authors="Laurent Dinh, David Krueger, Yoshua Bengio",
    year=2014,
    arxiv="1410.8516",
    domain="image",
    likelihood="bound",
    event_shape=(1, 8, 8),
    description="Additive couplings, volume preserving up to one diagonal scaling; pictures as vectors, or any vector.",
    notes="paper: the MNIST settings of the released configuration, 4 couplings of 5 hidden layers of 1000.",
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden": (16,)},
    "small": {"hidden": (128, 128, 128)},
    "paper": {"hidden": (1000,) * 5, "irange": 0.01, "zero_init": False},
}


@model(CARD, SIZES)
def nice(
    event_shape: Shape,
    context_shape: Any,
    *,
    couplings: int = 4,
    hidden: tuple[int, ...] = (128, 128, 128),
    prior: Literal["logistic", "normal"] = "logistic",
    activation: str = "relu",
    dropout: float = 0.0,
    zero_init: bool = True,
    irange: float | None = None,
    levels: Levels = "auto",
    alpha: float | None = None,
    standardize: bool | None = None,
    dequantization: Dequantization = "uniform",
) -> Flow:
    """h = exp(s) * (additive couplings of x); log p(x) = sum_d log p_H(h_d) + s_d.

    Images are dequantized to [0, 1] and flattened. couplings: the paper has 4. prior: of the latent. levels: of integer
    data (auto: 256 for images, None for vectors). alpha: a logit after dequantization (none in the paper).
    standardize: by default for real-valued data only. dequantization: see realnvp.
    """
    net = partial(
        MLP,
        hidden=tuple(hidden),
        activation=activation,
        dropout=dropout,
        zero_init=zero_init,
        irange=irange,
    )
    first = preprocessing(
        event_shape,
        levels,
        alpha=alpha,
        standardize=standardize,
        flatten=True,
        dequantization=dequantization,
        context_shape=context_shape,
    )
    layers = [
        partial(
            Coupling,
            family=Additive(),
            net=net,
            partition=partial(Halves, flip=i % 2 == 0),
            context_shape=context_shape,
        )
        for i in range(couplings)
    ]
    # The odd-even partition: halves of the sorted entries.
    odd_even = partial(Permutation, order="odd_first")
    chain = Chain(event_shape, [*first, odd_even, *layers, partial(Elementwise, family=Scaling())])
    base = Logistic if prior == "logistic" else StandardNormal
    return Flow(chain, base(chain.latent_shape))
