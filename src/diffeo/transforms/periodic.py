"""Periodic convolution: an invertible d x d convolution on the torus, one small matrix at each frequency."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import register
from ..properties import Properties
from .base import Context, Transform
from .linear import random_rotation, wide


@register
class PeriodicConv(Transform):
    """z(i, j) = sum_{a, b} W_ab x(i + a, j + b), a and b from -r to r, on an image that goes on at its other side.

    The kernel is k x k, k = 2r + 1. The Fourier transform makes it z(u, v) = K(u, v) x(u, v), K a matrix over the
    channels, so ladj = sum_{u, v} log|det K(u, v)|, and the inverse solves one small system at each frequency. W starts
    as a random rotation at the centre. Its size does not depend on the image's. Hoogeboom, van den Berg & Welling,
    Emerging convolutions, 2019, arXiv:1901.11137, section 3.2.

    Raises ShapeError for events that are no images [C, H, W], ConfigError for an even kernel.
    """

    properties = Properties(constant_ladj=True)

    def __init__(self, event_shape: Sequence[int], kernel: int = 3) -> None:
        super().__init__(event_shape)
        if len(self.event_shape) != 3:
            raise ShapeError(f"{self.name} takes images [channels, height, width]")
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"{self.name} needs an odd kernel, got {kernel}")
        self.kernel = kernel
        n, centre = self.event_shape[0], kernel // 2
        weight = torch.zeros(n, n, kernel, kernel)
        weight[:, :, centre, centre] = random_rotation(n)
        self.weight = nn.Parameter(weight)

    def spectrum(self) -> Tensor:
        """K at the frequencies of rfft2 as real and imaginary parts, [2, H, W // 2 + 1, C, C]."""
        _, h, w = self.event_shape
        weight = wide(self.weight)
        offset = torch.arange(self.kernel, device=weight.device) - self.kernel // 2
        u = torch.arange(h, device=weight.device)
        v = torch.arange(w // 2 + 1, device=weight.device)
        # Whole turns are taken off in integers, where that is exact.
        rows = (u[:, None] * offset % h).to(weight.dtype) / h
        columns = (v[:, None] * offset % w).to(weight.dtype) / w
        angle = 2 * math.pi * (rows[:, None, :, None] + columns[None, :, None, :])
        waves = torch.stack((angle.cos(), angle.sin()))
        return torch.einsum("puvab,oiab->puvoi", waves, weight)

    def log_det(self) -> Tensor:
        """log|det| of the whole map, a number."""
        w = self.event_shape[2]
        # The real matrix of a complex one, [[A, -B], [B, A]], has the determinant |det(A + iB)|^2.
        log_dets = 0.5 * torch.linalg.slogdet(_real_matrix(self.spectrum()))[1]
        # Of a real signal's spectrum only half is stored: columns other than 0 and W / 2 stand for two.
        v = torch.arange(w // 2 + 1, device=log_dets.device)
        total: Tensor = (log_dets * torch.where((v == 0) | (2 * v == w), 1, 2)).sum()
        return total

    def _ladj(self, x: Tensor, sign: int) -> Tensor:
        return (sign * self.log_det()).to(x.dtype).expand(x.shape[0])

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            padded = x
            for axis, size in ((2, x.shape[2]), (3, x.shape[3])):
                # Not F.pad, which goes around at most once.
                around = torch.arange(-(self.kernel // 2), size + self.kernel // 2, device=x.device)
                padded = padded.index_select(axis, around % size)
            return F.conv2d(padded, self.weight.to(x.dtype)), self._ladj(x, 1)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if not z.shape[0]:
            # The Fourier transform of nothing is an error.
            return z.clone(), z.new_zeros(0)
        with torch.autocast(z.device.type, enabled=False):
            waves = torch.view_as_real(torch.fft.rfft2(wide(z)))
            # [B, C, H, W', 2] as columns of one real system at each frequency.
            right = waves.permute(2, 3, 4, 1, 0).flatten(2, 3)
            waves = self._solve(right).unflatten(2, (2, -1)).permute(4, 3, 0, 1, 2)
            x = torch.fft.irfft2(torch.view_as_complex(waves.contiguous()), s=z.shape[2:])
            return x.to(z.dtype), self._ladj(z, -1)

    def _solve(self, right: Tensor) -> Tensor:
        """K^-1 times columns [H, W', 2C, n], real parts above imaginary ones."""
        solved: Tensor = torch.linalg.solve(_real_matrix(self.spectrum()), right)
        return solved

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "kernel": self.kernel}

    def frozen(self) -> PeriodicConv:
        """The same map with log|det| and the inverse of every K as constants."""
        return _FixedPeriodicConv(self)


class _FixedPeriodicConv(PeriodicConv):
    inverses: Tensor
    constant: Tensor

    @torch.no_grad()
    def __init__(self, conv: PeriodicConv) -> None:
        Transform.__init__(self, conv.event_shape)
        self.kernel = conv.kernel
        self.weight = conv.weight
        exact = copy.deepcopy(conv).cpu().double()
        inverses = torch.linalg.inv(_real_matrix(exact.spectrum()))
        self.register_buffer("inverses", inverses.to(conv.weight))
        self.register_buffer("constant", exact.log_det().to(conv.weight))

    def log_det(self) -> Tensor:
        return self.constant

    def _solve(self, right: Tensor) -> Tensor:
        return wide(self.inverses).to(right.dtype) @ right


def _real_matrix(spectrum: Tensor) -> Tensor:
    """[[A, -B], [B, A]] for A + iB, [2, ..., C, C] to [..., 2C, 2C]: it does to (Re x, Im x) what A + iB does to x."""
    a, b = spectrum.unbind(0)
    return torch.cat((torch.cat((a, -b), -1), torch.cat((b, a), -1)), -2)
