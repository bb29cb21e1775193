"""Masked networks: the output for each entry depends on the entries before it, and on the whole context.

Germain, Gregor, Murray, Larochelle. MADE. 2015, arXiv:1502.03509. Residual blocks: Nash and Durkan, 2019,
arXiv:1904.05626.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import Shape, register
from .base import Conditioner, Context
from .base import activation as make_activation
from .mlp import context_size, flat_context, zero_
from .ordering import (
    Graph,
    Order,
    causal_graph,
    chain_graph,
    hidden_units,
    may_feed,
    resolve_order,
)


class MaskedLinear(nn.Linear):
    """y = (W * mask) x + b; mask is [outputs, inputs]. Rows start at the scale of the inputs that they see."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.mask: Tensor
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)
        seen = mask.sum(1).clamp(min=1)[:, None]
        with torch.no_grad():
            self.weight.mul_((mask.shape[1] / seen).sqrt())

    def masked_weight(self) -> Tensor:
        """W * mask."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.masked_weight(), self.bias)


class AutoregressiveConditioner(Conditioner):
    """A network from [batch, *event] to [batch, *event, P] whose output for an entry sees only entries before it.

    stages: the flat entries in groups; the output for a group depends on the groups before it, and on the context.
    Subclasses promise that; `diffeo.transforms.Autoregressive` takes any of them.
    """

    stages: tuple[tuple[int, ...], ...]

    def __init__(
        self, in_shape: Sequence[int], out_shape: Sequence[int], context_shape: Any = None
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        if self.out_shape[:-1] != self.in_shape or not self.out_shape:
            raise ShapeError(
                f"{type(self).__name__} gives numbers for each entry, (*in_shape, P), got {self.in_shape} to "
                f"{self.out_shape}"
            )
        self.entries = math.prod(self.in_shape)
        self.per_entry = self.out_shape[-1]


class _Masked(AutoregressiveConditioner):
    """Orders, causal graphs and masks; [x, context] as one vector, the parameters outermost in memory."""

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any,
        order: Order | None,
        adjacency: Any,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        if order is not None and adjacency is not None:
            raise ConfigError(f"{type(self).__name__} takes an order or an adjacency, not both")
        self.order: Shape | None = None
        if adjacency is None:
            self.order = resolve_order("given" if order is None else order, self.entries)
            graph = chain_graph(self.order)
        else:
            graph = causal_graph(adjacency, self.entries)
        self.graph = graph
        self.stages = graph.stages
        self.context_features = context_size(self.context_shape)

    def _layers(self, widths: Sequence[int]) -> list[MaskedLinear]:
        """Masked layers from [x, context] through hidden layers of these widths to the output."""
        graph: Graph = self.graph
        seen = torch.eye(self.entries, dtype=torch.bool)
        free = torch.zeros(self.context_features, self.entries, dtype=torch.bool)
        seen = torch.cat([seen, free])
        layers: list[MaskedLinear] = []
        for width in widths:
            units = hidden_units(graph, width, self.context_features > 0)
            here = graph.patterns[units]
            layers.append(MaskedLinear(may_feed(seen, here)))
            seen = here
        mask = may_feed(seen, graph.adjacency).repeat(self.per_entry, 1)
        return [*layers, MaskedLinear(mask)]

    def _input(self, x: Tensor, context: Context) -> Tensor:
        parts = [x.flatten(1), *flat_context(context, self.context_shape)]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _output(self, h: Tensor) -> Tensor:
        return h.reshape(h.shape[0], self.per_entry, *self.in_shape).movedim(1, -1)

    def config(self) -> dict[str, Any]:
        graph = self.graph
        given = tuple(range(self.entries)) == self.order
        return super().config() | {
            "order": "given" if given else self.order,
            "adjacency": None if self.order is not None else graph.adjacency.int().tolist(),
        }


@register
class MADE(_Masked):
    """Masked MLP: [x, context] -> hidden layers -> (*event, P), entry i from the entries before it and the context.

    hidden: widths; each hidden unit sees what some entry sees, shared out equally. The context joins the first layer
    and reaches every hidden unit; some units see it alone. order: of the flat entries: `given`, `reverse`, `random` or
    indices; or adjacency: a matrix, adjacency[i][j] true where entry i sees entry j, of any acyclic graph. activation:
    as in MLP. dropout: after each hidden layer, in training mode. zero_init: the last layer is zero at first.

    Raises ConfigError for an order that is no permutation, or a graph with a cycle.
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
        order: Order | None = None,
        adjacency: Any = None,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape, order, adjacency)
        self.hidden: Shape = tuple(hidden)
        self.activation = activation
        self.dropout = dropout
        self.zero_init = zero_init
        self.layers = nn.ModuleList(self._layers(self.hidden))
        self.act = make_activation(activation)
        self.drop = nn.Dropout(dropout)
        if zero_init:
            zero_(self.layers[-1])

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        h = self._input(x, context)
        for layer in self.layers[:-1]:
            h = self.drop(self.act(layer(h)))
        return self._output(self.layers[-1](h))

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "hidden": self.hidden,
            "activation": self.activation,
            "dropout": self.dropout,
            "zero_init": self.zero_init,
        }


@register
class ResidualMADE(_Masked):
    """Masked residual MLP: h = W [x, context]; h <- h + W2 act(W1 act(h)), `blocks` times; act and a last layer.

    All layers have the same `width` and each unit sees the same entries in all of them. The rest as in MADE.
    """

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
        order: Order | None = None,
        adjacency: Any = None,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape, order, adjacency)
        self.width = width
        self.blocks = blocks
        self.activation = activation
        self.dropout = dropout
        self.zero_init = zero_init
        self.layers = nn.ModuleList(self._layers((width,) * (1 + 2 * blocks)))
        self.act = make_activation(activation)
        self.drop = nn.Dropout(dropout)
        if zero_init:
            zero_(self.layers[-1])

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        h = self.layers[0](self._input(x, context))
        for i in range(self.blocks):
            inner = self.layers[1 + 2 * i](self.act(h))
            h = h + self.layers[2 + 2 * i](self.drop(self.act(inner)))
        return self._output(self.layers[-1](self.act(h)))

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "blocks": self.blocks,
            "activation": self.activation,
            "dropout": self.dropout,
            "zero_init": self.zero_init,
        }
