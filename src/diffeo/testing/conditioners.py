"""check_conditioner: a network keeps its shapes, uses its context, and treats examples alone in eval mode."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ..nets import Conditioner
from .behaviour import BEHAVIOUR_CHECKS
from .case import Case
from .execution import COPY_CHECKS, RUN_CHECKS
from .randomize import draw_context, draw_event, randomize
from .report import Check, Failure, Report, Skip, run


def check_conditioner(
    net: Conditioner,
    *,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    backend: str = "aot_eager",
    seed: int = 0,
    scale: float = 1.0,
    batch: int = 4,
) -> Report:
    """Test a network `net(x, context)` with parameters far from initialization. Errors as in `check_transform`."""
    module = randomize(copy.deepcopy(net).double().eval(), seed, scale)
    case = Case(
        name=type(net).__name__,
        module=module,
        args=(
            draw_event(None, net.in_shape, batch, seed),
            draw_context(net.context_shape, batch, seed),
        ),
        backend=backend,
        seed=seed,
        low_precision=True,
    )
    return run(type(net).__name__, [(CONDITIONER_CHECKS, case)], checks, skip)


def check_output_shape(case: Case) -> float | None:
    """[batch, *out_shape] for any batch, in the input's dtype."""
    net = case.module
    assert isinstance(net, Conditioner)
    for n in (len(case.args[0]), 1):
        x = case.args[0][:n]
        context = draw_context(net.context_shape, n, case.seed)
        out: Tensor = net(x, context)
        if out.shape[0] != n or out[0].numel() != math.prod(net.out_shape):
            raise Failure(f"{tuple(out.shape)} for a batch of {n} and out_shape {net.out_shape}")
        if out.dtype != x.dtype:
            raise Failure(f"{out.dtype} for {x.dtype}")
    return None


def check_input_used(case: Case) -> float | None:
    """Every output has a gradient by the parameters, and some by the input."""
    net = case.module
    x = case.args[0].clone().requires_grad_()
    out = net(x, *case.args[1:])
    params = list(net.parameters())
    for i, entry in enumerate(out.flatten(1).unbind(1)):
        grads = torch.autograd.grad(entry.sum(), params, retain_graph=True, allow_unused=True)
        if not any(g is not None and bool((g != 0).any()) for g in grads):
            raise Failure(f"output {i} depends on no parameter")
    (by_x,) = torch.autograd.grad(out.sum(), x, materialize_grads=True, allow_unused=True)
    if not x[0].numel() or type(net).__name__ == "Constant":
        raise Skip("there is no input to use")
    if not bool((by_x != 0).any()):
        raise Failure("the output does not depend on the input")
    return None


def check_starts_at_zero(case: Case) -> float | None:
    """A network that declares zero_init, built again from its configuration, gives zero before training."""
    net = case.module
    assert isinstance(net, Conditioner)
    config = net.config()
    if not config.get("zero_init"):
        raise Skip("zero_init is not declared")
    with torch.random.fork_rng(devices=[]):
        new = type(net)(**config).double().eval()
    if bool((new(*case.args) != 0).any()):
        raise Failure("the first output is not zero")
    return None


CONDITIONER_CHECKS: dict[str, Check] = {
    "output_shape": check_output_shape,
    "input_used": check_input_used,
    "starts_at_zero": check_starts_at_zero,
    **{k: v for k, v in BEHAVIOUR_CHECKS.items() if k != "initialization"},
    **COPY_CHECKS,
    **RUN_CHECKS,
}
