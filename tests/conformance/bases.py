"""Entries of the conformance table: bases, embeddings and context."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from tests.conformance.shared import build, mlp

from diffeo import zoo
from diffeo.distributions import (
    Copula,
    DiagonalNormal,
    Distribution,
    GaussianMixture,
    GeneralizedNormal,
    Laplace,
    Product,
    StudentT,
)
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import MLP, Conditioner, DeepSet, ImageEmbedding, Join, Scaled, SeriesEmbedding
from diffeo.transforms import Coupling, Transform

CONTEXT = {"net": mlp, "context_shape": (2,)}
# The grid of the integral ends at 200 deviations: a smaller df leaves more than its tolerance outside.
HEAVY = {"df": 3.0, "floor": 1.8}

deep_set = partial(DeepSet, width=8, hidden=(8,), head=(8,))
series = partial(SeriesEmbedding, width=4, layers=2, head=(8,))

TRANSFORMS: dict[str, Callable[[], Transform]] = {}
FAMILIES: dict[str, Callable[[], Family]] = {}
DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {
    "diagonal_normal/context": lambda: DiagonalNormal((2,), [1.0, 0.0], **CONTEXT),
    "gaussian_mixture/context": lambda: GaussianMixture((2,), 2, **CONTEXT),
    "laplace/1": lambda: Laplace((1,), 1.0, 2.0),
    "laplace/2-context": lambda: Laplace((2,), **CONTEXT),
    "student_t/1": lambda: StudentT((1,), **HEAVY),
    "student_t/2": lambda: StudentT((2,), [2.5, 4.0], 1.0, [0.5, 2.0], floor=1.8),
    "student_t/2-context": lambda: StudentT((2,), **HEAVY, **CONTEXT),
    "student_t/fixed": lambda: StudentT((1,), 2.0, learned=False),
    "generalized_normal/1": lambda: GeneralizedNormal((1,), 1.5),
    "generalized_normal/2": lambda: GeneralizedNormal((2,), [1.0, 8.0], scale=2.0),
    "product/2": lambda: Product([Laplace((1,), 0.0, 4.0), StudentT((1,), **HEAVY)]),
    "copula/2": lambda: Copula(DiagonalNormal((2,))),
    "copula/1": lambda: Copula(Laplace((1,))),
    "copula/product-context": lambda: Copula(
        Product([DiagonalNormal((1,), **CONTEXT), Laplace((1,))]), **CONTEXT
    ),
    "copula/3-student_t": lambda: Copula(StudentT((3,), **HEAVY)),
}
CONDITIONERS: dict[str, Callable[[], Conditioner]] = {
    "deep_set": lambda: deep_set((0,), (3,), (4, 2)),
    "deep_set/mask": lambda: deep_set((2,), (3, 2), {"values": (4, 2), "mask": (4,)}),
    "series": lambda: series((0,), (3,), (6, 2)),
    "series/mask": lambda: series((0,), (3,), {"values": (6, 2), "mask": (6,)}, activation="tanh"),
    "image": lambda: ImageEmbedding((0,), (3,), (2, 5, 6), width=8, layers=2, head=(8,)),
    "scaled": lambda: Scaled((3,), MLP((0,), (4,), (6,), hidden=(8,), zero_init=False)),
    "scaled/set": lambda: Scaled((4, 2), deep_set((0,), (3,), (4, 2))),
    "join": lambda: Join(
        {
            "label": MLP((0,), (2,), (3,), hidden=(), zero_init=False),
            "set": deep_set((0,), (3,), {"values": (4, 2), "mask": (4,)}),
        }
    ),
}
ZOO: dict[str, Callable[[], Flow]] = {
    "copula/1": build("copula", (1,), base="copula"),
    "copula/2": build("copula", (2,), base="student", df=4.0),
    "copula/heavier": build("copula", (2,), base="heavier", standardize=False),
    "copula/adaptive": build(
        "copula", (4,), CONTEXT["context_shape"], base="adaptive", df=[2.0, math.inf, 3.0, math.inf]
    ),
    "copula/image": build("copula", (1, 2, 2), base="copula"),
}  # the name before the slash is the model's
FLOWS: dict[str, Callable[[], Flow]] = {
    "by_hand/tails": lambda: Flow(Coupling((2,), net=mlp), Copula(Laplace((2,)))),
    "by_hand/embedded_set": lambda: zoo.build(
        "realnvp",
        (2,),
        {"values": (3, 2), "mask": (3,)},
        "tiny",
        embedding=partial(deep_set, out_shape=(4,)),
    ),
    "by_hand/context_in_the_base": lambda: Flow(
        Coupling((1,), net=mlp), GaussianMixture((1,), 2, **CONTEXT)
    ),
}
