"""Whether code may depend on values: where it is compiled, exported or mapped, there are none to look at."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

RIGHT = {"inplace_buffers": False}
"""Options of torch.compile: inductor of torch 2.13 gives wrong gradients without, as of a field in steps of Euler."""

P = ParamSpec("P")
R = TypeVar("R")


def eager() -> bool:
    """Whether every operation runs on values at once: not in torch.compile, torch.export and torch.func."""
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def may_look() -> bool:
    """The same, or torch.compile, which can leave a part out of its graph: not in torch.export and torch.func."""
    # torch.compiler.is_exporting() is that flag, but true of torch.compile, too, within dynamo of older releases.
    exporting = getattr(torch.compiler, "_is_exporting_flag", False)
    return not (exporting or torch._C._are_functorch_transforms_active())


def uncompiled(f: Callable[P, R]) -> Callable[P, R]:
    """f, with all that it calls, stays out of torch.compile."""
    return _disabled(f, recursive=True)


def apart(f: Callable[P, R]) -> Callable[P, R]:
    """f stays out of torch.compile, and what it calls has graphs of its own."""
    return _disabled(f, recursive=False)


def _disabled(f: Callable[P, R], *, recursive: bool) -> Callable[P, R]:
    """torch.compiler.disable, which as a decorator would make `import diffeo` load dynamo and sympy."""
    made: list[Callable[P, R]] = []

    @wraps(f)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:
            return f(*args, **kwargs)
        if not made:
            torch._dynamo.decorators.skip(run)
            made.append(torch.compiler.disable(f, recursive=recursive))
        return made[0](*args, **kwargs)

    run._torchdynamo_disable = True  # type: ignore[attr-defined]
    return run


def operator(
    schema: str,
    f: Callable[..., Tensor],
    like: Callable[..., Tensor] = lambda x, *rest: torch.empty_like(x),
    tags: Sequence[torch.Tag] = (),
) -> None:
    """f as torch.ops.diffeo.*, which graphs of torch.compile call as it is; like: what has the shape of its result.

    Not `torch.library.custom_op`, which loads sympy: importing diffeo stays cheap.
    """
    name = schema.partition("(")[0]
    # A module that is loaded again finds it there.
    if not hasattr(torch.ops.diffeo, name):
        torch.library.define(f"diffeo::{name}", schema[len(name) :], tags=tuple(tags))
        torch.library.impl(f"diffeo::{name}", "CompositeExplicitAutograd", f)
        torch.library.impl(f"diffeo::{name}", "Meta", like)


operator("kept(Tensor x) -> Tensor", torch.clone)


def kept(x: Tensor) -> Tensor:
    """A copy for a backward pass, whatever comes to be written into x, which takes no gradients."""
    # A plain copy is left out of graphs: x itself would be there for backward.
    compiled = torch.compiler.is_compiling() and may_look()
    out: Tensor = torch.ops.diffeo.kept(x) if compiled else x.clone()
    return out
