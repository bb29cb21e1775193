"""The oracle over everything registered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.conformance.table import (
    CONDITIONERS,
    DISTRIBUTIONS,
    EVENTS,
    FAMILIES,
    FLOWS,
    TRANSFORMS,
    ZOO,
    by_hand,
)
from tests.conftest import untraced
from torch import nn

from diffeo import zoo
from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.flow import Flow
from diffeo.nets import Conditioner
from diffeo.parts import registered
from diffeo.testing import (
    check_conditioner,
    check_distribution,
    check_family,
    check_flow,
    check_transform,
    randomize,
)
from diffeo.testing.statistics import chi_square_p_value
from diffeo.transforms import Partition, Transform

# Steps whose number depends on values: there is no graph of them, and no vmap.
ADAPTIVE = ("compile", "vmap", "export")
# What one promise cannot hold for, and why.
SKIP = {
    "continuous/adaptive": ADAPTIVE,
    "coupling/plain-net": ("config_round_trip",),  # torch.nn modules are not registered, and say so
}
# A search whose length depends on values breaks the graph; mapped or exported, it has a fixed number of steps.
SKIP |= {name: ("compile",) for name in (*TRANSFORMS, *FLOWS) if name.startswith("imp")}
# Size of the random parameters, where 1 gives maps that are singular in float64: Glow has exp(3 l) inside a sigmoid.
SCALE = {"glow": 0.5}
# What makes a graph of the code takes most of the time: in the fast tests the first entry of each name has it, and of
# compilation the tracing alone; every entry goes through the backends in the slow ones.
GRAPHS = ("compile", "export")
TRACED = "eager"
# Variants whose parts have entries of their own: in the slow tests.
LONG = ("realnvp/image-learned", "impflow/image", "maf/mixture")
INDUCTOR_FAST = ("nice/2",)
INDUCTOR_SLOW = [name for name in FLOWS if name not in INDUCTOR_FAST]


def _event(name: str) -> Any:
    return EVENTS[name]() if name in EVENTS else None


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _check(check: Any, table: dict, name: str, **options: Any) -> None:
    """Every check for the first entry of a name; for the others no graphs are made, and no lines counted."""
    stem = name.split("/")[0]
    skip = SKIP.get(name, ())
    if name != next(n for n in table if n.split("/")[0] == stem):
        check, skip = untraced(check), (*skip, *GRAPHS)
    more = (_event(name),) if name in EVENTS else ()
    check(table[name](), *more, skip=skip, backend=TRACED, **options)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(name: str) -> None:
    _check(check_transform, TRANSFORMS, name)


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str) -> None:
    _check(check_family, FAMILIES, name)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name: str) -> None:
    _check(check_distribution, DISTRIBUTIONS, name)


@pytest.mark.parametrize("name", CONDITIONERS)
def test_conditioner(name: str) -> None:
    _check(check_conditioner, CONDITIONERS, name)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in FLOWS]
)
def test_flow(name: str) -> None:
    _check(check_flow, FLOWS, name, scale=SCALE.get(name.split("/")[0], 1.0))


@pytest.mark.parametrize("name", INDUCTOR_FAST)
def test_flow_compiles_with_inductor(name: str) -> None:
    check_flow(FLOWS[name](), checks=["compile"], backend="inductor")


ALL = {
    "transform": (TRANSFORMS, check_transform),
    "family": (FAMILIES, check_family),
    "distribution": (DISTRIBUTIONS, check_distribution),
    "conditioner": (CONDITIONERS, check_conditioner),
    "flow": (FLOWS, check_flow),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (table, _) in ALL.items() for name in table]
)
def test_graphs_slow(kind: str, name: str) -> None:
    table, check = ALL[kind]
    more = (_event(name),) if name in EVENTS else ()
    check(table[name](), *more, checks=GRAPHS, skip=SKIP.get(name, ()))


@pytest.mark.slow
@pytest.mark.parametrize("name", INDUCTOR_SLOW)
def test_flow_compiles_with_inductor_slow(name: str) -> None:
    skip = SKIP.get(name, ())
    check_flow(FLOWS[name](), _event(name), checks=["compile"], skip=skip, backend="inductor")


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_compiles_with_inductor_slow(name: str) -> None:
    skip = SKIP.get(name, ())
    check_transform(
        TRANSFORMS[name](), _event(name), checks=["compile"], skip=skip, backend="inductor"
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_with_other_seeds(name: str, seed: int) -> None:
    skip = SKIP.get(name, ())
    check_transform(TRANSFORMS[name](), _event(name), seed=seed, skip=skip, backend="none")


def test_flow_of_parts() -> None:
    report = check_flow(by_hand())
    assert {"jacobian", "context_used", "integrates_to_one", "samples_follow"} <= set(report.passed)


def _sum_of_probabilities(flow: Flow) -> float:
    """Sum over all pairs of integers of E_u p(x + u), by the midpoint rule in u."""
    flow = randomize(flow.double().eval(), 0, 0.5)
    domain = flow.properties.domain
    values = torch.arange(int(domain.low), int(domain.high) + 1)
    x = torch.cartesian_prod(values, values)
    axis = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    u = torch.cartesian_prod(axis, axis)
    pairs = x[:, None].expand(-1, len(u), -1).reshape(-1, 2)
    noise = u[None].expand(len(x), -1, -1).reshape(-1, 2)
    layers = len(flow.transform)
    log_p = flow.log_prob(pairs, noise=(noise, *[None] * (layers - 1)))
    return float(log_p.exp().sum().detach()) / len(u)


def test_probabilities_of_integers_sum_to_one() -> None:
    assert abs(_sum_of_probabilities(FLOWS["by_hand/integers-2"]()) - 1) < 2e-3


def test_probabilities_of_integers_stay_below_one() -> None:
    """With alpha > 0 some of the density lies beyond the data's range; what is left is a bound."""
    total = _sum_of_probabilities(zoo.build("realnvp", (2,), size="tiny", levels=4))
    assert 0.5 < total < 1


def test_p_values() -> None:
    stats = pytest.importorskip("scipy.stats")
    for chi2, freedom in ((3.0, 2), (50.0, 30), (400.0, 300)):
        assert chi_square_p_value(chi2, freedom) == pytest.approx(stats.chi2.sf(chi2, freedom))


def _classes(things: list[nn.Module]) -> set[type]:
    return {type(m) for thing in things for m in thing.modules()}


@pytest.mark.parametrize(
    ("base", "table"),
    [
        (Transform, TRANSFORMS),
        (Partition, TRANSFORMS),
        (Family, FAMILIES),
        (Distribution, DISTRIBUTIONS),
        (Conditioner, CONDITIONERS),
    ],
)
def test_every_registered_class_is_in_the_table(base: type, table: dict) -> None:
    ours = {c for c in registered(base) if c.__module__.startswith("diffeo.")}
    missing = {c.__name__ for c in ours - _classes([make() for make in table.values()])}
    assert not missing, f"add to tests/conformance/table.py: {', '.join(sorted(missing))}"


def test_every_model_is_in_the_table() -> None:
    assert {name.split("/")[0] for name in ZOO} == set(zoo.names())
