"""The input that a linear map stretches most, for many maps at once, from one that nearly is it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]
"""[maps, n] -> [maps, m]: each map of its own row."""

NOISE = 100
"""Units of rounding below which a difference of vectors of norm 1 has no direction."""


ROUNDS = 20
"""Times that something is looked for and found."""

LOOK = 100
"""Steps of a search for what a vector has no part of."""

MORE = 1e-4
"""By which share of it something must be stretched more than a vector to count."""


def search(
    image: Map,
    back: Map,
    v: Tensor,
    beside: Tensor,
    tolerance: float,
    steps: int,
    *,
    thorough: bool,
) -> tuple[Tensor, Tensor]:
    """`most_stretched`, whose second result, given back as `beside`, is one step of the power iteration further each
    time: so a vector that maps come to stretch more, and that v has no part of, is found within some calls.

    thorough: it is looked for at once, in what is orthogonal to v.
    """
    v, beside = most_stretched(image, back, v, beside, tolerance, steps)
    for _ in range(ROUNDS if thorough else 0):

        def around(a: Tensor, v: Tensor = v) -> Tensor:
            return a - (a * v).sum(1, keepdim=True) * v

        def inside(a: Tensor) -> Tensor:
            return image(around(a))

        def outside(a: Tensor) -> Tensor:
            return around(back(a))

        start = _direction(_filled(beside), v)
        other = _direction(most_stretched(inside, outside, start, start, 10 * MORE, LOOK)[0], v)
        better = image(other).norm(dim=1) > (1 + MORE) * image(v).norm(dim=1)
        if not bool(better.any()):
            return v, other
        v, beside = (torch.where(better[:, None], *pair) for pair in ((other, v), (v, other)))
        v, beside = most_stretched(image, back, v, beside, tolerance, steps)
    return v, beside


def most_stretched(
    image: Map, back: Map, v: Tensor, beside: Tensor, tolerance: float, steps: int
) -> tuple[Tensor, Tensor]:
    """v [maps, n] of norm 1 with the greatest |W v|, from v: W^T W v / |W v|^2 is within `tolerance` of it.

    image: W; back: W^T. Each of at most `steps` steps is the best of what v, its gradient and the last step span; in
    place of the first last step, `beside` [maps, n]. Second, W^T W beside, of norm 1 and orthogonal to v, or zero.
    Knyazev, Toward the optimal preconditioned eigensolver: locally optimal block preconditioned conjugate gradient
    method, 2001.
    """
    w_v = image(v)
    last = _direction(_filled(beside), v)
    w_last = image(last)
    further = back(w_last)
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
    # Combinations of thousands of steps are not quite of norm 1 any more.
    v = v / v.norm(dim=1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
    return v, _direction(further, v)


def probe(like: Tensor) -> Tensor:
    """A vector with a part of every other that anyone would think of, for each map."""
    size = like[0].numel()
    return torch.arange(1, size + 1, device=like.device).to(like).cos().reshape(like[:1].shape)


def _filled(beside: Tensor) -> Tensor:
    """With the probe in place of nothing."""
    lost = beside.norm(dim=1, keepdim=True) == 0
    return torch.where(lost, probe(beside), beside)


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


def marks(*tensors: Tensor) -> list[list[float]]:
    """Two numbers for the values of every row of some tensors [maps, ...]."""
    values = torch.cat([t.flatten(1) for t in tensors], 1)
    # The rounding of a row's sums depends on how many rows there are.
    values = values if values.device.type == "mps" else values.double()
    size = values.norm(dim=1)
    share = (values @ probe(values)[0]) / size.clamp(min=torch.finfo(values.dtype).tiny)
    found: list[list[float]] = torch.stack((size, share), 1).tolist()
    return found


def same(mark: list[float], other: list[float]) -> bool:
    """Whether two marks are of the same values, but for rounding."""
    return all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in zip(mark, other, strict=True)
    )
