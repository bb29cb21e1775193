"""check_family: the derivative of a scalar map, in both directions, and that it is monotone."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..families import Family
from .behaviour import BEHAVIOUR_CHECKS
from .bijection import BIJECTION_CHECKS
from .case import Args, Case, Outputs, expect, gap
from .execution import COPY_CHECKS, RUN_CHECKS
from .randomize import draw_event, randomize
from .report import Check, Failure, Report, Skip, run
from .transforms import ITERATIVE


def check_family(
    family: Family,
    x: Tensor | None = None,
    *,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    backend: str = "aot_eager",
    seed: int = 0,
    scale: float = 1.0,
    batch: int = 32,
) -> Report:
    """Test a family: every scalar is one example, with parameters of its own, N(0, scale^2).

    x: [batch] points inside the domain, drawn if not given. Checks and errors as in `check_transform`.

    >>> from diffeo.families import Additive
    >>> check_family(Additive(), checks=["jacobian", "monotone"]).passed
    ('jacobian', 'monotone')
    """
    module = randomize(copy.deepcopy(family).double().eval(), seed, scale)
    assert isinstance(module, Family)
    promised = module.properties
    given = draw_event(promised.domain, (), batch, seed) if x is None else x.detach()
    n = len(given)
    g = torch.Generator().manual_seed(seed)
    params = torch.randn((n, family.num_params), generator=g, dtype=torch.float64) * scale
    y = None
    if promised.inverse != "none":
        y = draw_event(promised.codomain, (), n, seed + 2).double()
    case = Case(
        name=type(family).__name__,
        module=module,
        args=(given.double(), params),
        inverse_args=None if y is None else (y, params),
        backend=backend,
        seed=seed,
        inexact=ITERATIVE if "iterative" in (promised.forward, promised.inverse) else 0.0,
    )
    return run(repr(family), [(FAMILY_CHECKS, case)], checks, skip)


def check_monotone(case: Case) -> float | None:
    """y strictly increases (or decreases) along x at every set of parameters, with one sign everywhere."""
    n = 65
    module = case.module
    assert isinstance(module, Family)
    x = draw_event(module.properties.domain, (n,), 4, case.seed + 5).double().sort(-1).values
    params = case.args[1][:4, None].expand(-1, n, -1)
    y = module(x, params)[0]
    steps = y.diff(dim=-1)
    codomain = module.properties.codomain
    if codomain is not None and codomain.periodic:
        # On a circle one step may pass the point where the numbers start again; less than one turn in all.
        turn = codomain.high - codomain.low
        steps = steps % turn
        if not bool((steps.sum(-1) < turn).all()):
            raise Failure("y turns more than once, or backwards, along x")
    if not bool((steps > 0).all()) and not bool((steps < 0).all()):
        raise Failure(f"y does not move one way along x: steps from {steps.min()} to {steps.max()}")
    return None


def check_params_used(case: Case) -> float | None:
    """Every parameter has an effect on value or log-derivative at some point."""
    x, params = case.args
    if not params.shape[1]:
        raise Skip("no parameters")
    params = params.clone().requires_grad_()
    total = torch.stack([o.sum() for o in case.apply(case.module, (x, params))]).sum()
    (grad,) = torch.autograd.grad(total, params)
    unused = [i for i in range(params.shape[1]) if not bool((grad[:, i] != 0).any())]
    if unused:
        raise Failure(f"parameters {unused} have no effect")
    return None


def check_broadcast(case: Case) -> float:
    """[batch, *event] with params [*event, P], as Elementwise calls it, gives the same numbers, both directions."""
    family = case.module
    assert isinstance(family, Family)
    worst = 0.0
    directions: list[tuple[Any, Args | None]] = [
        (family, case.args),
        (family.inverse, case.inverse_args),
    ]
    for f, args in directions:
        if args is None:
            continue
        x, params = args
        one: Outputs = f(x, params)
        two: Outputs = f(x.expand(3, -1), params)
        worst = max(worst, gap(two, tuple(o.expand(3, -1) for o in one)))
        if any(o.dtype != x.dtype for o in two):
            raise Failure("the dtype changes")
    return expect(worst, 1e-12, "broadcast parameters")


def check_extremes(case: Case) -> float | None:
    """No NaN, in values or gradients, far outside: at +-1e4, at the edges of the domain and beyond them."""
    family: nn.Module = case.module
    assert isinstance(family, Family)
    domain = family.properties.domain
    points = [-1e4, -50.0, 50.0, 1e4]
    if domain is not None:
        points += [p + s for p in (domain.low, domain.high) if math.isfinite(p) for s in (-1, 0, 1)]
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    params = case.args[1][:1].expand(len(points), -1)
    y, ladj = family(x, params)
    finite = torch.where(ladj.isfinite(), ladj, torch.zeros_like(ladj))
    grad = torch.zeros_like(x)
    if (y.sum() + finite.sum()).requires_grad:
        (grad,) = torch.autograd.grad(y.sum() + finite.sum(), x)
    for what, value in (("y", y), ("ladj", ladj), ("the gradient", grad)):
        if bool(value.isnan().any()):
            raise Failure(f"{what} is NaN at {x[value.isnan()][0].item():g}")
    return None


_ELSEWHERE = {"initialization", "context_used"}
FAMILY_CHECKS: dict[str, Check] = {
    **BIJECTION_CHECKS,
    "monotone": check_monotone,
    "params_used": check_params_used,
    "broadcast": check_broadcast,
    "extremes": check_extremes,
    **{k: v for k, v in BEHAVIOUR_CHECKS.items() if k not in _ELSEWHERE},
    **COPY_CHECKS,
    **RUN_CHECKS,
}
