"""The oracle over everything registered."""

from __future__ import annotations

import pytest
import torch
from tests.conformance.table import (
    CONDITIONERS,
    DISTRIBUTIONS,
    FAMILIES,
    FLOWS,
    TRANSFORMS,
    ZOO,
    by_hand,
)
from torch import nn

from diffeo import zoo
from diffeo.distributions import Distribution
from diffeo.families import Family
from diffeo.nets import Conditioner
from diffeo.parts import registered
from diffeo.testing import (
    check_conditioner,
    check_distribution,
    check_family,
    check_flow,
    check_transform,
)
from diffeo.transforms import Partition, Transform

# Whole image models take tens of seconds to compile even with aot_eager; one of each kind is compiled in `make test`.
COMPILED_SLOWLY = {
    "realnvp/image",
    "realnvp/image-learned",
    "realnvp/image-real",
    "revnet/image-context",
}
COMPILED_SLOWLY_LAYERS = {
    "split_whitened/fixed",
    "split_whitened/learned",
    "split_whitened/conditional-context",
}
# What one promise cannot hold for, and why.
SKIP = {
    "coupling/plain-net": ("config_round_trip",),  # torch.nn modules are not registered, and say so
}
INDUCTOR_FAST = ("nice/2",)
INDUCTOR_SLOW = [name for name in FLOWS if name not in INDUCTOR_FAST]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform(name: str) -> None:
    backend = "none" if name in COMPILED_SLOWLY_LAYERS else "aot_eager"
    check_transform(TRANSFORMS[name](), skip=SKIP.get(name, ()), backend=backend)


@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str) -> None:
    check_family(FAMILIES[name]())


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distribution(name: str) -> None:
    check_distribution(DISTRIBUTIONS[name]())


@pytest.mark.parametrize("name", CONDITIONERS)
def test_conditioner(name: str) -> None:
    check_conditioner(CONDITIONERS[name]())


@pytest.mark.parametrize("name", FLOWS)
def test_flow(name: str) -> None:
    backend = "none" if name in COMPILED_SLOWLY else "aot_eager"
    check_flow(FLOWS[name](), backend=backend)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(COMPILED_SLOWLY))
def test_flow_compiles(name: str) -> None:
    check_flow(FLOWS[name](), checks=["compile"])


@pytest.mark.parametrize("name", INDUCTOR_FAST)
def test_flow_compiles_with_inductor(name: str) -> None:
    check_flow(FLOWS[name](), checks=["compile"], backend="inductor")


@pytest.mark.slow
@pytest.mark.parametrize("name", INDUCTOR_SLOW)
def test_flow_compiles_with_inductor_slow(name: str) -> None:
    check_flow(FLOWS[name](), checks=["compile"], backend="inductor")


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_compiles_with_inductor_slow(name: str) -> None:
    check_transform(TRANSFORMS[name](), checks=["compile"], backend="inductor")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_with_other_seeds(name: str, seed: int) -> None:
    skip = SKIP.get(name, ())
    check_transform(TRANSFORMS[name](), seed=seed, skip=skip, backend="none")


def test_flow_of_parts() -> None:
    report = check_flow(by_hand())
    assert {"jacobian", "context_used", "integrates_to_one", "samples_follow"} <= set(report.passed)


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
