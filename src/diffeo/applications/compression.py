"""Conceptual compression: which latents to keep, and the data that the kept ones decode to.

Keep the coarsest latents, draw the others anew, decode: Dinh et al., Real NVP, 2016, arXiv:1605.08803, appendix D.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from ..flow import Flow
from ..parts import Shape
from ..transforms import Squeeze

FRACTIONS = (1.0, 0.5, 0.25, 0.125, 0.0625)
_DECODINGS = 4096  # decoded rows that the importance of a flat latent may cost
_BLOCK = 256


@torch.no_grad()
def keep(
    flow: Flow,
    x: Tensor,
    kept: float | Tensor,
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """x [n, *event_shape] with some of its latents, the others drawn anew from the base at a temperature.

    kept: the fraction of the latents to keep, in the order of `latent_order`; or which ones, bool [D] over the flat
    latent. Raises InputError for a fraction outside [0, 1].
    """
    which = kept if isinstance(kept, Tensor) else keep_first(latent_order(flow, x), kept)
    z = flow.encode(x)
    fresh = flow.base.sample(len(z), temperature=temperature, generator=generator)
    return flow.decode(torch.where(which.reshape(flow.latent_shape), z, fresh))


def keep_first(order: Tensor, fraction: float) -> Tensor:
    """True for the first `fraction` of an order of the latents, bool [D]. Raises InputError outside [0, 1]."""
    if not 0 <= fraction <= 1:
        raise InputError(f"the fraction of latents to keep must be in [0, 1], got {fraction}")
    keep = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    keep[order[: round(fraction * len(order))]] = True
    return keep


def latent_order(flow: Flow, x: Tensor | None = None, *, seed: int = 0) -> Tensor:
    """Indices of the flat latent, the most telling first.

    With spatial levels: coarse level before fine, and inside a level the order of repeated checkerboard squeezes that
    keep the first half. Without: by `importance`, for x or, if None, for samples of the flow.
    """
    if not has_spatial_levels(flow):
        return importance(flow, x, seed=seed).argsort(descending=True, stable=True)
    pieces = [
        level.slice.start + _coarse_to_fine(level.shape).flatten()
        for level in reversed(flow.levels)
    ]
    return torch.cat(pieces).to(flow.device)


def has_spatial_levels(flow: Flow) -> bool:
    """Whether some level of the latent is laid out as an image."""
    return any(len(s.shape) == 3 and max(s.shape[1:]) > 1 for s in flow.levels)


def _coarse_to_fine(shape: Shape) -> Tensor:
    """Positions of a level in the order in which they are kept."""
    size = int(torch.Size(shape).numel())
    positions = torch.arange(size)
    if len(shape) != 3:
        return positions
    c, h, w = shape
    if h % 2 == 0 and w % 2 == 0:
        # Indices as float64 are exact up to 2^53, and Squeeze only moves them.
        squeeze = Squeeze(shape, order="checkerboard")
        squeezed, _ = squeeze(positions.double().reshape(1, *shape))
        first, second = squeezed[0].long().flatten().chunk(2)
        inner = _coarse_to_fine((2 * c, h // 2, w // 2))
        return torch.cat((first[inner], second[inner]))
    # Sides that no longer halve: channel by channel, each one's checkerboard first.
    grid = positions.reshape(shape)
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    odd = ((rows + columns) % 2).flatten().argsort(stable=True)
    return grid.reshape(c, -1)[:, odd].flatten()


@torch.no_grad()
def importance(flow: Flow, x: Tensor | None = None, *, seed: int = 0) -> Tensor:
    """Mean squared change of the data, per entry, when one latent is drawn anew; [D], over a few examples."""
    size = int(torch.Size(flow.latent_shape).numel())
    few = max(1, min(16, _DECODINGS // size))
    generator = torch.Generator(flow.device).manual_seed(seed)
    x = flow.sample(few, generator=generator) if x is None else x[:few]
    z = flow.encode(x).flatten(1)
    real = flow.continuous
    before = real.decode(z.reshape(-1, *flow.latent_shape))
    fresh = flow.base.sample(len(z), generator=generator).flatten(1)
    effects = []
    for start in range(0, size, max(1, _BLOCK // len(z))):
        which = torch.arange(start, min(size, start + max(1, _BLOCK // len(z))), device=z.device)
        changed = z.repeat(len(which), 1, 1)
        row = torch.arange(len(which), device=z.device)
        changed[row, :, which] = fresh[:, which].T
        after = real.decode(changed.reshape(len(which), len(z), *flow.latent_shape))
        effects.append((after - before).square().flatten(1).mean(1))
    return torch.cat(effects).nan_to_num(nan=0.0)
