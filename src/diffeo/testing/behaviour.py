"""Checks of what a part must not do: mix examples, ignore its context, edit, cache, initialize itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .case import Args, Case, Outputs, call_inverse, expect, gap, leaves, rows, tree_map
from .report import Check, Failure, Skip

Direction = tuple[str, Callable[[nn.Module, Args], Outputs], Args]


def directions(case: Case) -> list[Direction]:
    """Forward, and inverse where there is one."""
    found: list[Direction] = [("forward", case.apply, case.args)]
    if case.inverse_args is not None:
        found.append(("inverse", call_inverse, case.inverse_args))
    return found


def check_batch_independence(case: Case) -> float:
    """An example's outputs stay when all other examples are replaced (eval mode)."""
    worst = 0.0
    for what, apply, args in directions(case):
        n = len(leaves(args)[0])
        if n < 2:
            raise Skip("needs two examples")
        # Row 0, then copies of row 1.
        others = rows(args, torch.tensor([0] + [1] * (n - 1)))
        found = [rows(apply(case.module, a), slice(0, 1)) for a in (args, others)]
        worst = max(worst, expect(gap(*found), 1e-10, f"{what}: example 0 follows the others"))
    return worst


def check_batch_of_one(case: Case) -> float:
    """Every example alone gives what it gives in the batch."""
    worst = 0.0
    for what, apply, args in directions(case):
        together = apply(case.module, args)
        for i in range(len(leaves(args)[0])):
            alone = apply(case.module, rows(args, slice(i, i + 1)))
            error = gap(alone, rows(together, slice(i, i + 1)))
            worst = max(worst, expect(error, 1e-9, f"{what}: example {i} alone and in the batch"))
    return worst


def check_context_used(case: Case) -> float | None:
    """The outputs, and those of every network that declares a context, have a non-zero gradient by the context."""
    context = case.args[1] if len(case.args) > 1 else None
    if context is None:
        raise Skip("there is no context")
    context = tree_map(lambda t: t.clone().requires_grad_(), context)
    seen: list[tuple[str, Any, Any]] = []
    handles = [
        m.register_forward_hook(
            lambda m, _a, out, name=name: seen.append((name, m.context_shape, out))
        )
        for name, m in case.module.named_modules()
        if getattr(m, "context_shape", None) is not None and hasattr(m, "out_shape")
    ]
    try:
        out = case.apply(case.module, (case.args[0], context, *case.args[2:]))
    finally:
        for handle in handles:
            handle.remove()
    whole = getattr(case.module, "context_shape", None)
    for name, reads, value in [("the output", whole, out), *seen]:
        total = torch.stack([(t * torch.arange(1.0, 1 + t.numel()).to(t).reshape(t.shape)).sum()
                             for t in leaves(value) if t.is_floating_point()]).sum()  # fmt: skip
        names = list(context) if isinstance(context, dict) else ["context"]
        grads: tuple[Tensor | None, ...] = (None,) * len(names)
        if total.requires_grad:
            grads = torch.autograd.grad(
                total, leaves(context), retain_graph=True, allow_unused=True
            )
        sizes = {
            k: 0.0 if g is None else float(g.abs().max()) for k, g in zip(names, grads, strict=True)
        }
        if isinstance(context, dict) and not isinstance(reads, dict):
            # A network of one of several contexts, inside a Join.
            sizes = {"any of the contexts": max(sizes.values())}
        elif isinstance(reads, dict):
            sizes = {k: size for k, size in sizes.items() if k in reads}
        for key, size in sizes.items():
            if not size > 0:
                raise Failure(f"{name} does not depend on the {key}")
    return None


def check_purity(case: Case) -> float | None:
    """In eval mode no argument, parameter, buffer, gradient flag or random state changes."""
    for what, apply, args in directions(case):
        module = case.copy()
        given = tree_map(Tensor.clone, args)
        before = {k: v.clone() for k, v in module.state_dict().items()}
        flags = [p.requires_grad for p in module.parameters()]
        with torch.random.fork_rng(devices=[]):
            state = torch.get_rng_state()
            apply(module, given)
            if not torch.equal(state, torch.get_rng_state()):
                raise Failure(f"{what} draws random numbers")
        for i, (new, old) in enumerate(zip(leaves(given), leaves(args), strict=True)):
            if not torch.equal(new, old):
                raise Failure(f"{what} edits its argument {i} in place")
        _same_state(module, before, what)
        if flags != [p.requires_grad for p in module.parameters()]:
            raise Failure(f"{what} changes requires_grad of a parameter")
        if module.training:
            raise Failure(f"{what} leaves the module in training mode")
    return None


