"""Entries of the conformance table: Glow and its networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, SMALL, build

from diffeo.distributions import Distribution
from diffeo.families import Additive, Affine, Family
from diffeo.flow import Flow
from diffeo.nets import Conditioner, GlowConv, PerChannel, ZeroConv
from diffeo.nets.pyramid import Entry, PerPixel
from diffeo.transforms import (
    ActNorm,
    Chain,
    Coupling,
    Elementwise,
    Flatten,
    Inverse,
    LabelPrior,
    Squeeze,
    Transform,
    split_whitened,
)

TWO_LEVELS = (3, 4, 8)
glow_conv = partial(GlowConv, width=5)

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "coupling/glow": lambda: Coupling(SMALL, Affine("sigmoid"), glow_conv),
    "coupling/glow-one-channel": lambda: Coupling((1, 2, 3), Affine("sigmoid"), glow_conv),
    "coupling/glow-additive": lambda: Coupling(SMALL, Additive(), glow_conv, context_shape=(2,)),
    "inverse/glow": lambda: Inverse(Coupling(SMALL, Affine("sigmoid"), glow_conv)),
    "label_prior": lambda: LabelPrior(SMALL, (3,)),
    "elementwise/per-channel": lambda: Elementwise(
        SMALL, Affine("clamp"), PerChannel, context_shape=(2,)
    ),
    "split_whitened/glow": lambda: split_whitened(
        (4, 2, 4),
        lambda s: Chain(s, [Squeeze, ActNorm, partial(Coupling, net=glow_conv), Flatten]),
        ZeroConv,
        context_shape=(2,),
    ),
}

FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}

CONDITIONERS: dict[str, Callable[[], Conditioner]] = {
    "glow_conv": lambda: glow_conv((3, 2, 4), (3, 2, 4, 2)),
    "glow_conv/wide-input": lambda: glow_conv((6, 3, 2), (2, 3, 2, 2), CONTEXT),
    "glow_conv/image-context": lambda: glow_conv((1, 2, 4), (2, 2, 4), (2, 2, 4)),
    "glow_conv/nothing-to-see": lambda: glow_conv((0, 2, 3), (1, 2, 3, 2), {"a": (2,)}),
    "zero_conv": lambda: ZeroConv((3, 2, 4), (3, 2, 4, 2)),
    "zero_conv/context": lambda: ZeroConv((5, 2, 4), (1, 2, 4, 2), CONTEXT),
    "per_pixel": lambda: PerPixel((0,), (3, 2, 4, 2), (5, 2, 4)),
    "entry/glow_conv": lambda: Entry(
        glow_conv((1, 2, 4), (2, 2, 4), (2, 2, 4)), "a", {"a": (2, 2, 4)}
    ),
    "per_channel": lambda: PerChannel((0,), (3, 2, 4, 2), CONTEXT),
}

# Width 4 and depth 1, the tiny size; the first is the one whose graphs are made in the fast tests.
ZOO: dict[str, Callable[[], Flow]] = {
    "glow/2": build("glow", (2,)),
    "glow/1": build("glow", (1,), levels=5),
    "glow/context": build("glow", (3,), CONTEXT, coupling="additive", mixing="direct"),
    "glow/image": build("glow", TWO_LEVELS),
    "glow/image-class": build("glow", SMALL, (3,), mixing="householder"),
    "glow/image-additive": build(
        "glow", (1, 4, 4), CONTEXT, coupling="additive", mixing="periodic", condition="all"
    ),
    "glow/image-classifier": build(
        "glow", (1, 4, 4), (3,), classifier=0.01, mixing="shuffle", split="learned"
    ),
    # Two levels, all of which see a picture as large as the event, or smaller and of another shape.
    "glow/picture": build("glow", TWO_LEVELS, (1, 4, 8), condition="all", levels=5),
    "glow/small-picture": build("glow", (1, 4, 4), (3, 2, 3), condition="all", levels=None),
    "glow/image-real": build("glow", SMALL, levels=None, mixing="reverse"),
}

FLOWS: dict[str, Callable[[], Flow]] = {}
