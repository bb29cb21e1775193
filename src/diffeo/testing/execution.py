"""Checks of copies and of other ways to run: state dict, deepcopy, config, compile, vmap, export, lower precision."""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from torch import Tensor, nn

from ..parts import describe, rebuild
from ..tracing import RIGHT
from .case import Args, Case, Outputs, cast, condition, expect, gap, leaves, tree_map
from .randomize import randomize
from .report import Check, Failure, Skip

AUTOCAST_BUDGET = 0.1
"""Largest error under bfloat16 autocast, relative to 1 + |ladj| + number of entries: conditioners have 8 bits."""

FLOAT32_BUDGET = 2e-4
"""Largest float32 error of a value or ladj relative to its size, times sqrt(condition number)."""


def check_state_dict(case: Case) -> float:
    """A copy with other parameters gives the same bits after load_state_dict."""
    other = randomize(case.copy(), seed=case.seed + 1)
    other.load_state_dict(case.module.state_dict())
    return _same_bits(case, other, "after load_state_dict")


def check_deepcopy(case: Case) -> float:
    """A deepcopy taken after use, also with gradients, gives the same bits and shares no tensor."""
    module = case.copy()
    for out in case.apply(module, case.args):
        if out.requires_grad:
            torch.autograd.backward(out.sum(), retain_graph=True)
    twin = copy.deepcopy(module)
    for (name, a), b in zip(module.named_parameters(), twin.parameters(), strict=True):
        if a.data_ptr() == b.data_ptr() and a.numel():
            raise Failure(f"the copy shares {name}")
    return _same_bits(case, twin, "of a deepcopy")


def check_config_round_trip(case: Case) -> float:
    """Built again from its JSON configuration, with the same state, it gives the same bits; dtypes kept."""
    text = json.dumps(describe(case.module, type(case.module).__name__))
    with torch.random.fork_rng(devices=[]):
        module: nn.Module = rebuild(json.loads(text))
    if json.dumps(describe(module)) != text:
        raise Failure("the configuration of the rebuilt part is another one")
    module.load_state_dict(case.module.state_dict(), assign=True)
    return _same_bits(case, module.eval(), "of the rebuilt part")


def _same_bits(case: Case, module: nn.Module, what: str) -> float:
    error = gap(case.apply(module, case.args), case.forward)
    if error != 0:
        raise Failure(f"the outputs {what} differ by {error:.1e}")
    return error


def check_compile(case: Case) -> float:
    """torch.compile(fullgraph=True) gives the eager values, and all gradients. Resets dynamo first."""
    if case.backend == "none":
        raise Skip("backend is none")
    torch._dynamo.reset()
    # A method of the case would be traced with it; a closure over the module alone is what users compile.
    apply, module = case.apply, case.copy()
    compiled = torch.compile(
        lambda *args: apply(module, args),
        fullgraph=True,
        backend=case.backend,
        options=dict(RIGHT) if case.backend == "inductor" else None,
    )
    x = case.args[0]
    given = x.clone().requires_grad_(x.is_floating_point())
    found = compiled(given, *case.args[1:])
    plain = x.clone().requires_grad_(x.is_floating_point())
    expected = apply(module, (plain, *case.args[1:]))
    error = expect(gap(found, expected), 1e-9, "compiled - eager")
    grads = [_gradients(o, a, module) for o, a in ((found, given), (expected, plain))]
    torch._dynamo.reset()
    return max(error, expect(gap(*grads), 1e-7, "compiled - eager gradients"))


def _gradients(out: Outputs, x: Tensor, module: nn.Module) -> Any:
    """By x and the parameters, of a sum in which no two numbers count alike."""
    floats = torch.cat([o.flatten() for o in out if o.is_floating_point()])
    total = (floats * torch.arange(1, len(floats) + 1).to(floats).cos()).sum()
    inputs = [t for t in (x, *module.parameters()) if t.requires_grad]
    if not total.requires_grad or not inputs:
        return ()
    return torch.autograd.grad(total, inputs, materialize_grads=True)


