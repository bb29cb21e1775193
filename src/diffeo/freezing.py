"""Frozen flows: a fixed copy for sampling and scoring, in which what does not depend on the data is computed once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import torch
from torch import Tensor, nn

from .errors import ConfigError, TrainingError
from .flow import Flow
from .nets.convolutional import WeightNormConv
from .parts import refresh
from .properties import Properties
from .transforms import ActNorm, BatchNorm, Chain, Inverse, Permutation, Standardize, Transform
from .transforms.base import Context
from .transforms.linear import LinearMap, mix


class FrozenFlow(Flow):
    """What `Flow.frozen` returns: a flow with constant weights that cannot be trained, saved or resized."""

    def train(self, mode: bool = True) -> FrozenFlow:
        """Stay in eval mode. Raises TrainingError for training mode."""
        if mode:
            raise TrainingError("a frozen flow cannot be trained: train the flow it was made from")
        super().train(False)
        return self

    def frozen(self) -> FrozenFlow:
        return self

    def _refresh(self) -> None:
        return

    @property
    def described_as(self) -> NoReturn:
        """Raises ConfigError: its layers are not those of a configuration, which could be changed."""
        raise ConfigError(
            "a frozen flow cannot be changed: change the flow it was made from, and freeze that"
        )

    def save(self, folder: str | Path) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError(
            "a frozen flow cannot be saved: save the flow it was made from, and freeze it again when it is loaded"
        )

    def resized(self, event_shape: Sequence[int]) -> NoReturn:
        """Raises ConfigError."""
        raise ConfigError("a frozen flow cannot be resized: use flow.resized(event_shape).frozen()")

    def __enter__(self) -> FrozenFlow:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


def frozen(flow: Flow) -> FrozenFlow:
    """The copy that `Flow.frozen` describes."""
    twin = copy.deepcopy(flow).eval().requires_grad_(False)
    refresh(twin)
    transform = _folded(twin.transform)
    assert isinstance(transform, Transform)
    fast = FrozenFlow(
        transform, twin.base, embedding=twin.embedding, context_shape=twin.context_shape
    )
    fast.provenance = twin.provenance
    fast.eval()
    return fast


def _folded(module: nn.Module) -> nn.Module:
    """A module with its constants folded, all the way down: by its own `frozen()`, if it has one."""
    if isinstance(module, Chain):
        return Chain(module.event_shape, [_folded(part) for part in fused(_flat(module))])
    if isinstance(module, LinearMap):
        return module if isinstance(module, FixedLinear) else FixedLinear([module])
    if isinstance(module, WeightNormConv):
        return _plain(module)
    own = getattr(module, "frozen", None)
    if callable(own):
        replaced: nn.Module = own()
        return replaced
    for name, child in list(module._modules.items()):
        if child is not None:
            setattr(module, name, _folded(child))
    return module


def _plain(conv: WeightNormConv) -> nn.Conv2d:
    """The convolution with its normalized kernel as a constant."""
    weight = conv.weight().detach()
    out, inner, kernel, _ = weight.shape
    plain = nn.utils.skip_init(nn.Conv2d, inner, out, kernel, padding=kernel // 2)
    plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), conv.bias
    assert isinstance(plain, nn.Conv2d)
    return plain


def _flat(chain: Chain) -> Iterator[Transform]:
    """The parts of a chain, those of chains in it one by one; noise keeps its nested form."""
    for part in chain:
        if isinstance(part, Chain) and not part.stochastic:
            yield from _flat(part)
        else:
            yield part


def fused(parts: Iterable[Transform]) -> Iterator[Transform]:
    """The same map with every run of linear parts along the first axis as one FixedLinear, if one of them is a matrix.

    Runs of scalings and permutations alone stay: they are cheaper than a product with a matrix.
    """
    for linear, group in groupby(parts, _is_linear):
        run = list(group)
        if linear and any(isinstance(m, LinearMap) for part in run for m in part.modules()):
            yield FixedLinear(run)
        else:
            yield from run


def _is_linear(part: Transform) -> bool:
    """Whether a part is z = W x + b along the first axis, with constant W and b, in eval mode."""
    if isinstance(part, Inverse):
        return _is_linear(part.transform)
    if isinstance(part, Chain):
        return all(_is_linear(inner) for inner in part)
    if isinstance(part, BatchNorm):
        return part.partition is None
    return isinstance(part, LinearMap | Permutation | ActNorm | Standardize)


class FixedLinear(LinearMap):
    """z = W (x + b) along the first axis, ladj = positions * log|det W|: a run of linear parts, as constants.

    W, W^-1, b and log|det W| are computed in float64 and kept in the dtype of the parts.
    """

    weight: Tensor
    inverse_weight: Tensor
    shift: Tensor
    constant: Tensor

    @torch.no_grad()
    def __init__(self, parts: Sequence[Transform]) -> None:
        super().__init__(parts[0].event_shape)
        self.properties = reduce(Properties.then, (part.properties for part in parts))
        exact = Chain(self.event_shape, copy.deepcopy(list(parts))).cpu().double().eval()
        # Images of the origin and of the unit vectors, at one position: W^-1 and b are exact also for large means.
        ones = (1,) * (len(self.event_shape) - 1)
        points = torch.cat((torch.zeros(1, self.size), torch.eye(self.size))).double()
        backs = exact.inverse(points.reshape(-1, self.size, *ones))[0]
        units = torch.eye(self.size).double().reshape(-1, self.size, *ones)
        weight = exact(units + backs[:1])[0].flatten(1).mT
        tensors = (t for part in parts for t in (*part.parameters(), *part.buffers()))
        like = next(t for t in tensors if t.is_floating_point())
        for name, value in {
            "weight": weight,
            "inverse_weight": (backs[1:] - backs[:1]).flatten(1).mT,
            "shift": -backs[0],
            "constant": torch.linalg.slogdet(weight)[1],
        }.items():
            self.register_buffer(name, value.contiguous().to(like))

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            # Not W x + W b, in which large means would cancel only after rounding.
            return mix(x + self.shift.to(x.dtype), self.weight), self._ladj(x, 1)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(z.device.type, enabled=False):
            return mix(z, self.inverse_weight, -self.shift), self._ladj(z, -1)

    def matrix(self) -> Tensor:
        return self.weight

    def inverse_matrix(self) -> Tensor:
        return self.inverse_weight

    def log_det(self) -> Tensor:
        return self.constant
