"""Entries of the conformance table: Flow++, its network, and variational dequantization."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.conformance.shared import IMAGE, SMALL, build, mlp

from diffeo.distributions import Distribution
from diffeo.families import (
    Family,
    Inverted,
    Logit,
    Rescale,
)
from diffeo.families import LogisticToNormal as ToNormal
from diffeo.flow import Flow
from diffeo.nets import Conditioner, GatedAttentionNet
from diffeo.transforms import (
    ActNorm,
    Alternating,
    Chain,
    Coupling,
    Elementwise,
    Transform,
    VariationalDequantize,
)
from diffeo.zoo.dequantization import coupling_family, variational_dequantize

net = partial(GatedAttentionNet, width=4, blocks=1, heads=2)
dequantize = partial(variational_dequantize, couplings=2, width=4, feature_blocks=1)
columns = partial(Alternating, axis=2)


def _noise(shape: Any, context: Any) -> Chain:
    return Chain(shape, [ActNorm, partial(Coupling, net=mlp, context_shape=context)])


TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "coupling/columns": lambda: Coupling((1, 2, 4), net=net, partition=partial(columns, flip=True)),
    "coupling/columns-odd": lambda: Coupling(
        (2, 3, 5), net=mlp, partition=partial(columns, flip=True)
    ),
    "coupling/columns-mixture": lambda: Coupling(
        SMALL, coupling_family("mixture", 3), net, columns, context_shape=(2, 2, 4)
    ),
    "dequantize/variational": lambda: dequantize((1, 2, 3), 5),
    "dequantize/variational-context": lambda: dequantize((1, 2, 4), 5, context_shape=(2,)),
    "dequantize/variational-attention": lambda: dequantize(
        (1, 2, 4), 256, coupling="mixture", heads=2
    ),
    "dequantize/variational-vector": lambda: dequantize(
        (3,), 1000, context_shape={"a": (1,), "b": (2,)}
    ),
    "dequantize/variational-no-context": lambda: VariationalDequantize(
        (3,), 4, transform=_noise((3,), None)
    ),
    "dequantize/variational-no-features": lambda: VariationalDequantize(
        (3,), 4, transform=_noise((3,), (2,)), context_shape=(2,)
    ),
    "dequantize/variational-uniform": lambda: VariationalDequantize(
        (3,), 4, transform=Elementwise((3,), Inverted(ToNormal()))
    ),
    "dequantize/variational-chain": lambda: Chain(
        (4,),
        [
            partial(dequantize, levels=17),
            partial(Elementwise, family=Rescale((0, 17))),
            partial(Elementwise, family=Logit()),
            partial(Coupling, net=mlp),
        ],
    ),
}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {
    "gated": lambda: net((3, 2, 4), (3, 2, 4, 2)),
    "gated/context": lambda: net((3, 2, 4), (2, 2, 4, 2), (2,), dropout=0.2),
    "gated/image-context": lambda: net((1, 2, 4), (2, 2, 4), (3, 2, 4)),
    "gated/larger-context": lambda: net((1, 2, 2), (2, 2, 2, 3), (3, 2, 4)),
    "gated/nothing-to-see": lambda: net((0, 2, 3), (1, 2, 3, 2), {"a": (2,)}),
    "gated/convolutions": lambda: net((3, 2, 4), (2, 2, 4), heads=0, zero_init=False),
    "gated/no-blocks": lambda: net((3, 2, 4), (2, 2, 4), blocks=0),
}

# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {
    # The first one is compiled in the fast tests, the others in the slow ones.
    "flowpp/3-context": build("flowpp", (3,), (2,), coupling="affine"),
    "flowpp/2": build("flowpp", (2,)),
    # Without the logit, as far latents of mixtures reach where it is flat in float64.
    "flowpp/image": build(
        "flowpp", (1, 2, 4), alpha=None, couplings=(1, 1, 1), dequantizer_couplings=1
    ),
}
FLOWS: dict[str, Callable[[], Flow]] = {
    "by_hand/variational-integers-2": lambda: Flow(
        Chain(
            (2,),
            [
                partial(dequantize, levels=3),
                partial(Elementwise, family=Rescale((0, 3))),
                partial(Elementwise, family=Logit(0.0)),
                partial(Coupling, net=mlp),
            ],
        )
    ),
}
# Checked by the slow tests only, in tests/transforms/test_dequantization.py.
SLOW_FLOWS: dict[str, Callable[[], Flow]] = {
    "flowpp/image-two": build("flowpp", IMAGE, alpha=None),
    "flowpp/image-affine": build(
        "flowpp", SMALL, coupling="affine", dequantization="uniform", couplings=(1, 1, 1)
    ),
    "flowpp/image-context": build("flowpp", (1, 2, 4), (2,), attention_positions=2, alpha=None),
    "flowpp/image-real": build("flowpp", (1, 2, 4), levels=None, couplings=(1, 1, 1)),
    "flowpp/integers": build("flowpp", (3,), levels=300),
    "realnvp/variational": build("realnvp", (1, 4, 4), (2,), dequantization="variational"),
}
