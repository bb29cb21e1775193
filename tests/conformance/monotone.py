"""Entries of the conformance table: monotone families other than splines, and what is built on them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.conformance.shared import CONTEXT, SMALL, build, mlp

from diffeo.distributions import Distribution
from diffeo.families import (
    Affine,
    Bernstein,
    Composition,
    Family,
    GaussianMixtureCDF,
    Inverted,
    LeakySoftplus,
    LogisticMixtureCDF,
    LogisticToNormal,
    SinhArcsinh,
    SumOfSquares,
    activations,
)
from diffeo.flow import Flow
from diffeo.nets import MADE, Conditioner
from diffeo.transforms import (
    Alternating,
    Autoregressive,
    Coupling,
    Elementwise,
    MarginalGaussianization,
    Transform,
)

made = partial(MADE, hidden=(8,))

# One of each, small: in tests/families they are in every kind of transform, conditional or not.
MONOTONE: dict[str, Callable[[], Family]] = {
    "logistic_mixture": lambda: LogisticMixtureCDF(3),
    "logistic_mixture/affine": lambda: Composition(
        [LogisticMixtureCDF(2), Affine("clamp", bound=1.0)]
    ),
    "gaussian_mixture_cdf": lambda: GaussianMixtureCDF(3),
    "sum_of_squares": lambda: SumOfSquares(2, 3),
    "bernstein": lambda: Bernstein(6),
    "activations": lambda: activations(1),
}

TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "coupling/logistic_mixture": lambda: Coupling(
        (3,), MONOTONE["logistic_mixture/affine"](), mlp, Alternating, context_shape=CONTEXT
    ),
    "autoregressive/bernstein": lambda: Autoregressive((3,), Bernstein(4), made),
    "autoregressive/sum_of_squares": lambda: Autoregressive(
        (2,), SumOfSquares(2, 2), made, context_shape=CONTEXT
    ),
    "marginal_gaussianization": lambda: MarginalGaussianization((3,), 3),
    "marginal_gaussianization/context": lambda: MarginalGaussianization(
        (2,), 2, "gaussian", mlp, context_shape=CONTEXT
    ),
    "elementwise/activations": lambda: Elementwise(
        (2,), activations(1), mlp, context_shape=CONTEXT
    ),
    "elementwise/bernstein-image": lambda: Elementwise(SMALL, Bernstein(3)),
}
FAMILIES: dict[str, Callable[[], Family]] = {
    **MONOTONE,
    "sum_of_squares/line": lambda: SumOfSquares(3, 0),
    "bernstein/line": lambda: Bernstein(1, bound=2.0),
    "logistic_to_normal": LogisticToNormal,
    "sinh_arcsinh": SinhArcsinh,
    "leaky_softplus": LeakySoftplus,
    "inverted/composition": lambda: Inverted(Composition([Affine(), SinhArcsinh(0.5)])),
}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {}
ZOO: dict[str, Callable[[], Flow]] = {  # the name before the slash is the model's
    "gaussianization/2": build("gaussianization", (2,)),
    "gaussianization/context": build("gaussianization", (1,), CONTEXT, kernel="gaussian"),
    "sos/2": build("sos", (2,)),
    "sos/context": build("sos", (1,), CONTEXT),
    "bernstein/2": build("bernstein", (2,), CONTEXT),
}
FLOWS: dict[str, Callable[[], Flow]] = {}
