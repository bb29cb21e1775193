"""Random numbers, the same in eager and compiled code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .tracing import operator


def _draw(shape: Sequence[int], like: Tensor, normal: bool) -> Tensor:
    law = torch.randn if normal else torch.rand
    return law(shape, dtype=like.dtype, device=like.device)


operator(
    "draw(SymInt[] shape, Tensor like, bool normal) -> Tensor",
    _draw,
    lambda shape, like, normal: torch.empty(shape, dtype=like.dtype, device="meta"),
    tags=(torch.Tag.nondeterministic_seeded,),
)


def draw(
    shape: Sequence[int],
    like: Tensor,
    generator: torch.Generator | None = None,
    *,
    normal: bool = True,
) -> Tensor:
    """N(0, 1), or uniform on [0, 1), of this shape, with the dtype and device of `like`.

    Compiled code calls back for them: inductor's own generator is slow on a CPU, and its numbers are not torch's.
    """
    if generator is None and torch.compiler.is_compiling():
        out: Tensor = torch.ops.diffeo.draw(shape, like, normal)
        return out
    law = torch.randn if normal else torch.rand
    return law(shape, generator=generator, dtype=like.dtype, device=like.device)
