"""Block neural autoregressive transform: one masked network, increasing in x_i block by block.

De Cao, Titov, Aziz. Block neural autoregressive flow. 2019, arXiv:1904.04676.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..families.numeric import NumericInverse, solve
from ..nets.mlp import context_size, flat_context
from ..parts import register
from .base import Context, Transform

Weights = tuple[Tensor, Tensor]


class _BlockLinear(nn.Module):
    """Rows in `blocks` blocks of `outputs`, columns in blocks of `inputs`: free entries below the diagonal blocks,
    exp(.) in them, zero above; every row has norm exp(gain)."""

    def __init__(self, blocks: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shape = (blocks, outputs, blocks, inputs)
        weight = torch.randn(self.shape) / math.sqrt(inputs)
        index = torch.arange(blocks)
        # In the diagonal blocks a row starts with sum of squares near 1, as the rest of it does.
        weight[index, :, index] = -0.5 * math.log(inputs) + 0.2 * torch.randn(outputs, inputs)
        self.weight = nn.Parameter(weight.reshape(blocks * outputs, blocks * inputs))
        self.gain = nn.Parameter(torch.zeros(blocks * outputs))
        self.bias = nn.Parameter(torch.empty(blocks * outputs).uniform_(-1, 1))
        on = torch.eye(blocks, dtype=torch.bool)
        below = torch.ones(blocks, blocks, dtype=torch.bool).tril(-1)
        self.on: Tensor
        self.below: Tensor
        for name, mask in (("on", on), ("below", below)):
            grid = mask[:, None, :, None].expand(self.shape).reshape(self.weight.shape)
            self.register_buffer(name, grid, persistent=False)

    def weights(self) -> Weights:
        """The matrix, and the logs of its diagonal blocks, [blocks, outputs, inputs]."""
        nothing = torch.zeros_like(self.weight)
        positive = torch.where(self.on, self.weight, nothing).exp()
        w = torch.where(self.on, positive, torch.where(self.below, self.weight, nothing))
        log_norm = self.gain - 0.5 * w.square().sum(1).log()
        log_w = (self.weight + log_norm[:, None]).view(self.shape).diagonal(dim1=0, dim2=2)
        return w * log_norm.exp()[:, None], log_w.movedim(-1, 0)


def _log_matvec(log_w: Tensor, log_v: Tensor) -> Tensor:
    """log of W v for positive entries: [..., O, I] and [batch, ..., I] to [batch, ..., O], by the largest terms."""
    row, most = log_w.amax(-1, keepdim=True).detach(), log_v.amax(-1, keepdim=True).detach()
    w, v = (log_w - row).exp(), (log_v - most).exp()
    return torch.einsum("...oi,b...i->b...o", w, v).log() + row[..., 0] + most


def _log_dtanh(h: Tensor) -> Tensor:
    return 2 * (math.log(2) - h - F.softplus(-2 * h))


@register
class BlockAutoregressive(Transform):
    """z = s net(x) + (1 - s) x, net_i increasing in x_i and without x_j for j > i; ladj = sum log dz_i/dx_i.

    net is a tanh network with `width` units for each entry in every one of `layers` hidden layers: positive weights
    from the units of entry i to those of entry i, free ones from earlier entries and the context. The derivative is a
    product of positive matrices, in logs. Networks of tanh have a bounded image, so that the density would not
    integrate to 1: the gate s = sigmoid(learned), 1/2 at first, keeps the map onto the whole space.

    event_shape: any; entries are those of the flat event. The inverse finds entry by entry a root of the units of that
    entry, and raises ConvergenceError where there is none.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        width: int = 10,
        layers: int = 1,
        context_shape: Any = None,
    ) -> None:
        super().__init__(event_shape, context_shape=context_shape)
        if width < 1 or layers < 1:
            raise ConfigError(
                f"{self.name} needs width and layers of at least 1, got {width} and {layers}"
            )
        self.width = width
        self.entries = math.prod(self.event_shape)
        widths = (1, *(width for _ in range(layers)), 1)
        self.layers = nn.ModuleList(_BlockLinear(self.entries, a, b) for a, b in pairwise(widths))
        self.free: nn.Module | None = None
        if self.context_shape is not None:
            features = context_size(self.context_shape)
            self.free = nn.Linear(features, self.entries * width, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))
        self.properties = replace(
            self.properties, inverse="iterative", bias=NumericInverse.properties.bias
        )

    def _biases(self, x: Tensor, context: Context) -> list[Tensor]:
        """[batch or 1, blocks * outputs] of each layer; the context enters the first."""
        biases: list[Tensor] = [layer.bias[None] for layer in self.layers]  # type: ignore[index]
        if self.free is not None:
            given = torch.cat(flat_context(context, self.context_shape), 1).to(x.dtype)
            biases[0] = biases[0] + self.free(given)
        return biases

    def _weights(self) -> list[Weights]:
        return [layer.weights() for layer in self.layers]  # type: ignore[operator]

    def _gated(self, x: Tensor, value: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        s = self.gate.sigmoid()
        kept = F.logsigmoid(-self.gate).expand_as(log_slope)
        return s * value + (1 - s) * x, torch.logaddexp(F.logsigmoid(self.gate) + log_slope, kept)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        flat = x.flatten(1)
        # The network is the flow's own arithmetic: full precision under autocast.
        with torch.autocast(x.device.type, enabled=False):
            h, slope = flat, torch.zeros_like(flat)[..., None]
            biases = self._biases(x, context)
            for k, (w, log_w) in enumerate(self._weights()):
                if k:
                    slope = slope + _log_dtanh(h).reshape(slope.shape)
                    h = h.tanh()
                h, slope = F.linear(h, w) + biases[k], _log_matvec(log_w, slope)
            z, slope = self._gated(flat, h, slope[..., 0])
        return z.reshape(x.shape), slope.sum(1)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        flat = z.flatten(1)
        with torch.autocast(z.device.type, enabled=False):
            weights, biases = self._weights(), self._biases(z, context)
            # What each layer reads from the entries already found.
            seen = [flat[:, :0] for _ in weights]
            found, total = [], flat.new_zeros(len(flat))
            for i in range(self.entries):
                own = []
                for (w, log_w), bias, known in zip(weights, biases, seen, strict=True):
                    n = log_w.shape[1]
                    rows = slice(i * n, (i + 1) * n)
                    shift = F.linear(known, w[rows, : known.shape[1]]) + bias[:, rows]
                    n_in = log_w.shape[2]
                    own.append((shift, w[rows, i * n_in : (i + 1) * n_in], log_w[i]))

                def entry(x: Tensor, own: list[Any] = own) -> tuple[Tensor, Tensor]:
                    value, slope, _ = _one_entry(x, own)
                    return self._gated(x, value, slope)

                x, ladj = solve(entry, flat[:, i], name=f"{self.name}, entry {i}")
                reads = _one_entry(x, own)[2]
                seen = [torch.cat(pair, 1) for pair in zip(seen, reads, strict=True)]
                found.append(x)
                total = total + ladj
        x = torch.stack(found, 1) if found else flat
        return x.reshape(z.shape), total

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "layers": len(self.layers) - 1,
            "context_shape": self.context_shape,
        }

    def extra_repr(self) -> str:
        return f"width={self.width}, layers={len(self.layers) - 1}"


def _one_entry(
    x: Tensor, own: list[tuple[Tensor, Tensor, Tensor]]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The network's output and log-slope for one entry x [batch], from the shift, the block and its log for each layer;
    and what each layer reads."""
    h, slope = x[:, None], torch.zeros_like(x)[:, None]
    reads = []
    for k, (shift, w, log_w) in enumerate(own):
        if k:
            slope = slope + _log_dtanh(h)
            h = h.tanh()
        reads.append(h)
        h, slope = shift + F.linear(h, w), _log_matvec(log_w, slope)
    return h[:, 0], slope[:, 0], reads
