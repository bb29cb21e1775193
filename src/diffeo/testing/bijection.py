"""Checks of the mathematics of a map x -> z with log|det dz/dx|, against an independent float64 Jacobian."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .case import Args, Case, Outputs, call_inverse, condition, expect, gap, rows
from .report import Check, Failure, Skip

EPS = torch.finfo(torch.float64).eps


def _tolerance(case: Case, j: Tensor, base: float) -> float:
    """`base`, plus what float64 loses by the conditioning of the map: 100 eps cond(J), at most 1e-4."""
    return base + case.inexact + min(100 * EPS * float(condition(j).max()), 1e-4)


def _needs_inverse(case: Case) -> None:
    if case.inverse_args is None:
        raise Skip("there is no inverse direction")


def _needs_map(case: Case) -> None:
    if case.stochastic:
        raise Skip("stochastic: no Jacobian")


def _against(case: Case, j: Tensor, ladj: Tensor, direction: str) -> float:
    if j.shape[1] != j.shape[2]:
        raise Failure(f"{direction}: the Jacobian is {j.shape[1]} x {j.shape[2]}, not square")
    truth = torch.linalg.slogdet(j)[1]
    if not bool(truth.isfinite().all()):
        raise Failure(f"{direction}: the Jacobian is singular: autograd's log|det| is {truth}")
    worst = (ladj - truth).abs() / truth.abs().clamp(min=1)
    i = int(worst.nan_to_num(nan=math.inf).argmax())
    return expect(
        float(worst[i]),
        _tolerance(case, j, 1e-8),
        f"{direction} ladj {float(ladj[i]):.10g} but autograd's log|det| is {float(truth[i]):.10g}",
    )


def check_jacobian(case: Case) -> float:
    """ladj of forward against slogdet of its autograd Jacobian, 1e-8 relative."""
    _needs_map(case)
    return _against(case, case.jacobian, case.forward[1].detach(), "forward")


def check_inverse_jacobian(case: Case) -> float:
    """ladj of inverse against slogdet of its own autograd Jacobian, at latents of their own."""
    _needs_map(case)
    _needs_inverse(case)
    return _against(case, case.inverse_jacobian, case.inverse[1].detach(), "inverse")


def check_round_trip(case: Case) -> float:
    """inverse(forward(x)) = x and forward(inverse(z)) = z."""
    _needs_map(case)
    _needs_inverse(case)
    assert case.inverse_args is not None
    x, z = case.args[0], case.inverse_args[0]
    back = call_inverse(case.module, (case.forward[0], *case.args[1:]))[0]
    error = expect(gap(back, x), _tolerance(case, case.jacobian, 1e-9), "inverse(forward(x)) - x")
    again = case.apply(case.module, (case.inverse[0], *case.inverse_args[1:]))[0]
    tolerance = _tolerance(case, case.inverse_jacobian, 1e-9)
    return max(error, expect(gap(again, z), tolerance, "forward(inverse(z)) - z"))


def check_inverse_ladj(case: Case) -> float:
    """ladj of the inverse at forward(x) is minus that of forward at x."""
    _needs_map(case)
    _needs_inverse(case)
    z, ladj = case.forward
    back = call_inverse(case.module, (z, *case.args[1:]))[1]
    return expect(gap(-back, ladj), _tolerance(case, case.jacobian, 1e-8), "-inverse ladj - ladj")


def check_ladj_shape_dtype(case: Case) -> float | None:
    """ladj is [batch], in the input's dtype, for batches of any size, also of one and of none."""
    for what, apply, args in _directions(case):
        for n in (len(args[0]), 1, 0):
            part = rows(args, slice(0, n))
            value, ladj = apply(case.module, part)
            if tuple(ladj.shape) != (n,):
                raise Failure(f"{what}: ladj is {tuple(ladj.shape)} for a batch of {n}")
            if ladj.dtype != torch.float64 or ladj.device != value.device:
                raise Failure(f"{what}: ladj is {ladj.dtype} on {ladj.device} for float64 input")
            if value.shape[0] != n:
                raise Failure(f"{what}: {tuple(value.shape)} for a batch of {n}")
            if not bool(ladj.isfinite().all()):
                raise Failure(f"{what}: ladj is {ladj.tolist()}")
    return None


def _directions(case: Case) -> list[tuple[str, Callable[[nn.Module, Args], Outputs], Args]]:
    found: list[tuple[str, Callable[[nn.Module, Args], Outputs], Args]] = [
        ("forward", case.apply, case.args)
    ]
    if case.inverse_args is not None and not case.stochastic:
        found.append(("inverse", call_inverse, case.inverse_args))
    return found


