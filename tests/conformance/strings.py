"""Entries of the conformance table: sequences of symbols, their network, and the model of strings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, build

from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import CausalTransformer, Conditioner
from diffeo.transforms import DequantizeBins, SymbolAutoregressive, Transform

causal = partial(CausalTransformer, width=4, blocks=1, heads=2)

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "symbols": lambda: SymbolAutoregressive((3,), 4, causal),
    "symbols/context": lambda: SymbolAutoregressive((3,), 2, causal, context_shape=CONTEXT),
    "symbols/end": lambda: SymbolAutoregressive((4,), 3, causal, end=0),
    "symbols/1d": lambda: SymbolAutoregressive((1,), 300, causal, end=299),
    "dequantize/bins": lambda: DequantizeBins((3,), 5),
}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {
    "causal_transformer": lambda: causal((4, 3), (4, 2)),
    "causal_transformer/context": lambda: causal(
        (3, 2), (3, 5), {"a": (2,), "b": (1, 2)}, dropout=0.2, zero_init=False
    ),
}
# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {
    # The first one is compiled in the fast tests, the others in the slow ones.
    "passflow/affine": build("passflow", (4,), levels=5, layer="affine", run=2),
    "passflow/3": build("passflow", (3,), levels=4, alphabet="abc"),
    "passflow/context": build("passflow", (2,), CONTEXT, levels=3),
    "passflow/mixture": build(
        "passflow",
        (2,),
        CONTEXT,
        levels=3,
        layer="mixture",
        couplings=1,
        dequantization="variational",
    ),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
