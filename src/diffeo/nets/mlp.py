"""Multi-layer perceptrons: plain and residual, with the context joined to the input and the output zero at first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..parts import ContextShape, Shape, register
from .base import Conditioner, Context, activation


def context_size(shape: ContextShape) -> int:
    """Number of entries of a context, all tensors together."""
    if shape is None:
        return 0
    if isinstance(shape, dict):
        return sum(math.prod(s) for s in shape.values())
    return math.prod(shape)


def flat_context(context: Context, shape: ContextShape) -> list[Tensor]:
    """The tensors of a context as vectors, in the order of `shape`."""
    if shape is None:
        return []
    if context is None:
        raise ConfigError(f"this network was built for a context of shape {shape}, but got none")
    if isinstance(shape, dict):
        if not isinstance(context, dict):
            raise ConfigError(f"this network takes a dict of contexts with keys {', '.join(shape)}")
        return [context[k].flatten(1) for k in shape]
    if isinstance(context, dict):
        raise ConfigError(f"this network takes one context tensor of shape {shape}, but got a dict")
    return [context.flatten(1)]


class _Perceptron(Conditioner):
    """Flattens and joins input and context; gives [batch, *out_shape], stored with the last axis outermost."""

    def __init__(
        self, in_shape: Sequence[int], out_shape: Sequence[int], context_shape: Any
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        # With nothing to see, the network reads one constant zero: its output is then learned numbers.
        self.in_features = math.prod(self.in_shape) + context_size(self.context_shape)
        self.out_features = math.prod(self.out_shape)

    def _input(self, x: Tensor, context: Context) -> Tensor:
        parts = [x.flatten(1), *flat_context(context, self.context_shape)]
        parts = [p for p in parts if p.shape[1]]
        if not parts:
            return x.new_zeros((x.shape[0], 1))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _output(self, h: Tensor) -> Tensor:
        # Parameters outermost in memory: each of them is then a contiguous view.
        *event, last = self.out_shape
        return h.reshape(h.shape[0], last, *event).movedim(1, -1)


@register
class MLP(_Perceptron):
    """[x, context] -> hidden layers -> out_shape. The last layer is zero at first if `zero_init`.

    hidden: widths. activation: relu, leaky_relu, elu, gelu, silu, tanh, sigmoid or softplus. dropout: probability,
    after each hidden layer, in training mode only. irange: all other weights uniform in [-irange, irange], as in NICE.
    output_bias: whether the last layer has one.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        dropout: float = 0.0,
        zero_init: bool = True,
        irange: float | None = None,
        output_bias: bool = True,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        self.hidden: Shape = tuple(hidden)
        self.activation = activation
        self.dropout = dropout
        self.zero_init = zero_init
        self.irange = irange
        self.output_bias = output_bias
        layers: list[nn.Module] = []
        width = max(self.in_features, 1)
        for n in self.hidden:
            layers += [nn.Linear(width, n), _in_place(_activation(activation))]
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = n
        last = nn.Linear(width, self.out_features, bias=output_bias)
        self.layers = nn.Sequential(*layers, last)
        if irange is not None:
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    nn.init.uniform_(layer.weight, -irange, irange)
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
        if zero_init:
            zero_(last)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        return self._output(self.layers(self._input(x, context)))

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "hidden": self.hidden,
            "activation": self.activation,
            "dropout": self.dropout,
            "zero_init": self.zero_init,
            "irange": self.irange,
            "output_bias": self.output_bias,
        }


@register
class ResidualMLP(_Perceptron):
    """h = W [x, context]; h <- h + W2 act(W1 act(h)), `blocks` times; then act and a last layer, zero at first."""

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 64,
        blocks: int = 2,
        activation: str = "relu",
        dropout: float = 0.0,
        zero_init: bool = True,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        self.width = width
        self.activation = activation
        self.dropout = dropout
        self.zero_init = zero_init
        self.first = nn.Linear(max(self.in_features, 1), width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                _activation(activation),
                nn.Linear(width, width),
                _activation(activation),
                nn.Dropout(dropout),
                nn.Linear(width, width),
            )
            for _ in range(blocks)
        )
        self.last = nn.Sequential(_activation(activation), nn.Linear(width, self.out_features))
        if zero_init:
            zero_(self.last[1])

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        h = self.first(self._input(x, context))
        for block in self.blocks:
            h = h + block(h)
        return self._output(self.last(h))

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "blocks": len(self.blocks),
            "activation": self.activation,
            "dropout": self.dropout,
            "zero_init": self.zero_init,
        }


def _in_place(layer: nn.Module) -> nn.Module:
    """ReLU over its own input: the gradient of the linear layer before it does not need that value."""
    return nn.ReLU(inplace=True) if type(layer) is nn.ReLU else layer


def zero_(module: nn.Module) -> None:
    """Set every parameter of a module to zero, so that the layer that it feeds starts as the identity."""
    for p in module.parameters(recurse=False):
        nn.init.zeros_(p)


_activation = activation
