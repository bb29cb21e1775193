"""Flow++'s coupling layers, and the variational dequantization that they make, for any model of integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from ..errors import ConfigError
from ..families import Affine, Composition, Family, LogisticMixtureCDF
from ..nets import MLP, Conditioner, GatedAttentionNet, NetFactory
from ..parts import Shape, as_shape
from ..transforms import (
    Alternating,
    Chain,
    Checkerboard,
    Coupling,
    Halves,
    Partition,
    VariationalDequantize,
)

CouplingKind = Literal["mixture", "affine"]


def coupling_family(coupling: CouplingKind, components: int) -> Family:
    """y = exp(s) logit F(x) + t, F a mixture of logistics; or y = exp(s) x + t; |s| < 1."""
    if coupling not in ("mixture", "affine"):
        raise ConfigError(f"coupling must be mixture or affine, got {coupling!r}")
    affine = Affine("clamp", bound=1.0)
    return affine if coupling == "affine" else Composition([LogisticMixtureCDF(components), affine])


def spatial(event_shape: Shape) -> Callable[..., Partition]:
    """Even against odd columns, as in Flow++'s code, at half the work of a masked checkerboard; that for odd widths."""
    return partial(Alternating, axis=2) if event_shape[2] % 2 == 0 else Checkerboard


def variational_dequantize(
    event_shape: Sequence[int],
    levels: int,
    *,
    context_shape: Any = None,
    coupling: CouplingKind = "affine",
    components: int = 8,
    couplings: int = 4,
    width: int = 16,
    blocks: int = 1,
    feature_blocks: int = 2,
    heads: int = 0,
    dropout: float = 0.0,
) -> VariationalDequantize:
    """VariationalDequantize with `couplings` couplings of the noise over columns or a checkerboard, given features.

    Images [C, H, W]: gated networks of `width` and `blocks`; the features are at most 32 maps, of a network of
    `feature_blocks` without attention. All else: MLPs, 4 `width` wide.
    """
    shape = as_shape(event_shape)
    net: NetFactory
    features: Conditioner
    kind: Callable[..., Partition]
    if len(shape) == 3:
        net = partial(GatedAttentionNet, width=width, blocks=blocks, heads=heads, dropout=dropout)
        kind = spatial(shape)
        maps = min(width, 32)
        features = GatedAttentionNet(
            shape,
            (maps, *shape[1:]),
            context_shape,
            width=maps,
            blocks=feature_blocks,
            heads=0,
            dropout=dropout,
            zero_init=False,
        )
    else:
        net = partial(MLP, hidden=(4 * width,) * blocks, dropout=dropout)
        kind = Halves
        hidden = (4 * width,) * feature_blocks
        features = MLP(shape, (2 * width,), context_shape, hidden=hidden, zero_init=False)
    if couplings < 1:
        raise ConfigError(f"variational dequantization needs couplings >= 1, got {couplings}")
    chain = Chain(
        shape,
        [
            partial(
                Coupling,
                family=coupling_family(coupling, components),
                net=net,
                partition=partial(kind, flip=i % 2 == 1),
                context_shape=features.out_shape,
            )
            for i in range(couplings)
        ],
    )
    return VariationalDequantize(
        shape, levels, transform=chain, features=features, context_shape=context_shape
    )
