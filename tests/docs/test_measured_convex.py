"""The measurement of convex potential flows: its closed forms are right, and its tables render."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from tests.docs.test_measured import loaded


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded("scripts", "convex")


def test_the_least_cost_is_that_of_the_optimal_map(script: ModuleType) -> None:
    mean, root = script.gaussian(4, 0)
    eps = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = mean + eps @ root
    assert float((x - eps).square().sum(1).mean()) == pytest.approx(
        script.bures(mean, root), rel=0.02
    )


def test_kept_bytes_count_each_storage_once(script: ModuleType) -> None:
    a = torch.ones(10, dtype=torch.float64, requires_grad=True)
    assert script.saved_bytes(lambda: a * a) == 80


ROWS = [
    {"section": "gaussians", "model": "cpflow", "size": 2, "seed": s, "kl": 0.01 + s / 100, "cost": 2.0, "best": 1.9,
     "excess": 0.05, "distance": 0.001}
    for s in range(2)
] + [
    {"section": "densities", "data": "moons", "seed": 0, "kl": 0.02, "kl_estimate": 0.03, "round_trip_float32": 1e-5,
     "round_trip_float64": 1e-14, "condition": 123.0, "seconds": 60.0},
    {"section": "digits", "bits": 2.0, "bits_error": 0.01, "kind": "bound", "note": "10 draws", "parameters": 1234,
     "estimate": 2.01, "estimate_error": 0.01,
     "seconds": 840.0, "curve": [(0, 150.0), (100, 99.5)], "round_trip_float64": 1e-11},
    {"section": "uci", "set": "boston", "split": 0, "test": -1.0, "test_error": 0.1, "mixture": -0.9,
     "mixture_error": 0.1},
    {"section": "estimators", "size": 6, "krylov": 2, "log_det": 4.0, "gauss": 0.5, "gauss_error": 0.02, "radau": -1.0,
     "radau_error": 0.02, "radau_deviation": 3.0, "gradient_bias": 0.3, "gradient_error": 0.04,
     "gradient_deviation": 1.8, "saved_exact": 2**20, "saved": 2**19},
]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ("gaussians", "| 2 | `cpflow` | 2 | 0.0150 ± 0.0050 | 2.000 | 1.900 | 5.0% | 0.0010 ± 0.0000 |"),
        ("densities", "| moons | 1 | 0.0200 | 0.0300 | 1.0e-05 | 1.0e-14 | 123 | 1.0 |"),
        ("digits", "After 14 minutes: 2.000 ± 0.010 bits/dim"),
        ("uci", "| boston | 1 | -1.00 ± 0.10 | -0.90 ± 0.10 | -3.00 ± 0.50 |"),
        ("estimators", "| 6 | 2 | 4.00 | 0.5000 ± 0.0200 | -1.0000 ± 0.0200 | 3.00 | 30.0% | 4.0% | 180.0% | 1.00 MB"),
    ],
)  # fmt: skip
def test_tables_render(part: str, shown: str) -> None:
    page = loaded("docs", "measured_convex")
    others = {"summary": {"boston": {"gaussian": {"mean": -3.0, "error": 0.5}}}}
    assert shown in page.convex({"rows": ROWS}, others, part)
    assert "not measured" in page.convex(None, None, part)