def check_gradcheck(case: Case) -> float:
    """Gradients of value and ladj by input, context and parameters against central differences, both directions."""
    _needs_map(case)
    worst = 0.0
    for what, apply, args in _directions(case):
        some = rows(args, slice(0, 2))
        outputs = _function(case.module, apply, some)
        if any(o.requires_grad for o in outputs(some[0].clone().requires_grad_())):
            torch.autograd.gradcheck(
                outputs,
                (some[0].clone().requires_grad_(),),
                fast_mode=True,
                atol=1e-4 + case.inexact,
            )
        worst = max(worst, _parameter_gradient(case, what, apply, some))
    return worst


def _function(
    module: nn.Module, apply: Callable[[nn.Module, Args], Outputs], args: Args
) -> Callable[[Tensor], Outputs]:
    return lambda x: tuple(o for o in apply(module, (x, *args[1:])) if o.is_floating_point())


def _parameter_gradient(
    case: Case, what: str, apply: Callable[[nn.Module, Args], Outputs], args: Args
) -> float:
    """A directional derivative by all parameters, by backward and by central differences at two step sizes."""
    module = case.copy()
    params = [p for p in module.parameters() if p.requires_grad]
    if not params:
        return 0.0
    g = torch.Generator().manual_seed(case.seed)

    def noise(t: Tensor) -> Tensor:
        return torch.randn(t.shape, generator=g, dtype=torch.float64)

    weights = [noise(o) for o in apply(module, args)]

    def loss() -> Tensor:
        return torch.stack(
            [(w * o).sum() for w, o in zip(weights, apply(module, args), strict=True)]
        ).sum()

    value = loss()
    if not value.requires_grad:
        for p in params:
            with torch.no_grad():
                p.add_(0.01)
        if gap(loss(), value) == 0:
            return 0.0  # for example an unused part in this direction
        raise Failure(f"{what}: the outputs depend on the parameters but have no gradient")
    grads = torch.autograd.grad(value, params, materialize_grads=True)
    directions = [noise(p) for p in params]
    slope = sum(float((d * gr).sum()) for d, gr in zip(directions, grads, strict=True))
    errors = []
    for h in (1e-5, 1e-6, 1e-7):
        ends = []
        for step in (h, -2 * h):
            with torch.no_grad():
                for p, d in zip(params, directions, strict=True):
                    p.add_(d, alpha=step)
                ends.append(float(loss()))
        with torch.no_grad():
            for p, d in zip(params, directions, strict=True):
                p.add_(d, alpha=h)
        found = (ends[0] - ends[1]) / (2 * h)
        errors.append(abs(found - slope) / max(1.0, abs(slope), abs(float(value.detach()))))
    # A kink within one step size is no error; it does not lie within all of them.
    return expect(min(errors), 1e-4 + case.inexact, f"{what}: gradient by the parameters")


def check_double_backward(case: Case) -> float | None:
    """Second derivatives by the input against central differences of the first; and by the parameters, finite."""
    _needs_map(case)
    for _, apply, args in _directions(case):
        some = rows(args, slice(0, 2))
        x = some[0].clone().requires_grad_()
        f = _function(case.module, apply, some)
        if not any(o.requires_grad for o in f(x)):
            continue
        torch.autograd.gradgradcheck(
            lambda x, f=f: tuple(o.sin() if o.requires_grad else o + 0 * x.sum() for o in f(x)),
            (x,),
            fast_mode=True,
            atol=1e-3,
            rtol=1e-2,
        )
        module = case.copy()
        total = torch.stack([o.sin().sum() for o in apply(module, (x, *some[1:]))]).sum()
        (first,) = torch.autograd.grad(total, x, create_graph=True)
        if first.requires_grad:
            torch.autograd.backward(first.square().sum())
        for name, p in module.named_parameters():
            if p.grad is not None and not bool(p.grad.isfinite().all()):
                raise Failure(f"the second derivative by {name} is not finite")
    return None


BIJECTION_CHECKS: dict[str, Check] = {
    "jacobian": check_jacobian,
    "inverse_jacobian": check_inverse_jacobian,
    "round_trip": check_round_trip,
    "inverse_ladj": check_inverse_ladj,
    "ladj_shape_dtype": check_ladj_shape_dtype,
    "gradcheck": check_gradcheck,
    "double_backward": check_double_backward,
}
