"""Linear maps and convolutions of a norm of at most a given number, by an iteration with a certificate.

A linear map W is divided by max(1, (1 + TOLERANCE) sigma / coeff), where sigma = u^T W v is the norm that an iteration
from the last u and v found: u and v are state, moved by `refresh` where weights have changed, so that forward is a
differentiable function of the weights, with the derivatives of the norm itself. Gouk et al., Regularisation of neural
networks by enforcing Lipschitz continuity, 2018, arXiv:1804.04368; Behrmann et al., Invertible residual networks, 2019,
arXiv:1811.00995; Chen et al., Residual flows, 2019, arXiv:1906.02735.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .lipschitz_layers import SWISH, Prepared, Slope
from .norms import dual, induced_bound
from .spectral import TOLERANCE, Spectral


class Exponents(nn.Module):
    """Learned p in (1, 5), 2 at first: 1 + 4 sigmoid(raw - log 3)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(count))

    def forward(self, index: int) -> Tensor:
        return 1 + 4 * torch.sigmoid(self.raw[index] - math.log(3))


Exponent = float | tuple[Exponents, int]
"""p of a norm: a number, or a place among learned ones."""


class Operator(Spectral):
    """y = W x + b with the induced norm ||W||_{p -> q} = max ||W x||_q / ||x||_p kept at most `coeff`.

    The norm is exact for p = 1, the largest q-norm of a column, and for q = inf, the largest p*-norm of a row, where
    1/p + 1/p* = 1; of a convolution with a stride or few pixels no column need be whole, and it is an upper bound. For
    p = q = 2 it is the greatest singular value, by conjugate gradients. Between these it is `induced_bound`: a power
    iteration would find a local maximum of ||W x||_q / ||x||_p only.
    """

    def __init__(self, coeff: float, p: Exponent, q: Exponent) -> None:
        super().__init__()
        if not coeff > 0:
            raise ConfigError(f"a Lipschitz coefficient must be positive, got {coeff}")
        for norm in (p, q):
            if not isinstance(norm, tuple) and not norm >= 1:
                raise ConfigError(f"a norm must be at least 1, got {norm}")
        self.lipschitz = self.coeff = coeff
        self.p, self.q = p, q
        self.euclidean = p == q == 2
        fixed = not isinstance(p, tuple) and not isinstance(q, tuple)
        self.spectral = not (fixed and (p == 1 or q == math.inf))

    def _norms(self) -> tuple[Any, Any]:
        """p and q, as numbers or, where they are learned, as tensors."""
        return _exponent(self.p), _exponent(self.q)

    def _columns(self, weight: Tensor) -> Tensor:
        """Every column of W, or a longer one that holds it, as a row."""
        return weight.transpose(0, 1).flatten(1)

    def sigma(self) -> Tensor:
        """The norm of W before scaling, as far as it is known: a differentiable function of W, p and q."""
        return self._bound(self.two_norm() if self.spectral else None, self.weight)

    def _bound(self, two: Tensor | None, weight: Tensor) -> Tensor:
        """The norm of W, or an upper bound, from its 2-norm."""
        if two is not None and self.euclidean:
            return two
        p, q = self._norms()
        columns, rows = self._columns(weight), weight.flatten(1)
        if two is None:
            return _longest(columns, q) if p == 1 else _longest(rows, dual(p))
        return induced_bound(p, q, two, columns, rows, (self.v.numel(), self.u.numel()))

    def effective(self, scale: Tensor | None = None) -> Tensor:
        """The weight that forward multiplies with, times `scale`."""
        if torch.is_autocast_enabled(self.weight.device.type):
            with torch.autocast(self.weight.device.type, enabled=False):
                return self.effective(scale)
        longer = ((1 + TOLERANCE) / self.coeff * self.sigma()).clamp(min=1)
        return self.weight / longer if scale is None else self.weight * (scale / longer)

    def prepare(
        self,
        shift: Tensor | None = None,
        before: Tensor | None = None,
        after: Tensor | None = None,
    ) -> Prepared:
        """Weight and bias; before, after: b of a LipSwish on that side that leaves its scales to this map."""
        bias = self.bias if shift is None else self.bias + shift
        scale = after if before is None else (1.0 if after is None else after) / (SWISH * before)
        return self.effective(scale), bias if after is None else bias * after

    def linearized(self, x: Tensor, prepared: Prepared) -> tuple[Tensor, Slope]:
        return self(x, prepared), None

    @torch.no_grad()
    def certified(self) -> float:
        w = self.effective().double()
        two = w.new_tensor(self._spectral(w)) if self.spectral else None
        return float(self._bound(two, w))

    def _spectral(self, weight: Tensor) -> float:
        """An upper bound on the 2-norm of the operator."""
        raise NotImplementedError


