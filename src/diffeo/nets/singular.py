"""The input that a linear map stretches most, for many maps at once, from one that nearly is it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]
"""[maps, n] -> [maps, m]: each map of its own row."""

NOISE = 100
"""Units of rounding below which a difference of vectors of norm 1 has no direction."""


def most_stretched(image: Map, back: Map, v: Tensor, tolerance: float, steps: int) -> Tensor:
    """v [maps, n] of norm 1 with the greatest |W v|, from v: W^T W v / |W v|^2 is within `tolerance` of it.

    image: W; back: W^T. Each of at most `steps` steps is the best of what v, its gradient and the last step span.
    Knyazev, Toward the optimal preconditioned eigensolver: locally optimal block preconditioned conjugate gradient
    method, 2001.
    """
    w_v = image(v)
    # In place of a last step, any direction: v may have no part of the answer, and its gradient be zero.
    last = torch.arange(1, v.shape[1] + 1, device=v.device).to(v).cos().expand_as(v)
    last = _direction(last, v)
    w_last = image(last)
    for i in range(steps):
        square = w_v.square().sum(1, keepdim=True)
        gradient = back(w_v) / square.clamp(min=torch.finfo(v.dtype).tiny) - v
        going = (square > 0) & ((gradient.norm(dim=1, keepdim=True) > tolerance) | (i == 0))
        if not bool(going.any()):
            break
        gradient = _direction(gradient, v, last)
        span = torch.stack((v, gradient, last), 1)
        images = torch.stack((w_v, image(gradient), w_last), 1)
        share = torch.linalg.eigh(images @ images.mT)[1][:, None, :, -1]
        share = torch.where(share[..., :1] < 0, -share, share)
        found, w_found = ((share @ a)[:, 0] for a in (span, images))
        step, w_step = ((share[..., 1:] @ a[:, 1:])[:, 0] for a in (span, images))
        along = (step * found).sum(1, keepdim=True)
        step, w_step = step - along * found, w_step - along * w_found
        size = step.norm(dim=1, keepdim=True)
        # Of nothing but rounding, nothing.
        scale = torch.where(size > NOISE * torch.finfo(v.dtype).eps, 1 / size, 0.0)
        last, w_last = scale * step, scale * w_step
        v, w_v = torch.where(going, found, v), torch.where(going, w_found, w_v)
    return v


def _direction(a: Tensor, *others: Tensor) -> Tensor:
    """a / |a| without its parts along others of norm 1 or 0; zero if nothing but rounding is left."""
    before = a.norm(dim=1, keepdim=True)
    for o in others:
        a = a - (a * o).sum(1, keepdim=True) * o
    size = a.norm(dim=1, keepdim=True)
    kept = size > NOISE * torch.finfo(a.dtype).eps * before
    a = torch.where(kept, a / size, torch.zeros_like(a))
    for o in others:
        a = a - (a * o).sum(1, keepdim=True) * o
    return a
