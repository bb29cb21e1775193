"""Neural spline flows: rational-quadratic splines in couplings or autoregressive transforms, LU-linear layers between.

Durkan, Bekasov, Murray, Papamakarios. Neural spline flows. 2019, arXiv:1906.04032.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ..distributions import StandardNormal
from ..families import RationalQuadraticSpline
from ..flow import Flow
from ..nets import MLP, Constant, NetFactory, ResidualMADE, ResidualMLP
from ..parts import Shape
from ..transforms import Autoregressive, Chain, Coupling, Halves, LULinear, Permutation, Transform
from .base import Card, model
from .preprocessing import Levels, preprocessing

CARD = Card(
    name="nsf_coupling",
    title="Neural Spline Flows",
    authors="Conor Durkan, Artur Bekasov, Iain Murray, George Papamakarios",
    year=2019,
    arxiv="1906.04032",
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="RQ-NSF (C): couplings by monotone rational-quadratic splines, LU-linear layers between them",
    notes="paper: POWER's settings (10 layers, 2 residual blocks of 256, 8 bins), from memory. Not published: the "
    "last layer of a network starts at zero, in place of dividing raw widths and heights by the root of its width; "
    "images are flattened, not in the paper's Glow-like form.",
)
AUTOREGRESSIVE = Card(
    name="nsf_autoregressive",
    title=CARD.title,
    authors=CARD.authors,
    year=2019,
    arxiv=CARD.arxiv,
    domain="vector",
    likelihood="exact",
    event_shape=(2,),
    description="RQ-NSF (AR): autoregressive rational-quadratic splines by residual MADEs, LU-linear layers between",
    notes=CARD.notes,
)
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 1, "width": 8, "blocks": 1, "bins": 2},
    "small": {"layers": 5, "width": 64},
    "paper": {},
}
Mixing = Literal["lu", "permutation", "none"]
Layers = list[Callable[[Shape], Transform]]


def _mixing(kind: Mixing) -> Layers:
    made: dict[str, Layers] = {
        "lu": [Permutation, LULinear],
        "permutation": [Permutation],
        "none": [],
    }
    return made[kind]


def _assemble(
    event_shape: Shape,
    layer: Callable[[int], Layers],
    layers: int,
    mixing: Mixing,
    levels: Levels,
    alpha: float | None,
    standardize: bool | None,
) -> Flow:
    parts = preprocessing(event_shape, levels, alpha=alpha, standardize=standardize, flatten=True)
    for i in range(layers):
        parts += [*_mixing(mixing), *layer(i)]
    chain = Chain(event_shape, [*parts, *_mixing(mixing)])
    return Flow(chain, StandardNormal(chain.latent_shape))


@model(CARD, SIZES)
def nsf_coupling(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 10,
    width: int = 256,
    blocks: int = 2,
    hidden: tuple[int, ...] | None = None,
    bins: int = 8,
    bound: float = 3.0,
    unconditional: bool = True,
    mixing: Mixing = "lu",
    activation: str = "relu",
    dropout: float = 0.0,
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """z_c = spline(x_c; net(x_v)), z_v = spline(x_v; p), over alternating halves; before each, z = L U P x + b.

    layers: couplings. width, blocks: of the residual networks; hidden: widths of a plain MLP in their place. bins,
    bound: of the splines, which are the identity outside [-bound, bound]. unconditional: whether the visible half has
    learned splines, too. mixing: `lu` (a fixed random permutation and an LU-linear layer), `permutation` or `none`,
    before each coupling and at the end. levels, alpha, standardize: as for realnvp. Images are flattened.
    """
    net: NetFactory = (
        partial(ResidualMLP, width=width, blocks=blocks, activation=activation, dropout=dropout)
        if hidden is None
        else partial(MLP, hidden=tuple(hidden), activation=activation, dropout=dropout)
    )

    def coupling(shape: Shape, flip: bool, net: NetFactory, context_shape: Any) -> Coupling:
        partition = partial(Halves, flip=flip)
        family = RationalQuadraticSpline(bins, bound)
        return Coupling(shape, family, net, partition, context_shape=context_shape)

    def layer(i: int) -> Layers:
        flip = i % 2 == 1
        made: Layers = [partial(coupling, flip=flip, net=net, context_shape=context_shape)]
        if unconditional:
            made.append(partial(coupling, flip=not flip, net=Constant, context_shape=None))
        return made

    return _assemble(event_shape, layer, layers, mixing, levels, alpha, standardize)


@model(AUTOREGRESSIVE, SIZES)
def nsf_autoregressive(
    event_shape: Shape,
    context_shape: Any,
    *,
    layers: int = 10,
    width: int = 256,
    blocks: int = 2,
    bins: int = 8,
    bound: float = 3.0,
    mixing: Mixing = "lu",
    activation: str = "relu",
    dropout: float = 0.0,
    levels: Levels = "auto",
    alpha: float | None = 0.05,
    standardize: bool | None = None,
) -> Flow:
    """z_i = spline(x_i; net(x_<i)) with a residual MADE; before each, z = L U P x + b. Sampling entry by entry.

    layers: autoregressive transforms. width, blocks: of the networks. bins, bound, mixing, levels, alpha, standardize:
    as for nsf_coupling.
    """
    net = partial(ResidualMADE, width=width, blocks=blocks, activation=activation, dropout=dropout)

    def layer(i: int) -> Layers:
        def make(shape: Shape) -> Autoregressive:
            family = RationalQuadraticSpline(bins, bound)
            return Autoregressive(shape, family, net, context_shape=context_shape)

        return [make]

    return _assemble(event_shape, layer, layers, mixing, levels, alpha, standardize)
