"""Every family of the table in couplings, autoregressive and elementwise transforms, with and without a context."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conformance.table import FAMILIES

from diffeo.families import Family
from diffeo.nets import MADE, MLP
from diffeo.testing import check_transform
from diffeo.transforms import Autoregressive, Coupling, Elementwise, Transform

CONTEXT = (2,)
mlp = partial(MLP, hidden=(6,), activation="tanh")
made = partial(MADE, hidden=(6,), activation="tanh")


def _elementwise(family: Family, context: Any) -> Transform:
    return Elementwise((2,), family, mlp if context else None, context_shape=context)


KINDS: dict[str, Callable[[Family, Any], Transform]] = {
    "coupling": lambda family, context: Coupling((2,), family, mlp, context_shape=context),
    "autoregressive": lambda family, context: Autoregressive((2,), family, made, context_shape=context),
    "elementwise": _elementwise,
}  # fmt: skip
MATHS = ("jacobian", "round_trip", "float32")
REST = ("inverse_jacobian", "inverse_ladj", "ladj_shape_dtype", "gradcheck", "double_backward", "batch_independence",
        "batch_of_one", "purity", "declared_properties", "deepcopy", "config_round_trip")  # fmt: skip


def _fits(family: Family) -> bool:
    promised = family.properties
    return family.num_params > 0 and promised.domain == promised.codomain


FITTING = [name for name, make in FAMILIES.items() if _fits(make())]


def _check(name: str, kind: str, context: Any, checks: Any, seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    layer = KINDS[kind](FAMILIES[name](), context)
    check_transform(layer, checks=checks, seed=seed, scale=scale, batch=6, backend="none")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FITTING)
def test_family_in_transform(name: str, kind: str) -> None:
    _check(name, kind, CONTEXT, (*MATHS, "context_used"), seed=FITTING.index(name), scale=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FITTING)
def test_family_in_transform_slow(name: str, kind: str) -> None:
    """Parameters of any seed and of several sizes, with and without a context."""

    @settings(
        max_examples=5,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 2.0]), st.sampled_from([None, CONTEXT]))  # fmt: skip
    def hold(seed: int, scale: float, context: Any) -> None:
        _check(name, kind, context, (*MATHS, *REST), seed, scale)

    hold()


def test_most_families_fit() -> None:
    assert len(FITTING) >= 6
