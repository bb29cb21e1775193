"""torch's batch norms over the examples of all processes, on any device, for as long as a run lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..moments import moments


@contextmanager
def global_batch_norm(model: nn.Module) -> Iterator[None]:
    """Every nn.BatchNorm of a model takes its statistics over all processes; names and buffers stay as they are."""
    norms = [m for m in model.modules() if type(m) in _GLOBAL]
    kinds = [type(m) for m in norms]
    try:
        for norm, kind in zip(norms, kinds, strict=True):
            norm.__class__ = _GLOBAL[kind]
        yield
    finally:
        for norm, kind in zip(norms, kinds, strict=True):
            norm.__class__ = kind


class _Global:
    """y = (x - mean) / sqrt(var + eps) * weight + bias; the running variance is the unbiased one, as in torch."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training:
            out: Tensor = super().forward(x)  # type: ignore[misc]
            return out
        shape = (x.shape[1], *(1 for _ in x.shape[2:]))
        mean, var = moments(x, shape)
        if self.track_running_stats:
            self._track(mean.reshape(-1), var.reshape(-1), x)
        out = ((x - mean) * (var + self.eps).rsqrt()).to(x.dtype)
        if self.affine:
            out = out * self.weight.reshape(shape) + self.bias.reshape(shape)
        return out

    @torch.no_grad()
    def _track(self: Any, mean: Tensor, var: Tensor, x: Tensor) -> None:
        count = x.new_tensor(x.numel() / x.shape[1], dtype=torch.float64)
        torch.distributed.all_reduce(count)
        self.num_batches_tracked.add_(1)
        rate = self.momentum
        if rate is None:
            rate = 1 / self.num_batches_tracked
        unbiased = var * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), rate)


class _Global1d(_Global, nn.BatchNorm1d):
    pass


class _Global2d(_Global, nn.BatchNorm2d):
    pass


class _Global3d(_Global, nn.BatchNorm3d):
    pass


_GLOBAL: dict[type[nn.Module], Any] = {
    nn.BatchNorm1d: _Global1d,
    nn.BatchNorm2d: _Global2d,
    nn.BatchNorm3d: _Global3d,
}
