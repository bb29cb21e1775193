"""Parameters far from initialization, and inputs that reach every branch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..parts import ContextShape, Shape, refresh
from ..properties import Domain

_MEANS = {"mean", "running_mean"}
_SPREADS = {"std", "var", "running_var"}


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """Replace every floating parameter, in place, by a draw; also those that start at zero. Returns the module.

    Weights (two axes or more) become N(0, scale^2 / fan_in), so that outputs keep the size of inputs; vectors and
    numbers N(0, scale^2 / 4). Statistics of normalization layers become N(0, 1/4) means and log-normal deviations. What
    must keep its form (permutations, masks, orthogonal matrices, flags) is a buffer of another name, and stays. State
    that follows the weights (power iterations) is brought up to them.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(t: Tensor) -> Tensor:
        return torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t)

    for p in module.parameters():
        if p.is_floating_point():
            fan_in = p[0].numel() if p.ndim > 1 else 4
            p.copy_(normal(p) * (scale / math.sqrt(max(fan_in, 1))))
    for path, b in module.named_buffers():
        name = path.rsplit(".", 1)[-1]
        if b.is_floating_point() and name in _MEANS:
            b.copy_(0.5 * normal(b))
        elif b.is_floating_point() and name in _SPREADS:
            b.copy_((0.5 * normal(b)).exp())
    refresh(module)
    return module


def draw_event(domain: Domain | None, shape: Shape, n: int, seed: int) -> Tensor:
    """n events inside a domain, [n, *shape], float64 (int64 for integers), near the edges and far out too.

    On a line: N(0, 1.5^2), the last event 4 times as far. In an interval: uniform, the last event within 1 % of the
    edges. Integers: uniform, with both ends.
    """
    g = torch.Generator().manual_seed(seed)
    full = (n, *shape)
    if domain is not None and domain.integer:
        low = int(domain.low) if math.isfinite(domain.low) else -20
        high = int(domain.high) if math.isfinite(domain.high) else low + 40
        x = torch.randint(low, high + 1, full, generator=g)
        x.view(n, -1)[0, ::2], x.view(n, -1)[-1, ::2] = low, high
        return x
    normal = torch.randn(full, generator=g, dtype=torch.float64)
    far = torch.ones(n, *(1 for _ in shape), dtype=torch.float64)
    if n > 1:
        far[-1] = 4.0
    if domain is None or (math.isinf(domain.low) and math.isinf(domain.high)):
        return 1.5 * normal * far
    if math.isinf(domain.high):
        return domain.low + normal.exp()
    if math.isinf(domain.low):
        return domain.high - normal.exp()
    u = torch.rand(full, generator=g, dtype=torch.float64) * 0.9 + 0.05
    if n > 1:
        u[-1] = torch.where(u[-1] < 0.5, u[-1] * 0.01, 1 - (1 - u[-1]) * 0.01)
    return domain.low + (domain.high - domain.low) * u


def draw_context(shape: ContextShape, n: int, seed: int) -> Any:
    """n contexts N(0, 1): None, [n, *shape], or a dict of such."""
    if shape is None:
        return None
    g = torch.Generator().manual_seed(seed + 1)
    if isinstance(shape, dict):
        return {k: torch.randn((n, *s), generator=g, dtype=torch.float64) for k, s in shape.items()}
    return torch.randn((n, *shape), generator=g, dtype=torch.float64)