def _same_state(module: nn.Module, before: dict[str, Tensor], what: str) -> None:
    after = module.state_dict()
    if set(after) != set(before):
        raise Failure(f"{what} adds or removes {sorted(set(after) ^ set(before))[0]}")
    for k, v in after.items():
        if not torch.equal(v, before[k]):
            raise Failure(f"{what} changes {k}")


def check_cache(case: Case) -> float | None:
    """No value outlives its call: not for another x, nor after an update of parameters or of x in place."""
    for what, apply, args in directions(case):
        module, fresh = case.copy(), case.copy()
        x, rest = args[0].clone(), args[1:]
        other = x.flip(0)
        apply(module, (x, *rest))
        _same(apply(module, (other, *rest)), apply(fresh, (other, *rest)), what, "another x")
        with torch.no_grad():
            apply(module, (x, *rest))
            for p, q in zip(module.parameters(), fresh.parameters(), strict=True):
                if p.is_floating_point():
                    p.add_(0.01)
                    q.add_(0.01)
            fresh = copy.deepcopy(fresh)
            _same(apply(module, (x, *rest)), apply(fresh, (x, *rest)), what, "new parameters")
            x.copy_(other)
            _same(
                apply(module, (x, *rest)), apply(fresh, (other, *rest)), what, "x edited in place"
            )
        if case.inverse_args is not None and what == "forward":
            # A pair (x, z) kept by forward must not serve the inverse.
            z = case.inverse_args[0]
            found = call_inverse(module, (z, *case.inverse_args[1:]))
            _same(found, call_inverse(fresh, (z, *case.inverse_args[1:])), "inverse", "a forward")
    return None


def _same(found: Outputs, expected: Outputs, what: str, after: str) -> None:
    if gap(found, expected) > 1e-12:
        raise Failure(f"{what} gives a stale value after {after}")


def check_initialization(case: Case) -> float | None:
    """Only `initialize` initializes, once: no call of forward or inverse does, in eval or training mode."""
    module = case.copy()
    for name, b in module.named_buffers():
        if name.rsplit(".", 1)[-1] == "initialized":
            b.fill_(False)
    for training in (False, True):
        module.train(training)
        # Directions a user may call first; the inverse is that of `sample`.
        for what, apply, args in reversed(directions(case)):
            before = {k: v.clone() for k, v in _learned(module)}
            first = apply(module.eval(), args)
            with torch.no_grad():
                apply(module.train(training), args)
            for k, v in _learned(module):
                if not torch.equal(v, before[k]):
                    mode = "training" if training else "eval"
                    raise Failure(f"{what} in {mode} mode sets {k}")
            if not training and gap(apply(module.eval(), args), first) != 0:
                raise Failure(f"{what} gives another value when called again")
    initialize = getattr(module, "initialize", None)
    if initialize is None:
        return None
    module.eval()
    with torch.random.fork_rng(devices=[]):
        once = initialize(*case.args[:2])
        state = {k: v.clone() for k, v in module.state_dict().items()}
        if isinstance(once, Tensor) and not case.stochastic:
            expect(gap(once, case.apply(module, case.args)[0]), 1e-9, "initialize - forward")
        initialize(*tree_map(lambda t: t[:2], case.args[:2]))
    _same_state(module, state, "a second initialize")
    return None


def _learned(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and flags: what training mode may not change by itself."""
    yield from module.named_parameters()
    yield from ((k, b) for k, b in module.named_buffers() if k.rsplit(".", 1)[-1] == "initialized")


BEHAVIOUR_CHECKS: dict[str, Check] = {
    "batch_independence": check_batch_independence,
    "batch_of_one": check_batch_of_one,
    "context_used": check_context_used,
    "purity": check_purity,
    "cache": check_cache,
    "initialization": check_initialization,
}
