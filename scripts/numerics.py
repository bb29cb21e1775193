"""Measure the rounding errors of every registered transform, family and zoo model into results/numerics.json.

    python scripts/numerics.py

It walks the table of the conformance tests (tests/conformance/table.py), with parameters far from initialization and
inputs that reach every branch, drawn by the oracle (`diffeo.testing`). The truth is float64: the autograd Jacobian's
log|det| of the same, rounded, numbers. Then every family at sharp
parameters and far out, in both precisions. A few minutes on one thread.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the table is a test's

from stored import provenance, write  # noqa: E402
from tests.conformance.table import FAMILIES, TRANSFORMS, ZOO  # noqa: E402

import diffeo  # noqa: E402
from diffeo.families import Family  # noqa: E402
from diffeo.nets import Conditioner  # noqa: E402
from diffeo.properties import REAL  # noqa: E402
from diffeo.testing.bijection import EPS  # noqa: E402
from diffeo.testing.case import Case, call_inverse, cast, condition, gap, jacobian  # noqa: E402
from diffeo.testing.execution import AUTOCAST_BUDGET, FLOAT32_BUDGET  # noqa: E402
from diffeo.testing.randomize import draw_event, randomize  # noqa: E402
from diffeo.testing.transforms import transform_case  # noqa: E402

SEEDS = (0, 1, 2)
ROWS = 32


def family_case(family: Family, seed: int) -> Case:
    """Every scalar is one example with its own parameters N(0, 1), as in `diffeo.testing.check_family`."""
    module = randomize(copy.deepcopy(family).double().eval(), seed)
    g = torch.Generator().manual_seed(seed)
    params = torch.randn((ROWS, family.num_params), generator=g, dtype=torch.float64)
    x = draw_event(family.properties.domain, (), ROWS, seed)
    y = draw_event(family.properties.codomain, (), ROWS, seed + 2).double()
    return Case(type(family).__name__, module, (x.double(), params), (y, params))


def cases(build: Callable[[], Any]) -> Iterator[Case]:
    for seed in SEEDS:
        torch.manual_seed(seed)
        part = build()
        if isinstance(part, diffeo.Flow):
            # Integers have no Jacobian: the numbers are those of the float flow under the dequantizer.
            part = part.continuous.transform
        yield (
            family_case(part, seed) if isinstance(part, Family) else transform_case(part, seed=seed)
        )


def measure(case: Case) -> dict[str, float | None]:
    """Errors of one case; round trips relative to the largest magnitude (at least 1), ladj in nats."""
    wide = float(condition(case.jacobian).max())
    truth = torch.linalg.slogdet(case.jacobian)[1]
    found: dict[str, float | None] = {
        "condition": wide,
        "largest_ladj": float(truth.abs().max()),
        "round_trip_float64": round_trip(case.module, case.args, case.inverse_args),
        "ladj_float64": nats(case.forward[1], truth),
    }
    relative = float(((case.forward[1] - truth).abs() / truth.abs().clamp(min=1)).max().detach())
    found["share_float64"] = relative / (1e-8 + min(100 * EPS * wide, 1e-4))

    single, args = case.copy().float(), cast(case.args, torch.float32)
    exact, exact_args = copy.deepcopy(single).double(), cast(args, torch.float64)
    expected = case.apply(exact, exact_args)
    truth = torch.linalg.slogdet(jacobian(lambda *a: case.apply(exact, a)[0], exact_args))[1]
    out = case.apply(single, args)
    found["round_trip_float32"] = round_trip(single, args, cast(case.inverse_args, torch.float32))
    found["ladj_float32"] = nats(out[1], truth)
    budget = FLOAT32_BUDGET * min(max(wide**0.5, 1.0), 100.0)
    found["share_float32"] = gap(out, expected) / budget

    found["ladj_bfloat16"] = found["share_bfloat16"] = None
    if any(isinstance(m, nn.Linear | Conditioner) for m in single.modules()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = case.apply(single, args)
        found["ladj_bfloat16"] = nats(out[1], truth)
        size = case.args[0][0].numel()
        shares = [
            (a.double() - b).abs().max() / (1 + b.abs().max() + (size if b.ndim == 1 else 0))
            for a, b in zip(out, expected, strict=True)
        ]
        found["share_bfloat16"] = float(torch.stack(shares).max().detach()) / AUTOCAST_BUDGET
    return found


def round_trip(module: nn.Module, args: Any, inverse_args: Any) -> float:
    """The larger of inverse(forward(x)) - x and forward(inverse(z)) - z."""
    z = module(*args)[0]
    back = call_inverse(module, (z, *args[1:]))[0]
    x = call_inverse(module, inverse_args)[0]
    again = module(x, *inverse_args[1:])[0]
    return max(gap(back, args[0]), gap(again, inverse_args[0]))


def nats(ladj: Tensor, truth: Tensor) -> float:
    return float((ladj.double() - truth).abs().max().detach())


def worst(rows: list[dict[str, float | None]]) -> dict[str, float | None]:
    keys = rows[0]
    return {k: max((r[k] for r in rows if r[k] is not None), default=None) for k in keys}  # type: ignore[type-var]


SCALES = (1.0, 5.0, 20.0)
POINTS = 2000
FAR = (1e4, -1e4)


def sharp(build: Callable[[], Any], scale: float, dtype: torch.dtype) -> dict[str, float]:
    """What becomes of points inside a family's domain, and of +-1e4, at parameters N(0, scale^2).

    roundings: the error of the round trip in units of what one rounding of x and one of y make of it, eps (max(1, |x|)
    + max(1, |y|) / slope).
    """
    family = build().to(dtype).eval()
    domain = family.properties.domain
    g = torch.Generator().manual_seed(0)
    params = (torch.randn((POINTS, family.num_params), generator=g) * scale).to(dtype)
    x = draw_event(domain, (), POINTS, 0).to(dtype).requires_grad_()
    params.requires_grad_()
    y, ladj = family(x, params)
    values = [y, ladj, *torch.autograd.grad(y.sum() + ladj.sum(), (x, params))]
    out = {"not_finite": sum(int((~v.isfinite()).sum()) for v in values), "failed": 0}

    def back(x: Tensor, y: Tensor, params: Tensor) -> Tensor:
        try:
            found: Tensor = family.inverse(y, params)[0]
        except diffeo.errors.ConvergenceError:
            found = torch.full_like(x, torch.nan)
        out["failed"] += int((~found.isfinite()).sum())
        error = (found - x).abs()
        if domain is not None and domain.periodic:
            error = torch.minimum(error, (domain.high - domain.low - error).abs())
        return (error / x.abs().clamp(min=1)).nan_to_num()

    with torch.no_grad():
        error = back(x, y, params)
        eps = torch.finfo(dtype).eps
        unit = eps * (1 + y.abs().clamp(min=1) * (-ladj).exp() / x.abs().clamp(min=1))
        out |= {"round_trip": float(error.max()), "roundings": float((error / unit).max())}
        if domain == REAL:
            far = torch.tensor(FAR, dtype=dtype)
            out["far"] = float(back(far, family(far, params[:2])[0], params[:2]).max())
    return out


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    tables: list[tuple[str, dict[str, Callable[[], Any]]]] = [
        ("transforms", TRANSFORMS),
        ("families", FAMILIES),
        ("zoo", ZOO),
    ]
    for part, table in tables:
        for name, build in table.items():
            found = [case for case in cases(build) if not case.stochastic]
            if not found or found[0].inverse_args is None:
                continue  # a dequantizer: no Jacobian, and integers come back exactly, which the tests check
            rows.append({"part": part, "name": name, **worst([measure(c) for c in found])})
    hard = [
        {"name": name, "scale": scale, "dtype": str(dtype).removeprefix("torch."), **found}
        for name, build in FAMILIES.items()
        if build().num_params and build().properties.inverse != "none"
        for dtype in (torch.float32, torch.float64)
        for scale in SCALES
        for found in [sharp(build, scale, dtype)]
    ]
    document = provenance("python scripts/numerics.py") | {
        "seeds": list(SEEDS),
        "budgets": {"float32": FLOAT32_BUDGET, "bfloat16": AUTOCAST_BUDGET},
        "rows": rows,
        "points": POINTS,
        "sharp": hard,
    }
    write("numerics", document)


if __name__ == "__main__":
    main()
