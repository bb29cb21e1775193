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
from .filling import STEPS, Filling, recorded
from .incremental import Layer, Progress, begin_block, give, step, sweep
from .mlp import context_size, flat_context, zero_
from .ordering import (
    CPU,
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
        self.register_buffer("mask", mask.to(self.weight), persistent=False)
        seen = mask.sum(1).clamp(min=1)[:, None]
        with torch.no_grad():
            self.weight.mul_((mask.shape[1] / seen).sqrt().to(self.weight))

    def masked_weight(self) -> Tensor:
        """W * mask."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.masked_weight(), self.bias)


class AutoregressiveConditioner(Conditioner):
    """A network from [batch, *event] to [batch, *event, P] whose output for an entry sees only entries before it.

    stages: the flat entries in groups; the output for a group depends on the groups before it, and on the context.
    Subclasses promise that; `diffeo.transforms.Autoregressive` takes any of them. incremental: whether the network can
    be evaluated stage by stage, by `start` and `step`.
    """

    stages: tuple[tuple[int, ...], ...]
    incremental = False

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

    def start(self, batch: int, context: Context = None) -> Any:
        """State of an evaluation stage by stage, before the first one; owned and passed on by the caller."""
        raise ConfigError(f"{type(self).__name__} has no incremental evaluation")

    def step(self, state: Any) -> Tensor:
        """Parameters of the next stage, [entries, batch, P]."""
        raise ConfigError(f"{type(self).__name__} has no incremental evaluation")

    def give(self, state: Any, entries: Tensor) -> None:
        """The entries of the stage that `step` was for, [entries, batch]; then comes the next."""
        raise ConfigError(f"{type(self).__name__} has no incremental evaluation")


class Masked(AutoregressiveConditioner):
    """Orders, causal graphs and masks; [x, context] as one vector, the parameters outermost in memory.

    The input of layer i > 0 is `_hidden(i, output of layer i - 1)`; `_skip(i)` is the layer whose output is added to
    that of layer i.
    """

    incremental = True
    layers: nn.ModuleList
    act: nn.Module
    drop: nn.Dropout

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
        seen = torch.eye(self.entries, dtype=torch.bool, device=CPU)
        free = seen.new_zeros((self.context_features, self.entries))
        seen = torch.cat([seen, free])
        layers: list[MaskedLinear] = []
        self.rows: list[list[int]] = []
        for width in widths:
            units = hidden_units(graph, width, self.context_features > 0)
            here = graph.patterns[units]
            known = graph.known[units]
            self.rows.append(torch.bincount(known, minlength=len(self.stages)).tolist())
            layers.append(MaskedLinear(may_feed(seen, here)))
            seen = here
        self.rows.append([self.per_entry * len(stage) for stage in self.stages])
        mask = may_feed(seen, graph.adjacency).repeat(self.per_entry, 1)
        return [*layers, MaskedLinear(mask)]

    def _input(self, x: Tensor, context: Context) -> Tensor:
        parts = [x.flatten(1), *flat_context(context, self.context_shape)]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        outputs: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            h = self._hidden(i, outputs[-1]) if i else self._input(x, context)
            skip = self._skip(i)
            outputs.append(layer(h) if skip is None else outputs[skip] + layer(h))
        return outputs[-1].reshape(x.shape[0], self.per_entry, *self.in_shape).movedim(1, -1)

    def _hidden(self, i: int, h: Tensor) -> Tensor:
        out: Tensor = self.act(h)
        return self.drop(out) if self._drops(i) else out

    def _drops(self, i: int) -> bool:
        return self.training and self.drop.p > 0

    def _skip(self, i: int) -> int | None:
        return None

    def start(
        self, batch: int, context: Context = None, *, sweeps: bool = False
    ) -> Progress | Filling:
        """State of an evaluation, for `step` and `give`; sweeps: a Progress, for blocks and `sweep`."""
        weights = [layer.masked_weight() for layer in self.layers]  # type: ignore[operator]
        biases = [layer.bias[:, None] for layer in self.layers]  # type: ignore[index]
        order = torch.tensor([i for stage in self.stages for i in stage], device=weights[0].device)
        if self.context_features:
            vectors = torch.cat(flat_context(context, self.context_shape), dim=1)
            biases[0] = biases[0] + weights[0][:, self.entries :] @ vectors.mT
        # Rows of the output are grouped by parameter; here, by entry.
        last = order[:, None] + self.entries * torch.arange(self.per_entry, device=order.device)
        weights[-1] = weights[-1].index_select(0, last.flatten())
        biases[-1] = biases[-1].index_select(0, last.flatten())
        weights[0] = weights[0].index_select(1, order)
        layers = [
            Layer(w, b, rows, self._skip(i))
            for i, (w, b, rows) in enumerate(zip(weights, biases, self.rows, strict=True))
        ]
        # Without the cost of calling a module, which here would be a good part of the whole.
        plain = not any(self._drops(i) for i in range(len(layers)))
        act = self.act.forward
        hidden = (lambda i, h: act(h)) if plain else self._hidden
        sizes = [len(stage) for stage in self.stages]
        if sweeps or recorded(weights[0].device.type):
            return Progress(layers, hidden, sizes, self.per_entry, batch)
        relu = plain and type(self.act) is nn.ReLU and all(layer.skip is None for layer in layers)
        return Filling(layers, hidden, sizes, self.per_entry, batch, relu=relu)

    def step(self, state: Progress | Filling) -> Tensor:
        if isinstance(state, Filling):
            return state.step()
        if state.stage == state.end:
            begin_block(state, STEPS)
        return step(state)

    def give(self, state: Progress | Filling, entries: Tensor) -> None:
        if isinstance(state, Filling):
            state.give(entries)
        else:
            give(state, entries)

    def sweep(self, state: Progress, entries: Tensor) -> Tensor:
        """Parameters [entries, batch, P] of the block that has begun, given guesses of its entries."""
        return sweep(state, entries)

    def config(self) -> dict[str, Any]:
        graph = self.graph
        given = tuple(range(self.entries)) == self.order
        return super().config() | {
            "order": "given" if given else self.order,
            "adjacency": None if self.order is not None else graph.adjacency.int().tolist(),
        }


@register
class MADE(Masked):
    """Masked MLP: [x, context] -> hidden layers -> (*event, P), entry i from the entries before it and the context.

    hidden: widths; each hidden unit sees what some entry sees, shared out equally. The context joins the first layer
    and reaches every hidden unit; some units see it alone. order: of the flat entries: `given`, `reverse`, `random` or
    indices; or adjacency: a matrix, `adjacency[i][j]` true where entry i sees entry j, of any acyclic graph.
    activation: as in MLP. dropout: after each hidden layer, in training mode. zero_init: the last layer is
    zero at first.

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

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "hidden": self.hidden,
            "activation": self.activation,
            "dropout": self.dropout,
            "zero_init": self.zero_init,
        }


@register
class ResidualMADE(Masked):
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

    def _drops(self, i: int) -> bool:
        return super()._drops(i) and self._skip(i) is not None

    def _skip(self, i: int) -> int | None:
        return i - 2 if i in range(2, 2 * self.blocks + 1, 2) else None

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "blocks": self.blocks,
            "activation": self.activation,
            "dropout": self.dropout,
            "zero_init": self.zero_init,
        }
