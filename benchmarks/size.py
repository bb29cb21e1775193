"""What all contestants share: sizes, what is timed, and the networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    """Of the events, the batch and the networks; bins: of rational-quadratic splines, 0 for affine couplings."""

    features: int
    batch: int
    layers: int = 8
    width: int = 128
    bins: int = 0

    def __str__(self) -> str:
        kind = f"spline couplings ({self.bins} bins)" if self.bins else "couplings"
        return f"D={self.features}, batch {self.batch}, {self.layers} {kind}, MLP 2x{self.width}"


@dataclass(frozen=True)
class Contestant:
    """A model with the two functions that are timed; a train step is `-log_prob(x).mean()`, its gradient, and Adam."""

    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[], Tensor]


def mlp(inputs: int, outputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )


def bare_networks(size: Size, outputs: int) -> Contestant:
    """The networks of the couplings alone, each on half of the input: the floor."""
    half = size.features // 2
    nets = nn.ModuleList(mlp(half, outputs, size.width) for _ in range(size.layers))
    noise = torch.randn(size.batch, half)

    def run(x: Tensor) -> Tensor:
        return torch.stack([net(x[:, :half]).sum(1) for net in nets]).sum(0)

    return Contestant(nets, run, lambda: run(noise))


def as_context_net(size: Size) -> Callable[[int, int], nn.Module]:
    """The same network for libraries that call it with a context."""

    class Plain(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.net = mlp(inputs, outputs, size.width)

        def forward(self, x: Tensor, context: object = None) -> Tensor:
            return self.net(x)

    return Plain