def check_vmap(case: Case) -> float:
    """torch.func.vmap over single examples gives the batch."""
    axes = tree_map(lambda t: 0, case.args)
    used = [i for i, a in enumerate(case.args) if leaves(a)]

    def one(*some: Any) -> Outputs:
        args: list[Any] = [None] * len(case.args)
        for i, a in zip(used, some, strict=True):
            args[i] = tree_map(lambda t: t[None], a)
        return tree_map(lambda t: t[0], case.apply(case.module, tuple(args)))  # type: ignore[no-any-return]

    mapped = torch.func.vmap(one, in_dims=tuple(axes[i] for i in used))
    found = mapped(*(case.args[i] for i in used))
    return expect(gap(found, case.forward), 1e-9, "vmap - batch")


class _Applied(nn.Module):
    """What torch.export takes: a module whose forward is `apply`."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.module = case.copy()
        self.apply_to = case.apply

    def forward(self, *args: Any) -> Outputs:
        return self.apply_to(self.module, args)


def check_export(case: Case) -> float:
    """torch.export gives a program with the eager values."""
    program = torch.export.export(_Applied(case), case.args)
    return expect(gap(program.module()(*case.args), case.forward), 1e-9, "exported - eager")


def _in_float32(case: Case) -> tuple[nn.Module, Args, Outputs]:
    """Module and arguments rounded to float32, and the float64 outputs of those rounded numbers."""
    module, args = case.copy().float(), cast(case.args, torch.float32)
    exact = copy.deepcopy(module).double()
    return module, args, case.apply(exact, cast(args, torch.float64))


def check_autocast(case: Case) -> float:
    """Under bfloat16 autocast: ladj stays float32, all finite, and within the stated budget of float32."""
    module, args, expected = _in_float32(case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = case.apply(module, args)
    if not case.low_precision:
        _check_dtypes(found, "under autocast")
    if not _has_network(module):
        return _budget(case, found, expected, "autocast")
    size = case.args[0][0].numel()
    error = 0.0
    for a, b in zip(found, expected, strict=True):
        limit = 1 + b.abs().max() + (size if b.ndim == 1 else 0)
        error = max(error, float(((a.double() - b).abs().max() / limit).detach()))
    return expect(error, AUTOCAST_BUDGET, "bfloat16 autocast - float64")


def check_float32(case: Case) -> float:
    """In float32 every output is within the stated budget of float64, given the same rounded numbers."""
    module, args, expected = _in_float32(case)
    found = case.apply(module, args)
    _check_dtypes(found, "in float32")
    return _budget(case, found, expected, "float32")


def _check_dtypes(found: Outputs, where: str) -> None:
    for i, out in enumerate(found):
        if out.is_floating_point() and out.dtype != torch.float32:
            raise Failure(f"output {i} is {out.dtype} {where}")


def _budget(case: Case, found: Outputs, expected: Outputs, what: str) -> float:
    square = not case.stochastic and case.inverse_args is not None
    scale = float(condition(case.jacobian).max()) ** 0.5 if square else 1.0
    tolerance = FLOAT32_BUDGET * min(max(scale, 1.0), 100.0) + case.inexact
    return expect(gap(found, expected), tolerance, f"{what} - float64")


def _has_network(module: nn.Module) -> bool:
    return any(
        isinstance(m, nn.Linear | nn.Conv2d) or hasattr(m, "out_shape") for m in module.modules()
    )


COPY_CHECKS: dict[str, Check] = {
    "state_dict": check_state_dict,
    "deepcopy": check_deepcopy,
    "config_round_trip": check_config_round_trip,
}
RUN_CHECKS: dict[str, Check] = {
    "compile": check_compile,
    "vmap": check_vmap,
    "export": check_export,
    "autocast": check_autocast,
    "float32": check_float32,
}
