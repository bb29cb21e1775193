"""Normalization layers: standardization, ActNorm and batch norm, each with its log-det."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, ShapeError
from ..moments import moments
from ..parts import Shape, register, sum_event
from ..properties import Properties
from .base import Bounds, Context, Transform, extremes
from .partitions import Partition


def _per_channel(shape: Shape) -> Shape:
    """Shape of one statistic per entry of a vector, or per channel of an image or series."""
    return (shape[0], *(1 for _ in shape[1:])) if shape else ()


class _Fitted(Transform):
    """z = (x - mean) / std with statistics fitted once, by `initialize`; forward never reads the flag."""

    properties = Properties(constant_ladj=True)
    statistics: Shape

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape)
        self.statistics = _per_channel(self.event_shape)
        self.initialized: Tensor
        self.register_buffer("initialized", torch.tensor(False))

    def _expand(self, log_slope: Tensor, x: Tensor, sign: int) -> Tensor:
        positions = math.prod(self.event_shape) // max(log_slope.numel(), 1)
        return (sign * positions * log_slope.sum()).to(x.dtype).expand(x.shape[0])

    def _fit(self, mean: Tensor, std: Tensor) -> None:
        """Store the statistics."""

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        """Fit mean and deviation to x, [n, *event_shape], over all ranks; later calls change nothing.

        A deviation of zero counts as one. Raises InputError for an empty or non-finite batch.
        """
        self._fit_once(x, inverse=False)
        return super().initialize(x, context)

    @torch.no_grad()
    def initialize_inverse(self, z: Tensor, context: Context = None) -> Tensor:
        """Fit so that the inverse brings z to mean 0 and deviation 1."""
        self._fit_once(z, inverse=True)
        return super().initialize_inverse(z, context)

    def _fit_once(self, values: Tensor, *, inverse: bool) -> None:
        if bool(self.initialized):
            return
        if not len(values) or not bool(torch.isfinite(values).all()):
            raise InputError(
                f"{self.name} cannot be initialized from {len(values)} rows"
                + (" that hold NaN or infinite values" if len(values) else "")
            )
        mean, var = moments(values, self.statistics)
        std = torch.where(var > 0, var, torch.ones_like(var)).sqrt()
        # z = (x - m) / s is run backwards as x = s z + m.
        self._fit(*((-mean / std, 1 / std) if inverse else (mean, std)))
        self.initialized.fill_(True)


@register
class Standardize(_Fitted):
    """z = (x - mean) / std, ladj = -sum log std; the statistics are fixed, those of the batch given to `initialize`.

    Fit it on the training split only; `diffeo.fit` does.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(self.statistics))
        self.register_buffer("std", torch.ones(self.statistics))

    def _fit(self, mean: Tensor, std: Tensor) -> None:
        self.mean.copy_(mean)
        self.std.copy_(std)

    def lipschitz_bounds(self) -> Bounds:
        return extremes(-self.std.log())

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return (x - self.mean) / self.std, self._expand(self.std.log(), x, -1)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return z * self.std + self.mean, self._expand(self.std.log(), z, 1)


@register
class ActNorm(_Fitted):
    """z = exp(s) (x + b) per entry of a vector or channel of an image, s and b learned; ladj = pixels * sum s.

    `initialize` sets them so that its batch comes out with mean 0 and variance 1. Kingma & Dhariwal, Glow, 2018,
    arXiv:1807.03039.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape)
        self.shift = nn.Parameter(torch.zeros(self.statistics))
        self.log_scale = nn.Parameter(torch.zeros(self.statistics))

    def _fit(self, mean: Tensor, std: Tensor) -> None:
        self.shift.copy_(-mean)
        self.log_scale.copy_(-std.log())

    def lipschitz_bounds(self) -> Bounds:
        return extremes(self.log_scale)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return (x + self.shift) * self.log_scale.exp(), self._expand(self.log_scale, x, 1)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return z * (-self.log_scale).exp() - self.shift, self._expand(self.log_scale, z, -1)


@register
class BatchNorm(Transform):
    """z = (x - m) / sqrt(v + eps) per entry or channel, ladj = -1/2 sum log(v + eps), over the changed entries.

    m and v are running averages, m <- rho m + (1 - rho) m_batch, used also while training, with gradients through the
    batch's share (rho 0: plain batch statistics). Training mode updates them and so couples the batch; eval mode is an
    exact bijection per example. partition: normalize only its changed part, as after a coupling. Dinh et al., Real NVP,
    2016, arXiv:1605.08803, appendix E.
    """

    properties = Properties(constant_ladj=True, couples_batch=True)

    def __init__(
        self,
        event_shape: Sequence[int],
        partition: Partition | Callable[[Shape], Partition] | None = None,
        *,
        rho: float = 0.9,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(event_shape)
        if partition is not None and not isinstance(partition, Partition):
            partition = partition(self.event_shape)
        if partition is not None and partition.event_shape != self.event_shape:
            raise ShapeError(
                f"{self.name} got a {type(partition).__name__} for {partition.event_shape}"
            )
        if not 0 <= rho < 1 or eps <= 0:
            raise InputError(
                f"{self.name} needs 0 <= rho < 1 and eps > 0, got rho {rho} and eps {eps}"
            )
        self.partition = partition
        self.rho = rho
        self.eps = eps
        changed = self.event_shape if partition is None else partition.changed_shape
        self.statistics = _per_channel(changed)
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(self.statistics))
        self.register_buffer("var", torch.ones(self.statistics))

    def lipschitz_bounds(self) -> Bounds:
        # As in eval mode; what a partition leaves stays as it is.
        first, second = extremes(-0.5 * (self.var + self.eps).log())
        if self.partition is None or first is None or second is None:
            return first, second
        return max(1.0, first), max(1.0, second)

    def _weight(self) -> Tensor | None:
        mask = None if self.partition is None else self.partition.mask()
        return None if mask is None else ~mask

    def _train_statistics(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = (
            m.to(self.mean.dtype) for m in moments(changed, self.statistics, self._weight())
        )
        mean = self.rho * self.mean + (1 - self.rho) * mean
        var = self.rho * self.var + (1 - self.rho) * var
        with torch.no_grad():
            self.mean.copy_(mean)
            self.var.copy_(var)
        return mean, var

    def _map(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        visible, changed = (x, x) if self.partition is None else self.partition.split(x)
        mean, var = (self.mean, self.var)
        if self.training and not inverse:
            mean, var = self._train_statistics(changed)
        std = (var + self.eps).sqrt()
        value = changed * std + mean if inverse else (changed - mean) / std
        log_std = std.log().expand(changed.shape[1:])[None]
        if self.partition is None:
            total = sum_event(log_std)
        else:
            total = self.partition.sum(log_std)
            value = self.partition.merge(x, visible, value)
        return value, (1 if inverse else -1) * total.to(x.dtype).expand(x.shape[0])

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._map(x, inverse=False)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self._map(z, inverse=True)

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "partition": self.partition,
            "rho": self.rho,
            "eps": self.eps,
        }