class LipschitzLinear(Operator):
    """y = W x + b on [batch, in_features]."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        coeff: float,
        p: Exponent = 2.0,
        q: Exponent = 2.0,
    ) -> None:
        super().__init__(coeff, p, q)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self._start(in_features, (in_features,), (out_features,))

    def forward(self, x: Tensor, prepared: Prepared) -> Tensor:
        weight, bias = prepared
        return F.linear(x, weight) + bias if bias.ndim > 1 else F.linear(x, weight, bias)

    def push(self, t: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        return F.linear(t, prepared[0])

    def pull(self, w: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        out: Tensor = w @ prepared[0]
        return out

    def _image(self, v: Tensor, weight: Tensor) -> Tensor:
        return weight @ v if weight.ndim == 2 else (weight @ v[..., None])[..., 0]

    def _back(self, u: Tensor, weight: Tensor) -> Tensor:
        return (u[:, None] @ weight)[:, 0]

    def _spectral(self, weight: Tensor) -> float:
        return float(torch.linalg.matrix_norm(weight, 2))


class LipschitzConv2d(Operator):
    """A convolution with zero padding of half the kernel, on [batch, C, H, W]; its norm is that of the whole operator.

    The iteration runs the convolution itself, with its padding and stride, on one input of the image's size. The
    certificate unrolls it up to UNROLLED inputs, and embeds it beyond in a periodic convolution on a larger torus,
    whose norm is the greatest one over its frequencies: Sedghi et al., The singular values of convolutional layers,
    2018, arXiv:1805.10408.
    """

    UNROLLED = 1024

    def __init__(
        self,
        in_shape: Sequence[int],
        out_channels: int,
        kernel: int,
        coeff: float,
        p: Exponent = 2.0,
        q: Exponent = 2.0,
        *,
        stride: int = 1,
    ) -> None:
        super().__init__(coeff, p, q)
        channels, *size = in_shape
        if kernel % 2 == 0 or kernel < 1 or stride < 1:
            raise ConfigError(f"a kernel must be odd and a stride positive: {kernel} and {stride}")
        self.stride, self.padding = stride, kernel // 2
        self.weight = nn.Parameter(torch.empty(out_channels, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))
        # Pixel by pixel, it is a matrix: one pixel tells its 2-norm.
        size = [1, 1] if kernel == stride == 1 and self.euclidean else size
        reduced = [(n - 1) // stride + 1 for n in size]
        self._start(channels * kernel**2, (channels, *size), (out_channels, *reduced))

    def alike(self) -> Any:
        return *super().alike(), self.stride

    def _convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1
    ) -> Tensor:
        return F.conv2d(x, weight, bias, stride=self.stride, padding=self.padding, groups=groups)

    def _transposed(
        self, y: Tensor, weight: Tensor, size: Sequence[int], groups: int = 1
    ) -> Tensor:
        kernel = weight.shape[2]
        more = [
            n - ((m - 1) * self.stride + kernel - 2 * self.padding)
            for n, m in zip(size, y.shape[2:], strict=True)
        ]
        return F.conv_transpose2d(
            y,
            weight,
            stride=self.stride,
            padding=self.padding,
            output_padding=more,
            groups=groups,
        )

    def forward(self, x: Tensor, prepared: Prepared) -> Tensor:
        weight, bias = prepared
        if bias.ndim == 1:
            return self._convolve(x, weight, bias)
        out: Tensor = self._convolve(x, weight) + bias[..., None, None]
        return out

    def linearized(self, x: Tensor, prepared: Prepared) -> tuple[Tensor, Slope]:
        return self(x, prepared), tuple(x.shape[2:])

    def push(self, t: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        out: Tensor = self._convolve(t.flatten(0, 1), prepared[0]).unflatten(0, t.shape[:2])
        return out

    def pull(self, w: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        out: Tensor = self._transposed(w.flatten(0, 1), prepared[0], slope).unflatten(
            0, w.shape[:2]
        )
        return out

    def _image(self, v: Tensor, weight: Tensor) -> Tensor:
        if weight.ndim == 4:
            return self._convolve(v[None], weight)[0]
        # The channels of each in a group of its own.
        found = self._convolve(v.flatten(0, 1)[None], weight.flatten(0, 1), groups=len(v))
        return found.reshape(len(v), *self.u.shape)

    def _back(self, u: Tensor, weight: Tensor) -> Tensor:
        joined = u.flatten(0, 1)[None], weight.flatten(0, 1)
        found = self._transposed(*joined, self.v.shape[1:], groups=len(u))
        return found.reshape(len(u), *self.v.shape)

    def _spectral(self, weight: Tensor) -> float:
        inputs = self.v.numel()
        if inputs <= self.UNROLLED:
            eye = torch.eye(inputs).to(weight).reshape(inputs, *self.v.shape)
            return float(torch.linalg.matrix_norm(self._convolve(eye, weight).flatten(1), 2))
        kernel = weight.shape[2]
        torus = [n + kernel - 1 for n in self.v.shape[1:]]
        waves = torch.fft.fft2(weight, s=torus).flatten(2).permute(2, 0, 1)
        if waves.shape[1] > waves.shape[2]:
            waves = waves.mH
        return float(torch.linalg.eigvalsh(waves @ waves.mH).amax().clamp(min=0).sqrt())


def _exponent(p: Exponent) -> Any:
    return p[0](p[1]) if isinstance(p, tuple) else p


def _longest(rows: Tensor, p: Any) -> Tensor:
    out: Tensor = torch.linalg.vector_norm(rows, p, dim=1).amax()
    return out
