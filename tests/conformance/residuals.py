"""Entries of the conformance table: Lipschitz networks, residual transforms, and the models of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, build

from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import Conditioner, LipschitzConvNet, LipschitzDenseNet, LipschitzMLP
from diffeo.transforms import Exact, PowerSeries, Residual, Roulette, Transform

mlp = partial(LipschitzMLP, hidden=(4,))
dense = partial(LipschitzDenseNet, growth=4, depth=2)

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "residual": lambda: Residual((3,), mlp, estimator=Exact(), context_shape=CONTEXT),
    "residual/learned-norm": lambda: Residual(
        (2,), partial(mlp, norm="learned"), estimator=Exact(), method="anderson"
    ),
    "residual/series": lambda: Residual((3,), mlp, estimator=PowerSeries(3, probes=2)),
    "residual/roulette": lambda: Residual(
        (2,), dense, estimator=Roulette(eval_terms=2), context_shape=CONTEXT
    ),
}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {
    "lipschitz_mlp": lambda: LipschitzMLP((3,), (3,), CONTEXT, hidden=(4,)),
    "lipschitz_mlp/learned": lambda: LipschitzMLP((3,), (3,), hidden=(4,), norm="learned"),
    "lipschitz_conv": lambda: LipschitzConvNet((2, 2, 3), (2, 2, 3), CONTEXT, width=3),
    "lipschitz_dense": lambda: LipschitzDenseNet((3,), (3,), {"a": (1,), "b": (2,)}, growth=4),
    "lipschitz_dense/image": lambda: LipschitzDenseNet((1, 2, 3), (1, 2, 3), depth=2, growth=4),
}
# The name before the slash is the model's.
ZOO: dict[str, Callable[[], Flow]] = {
    "iresnet/2": build("iresnet", (2,)),
    "iresnet/image-exact": build("iresnet", (1, 2, 4), blocks=(1,), estimator="exact"),
    "residual_flow/2-exact": build("residual_flow", (2,), CONTEXT, depth=1, estimator="exact"),
    "residual_flow/image": build(
        "residual_flow", (1, 2, 4), CONTEXT, blocks=(1,), end_blocks=0, eval_terms=2
    ),
    "idensenet/2-exact": build("idensenet", (2,), depth=1, estimator="exact"),
    "idensenet/image": build("idensenet", (1, 2, 4), blocks=(1,), end_blocks=0, eval_terms=2),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
