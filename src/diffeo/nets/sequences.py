"""A causal transformer: numbers for every place of a sequence from the places before it.

Vaswani et al. Attention is all you need. 2017, arXiv:1706.03762; layer normalization first: Xiong et al., 2020,
arXiv:2002.04745.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import register
from .base import Conditioner, Context
from .mlp import context_size, flat_context, zero_
from .ordering import CPU

Heard = tuple[Tensor, Tensor]
"""Keys and values [n, heads, places, width / heads]."""


class _Block(nn.Module):
    """h <- h + attention(norm h); h <- h + W2 gelu(W1 norm h)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asked = nn.Linear(width, 3 * width)
        self.told = nn.Linear(width, width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.act = nn.GELU()
        self.drop = nn.Dropout(dropout)

    def forward(
        self, h: Tensor, later: Tensor | None, past: Heard | None = None
    ) -> tuple[Tensor, Heard]:
        """h [n, t, width] after the block, and what its places tell later ones; past: what those before them told."""
        n, t, width = h.shape
        asked = self.asked(self.first(h)).reshape(n, t, 3, self.heads, width // self.heads)
        query, key, value = asked.permute(2, 0, 3, 1, 4).unbind(0)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        scores = query @ key.mT / math.sqrt(width // self.heads)
        if later is not None:
            scores = scores.masked_fill(later, -math.inf)
        heard = (scores.softmax(-1) @ value).transpose(1, 2).reshape(n, t, width)
        h = h + self.drop(self.told(heard))
        h = h + self.drop(self.narrow(self.act(self.wide(self.second(h)))))
        return h, (key, value)


class Progress(NamedTuple):
    """Where an evaluation place by place stands; every `step` gives a new one."""

    place: int
    given: Tensor | None
    heard: tuple[Heard | None, ...]


@register
class CausalTransformer(Conditioner):
    """[T, C] to [T, P]: row t of the output from the rows of the input before it, the place t, and the context.

    width, blocks, heads: of the attention; the layers between are 4 `width` wide. dropout: of what each layer adds, in
    training mode. The context goes through a linear layer and is added at every place. A shorter sequence gives the
    first rows of the output; `begin` and `step` give them one after another.

    Raises ShapeError for what is no sequence of rows, ConfigError for a width that the heads do not share evenly.
    """

    causal = True

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 64,
        blocks: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        zero_init: bool = True,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        if len(self.in_shape) != 2 or len(self.out_shape) != 2 or in_shape[0] != out_shape[0]:
            raise ShapeError(
                f"CausalTransformer goes from (places, C) to (places, P), got {self.in_shape} to {self.out_shape}"
            )
        if width < 1 or heads < 1 or width % heads or blocks < 0:
            raise ConfigError(
                f"CausalTransformer needs a width that {heads} heads share evenly and 0 or more blocks, got {width} "
                f"and {blocks}"
            )
        places = self.in_shape[0]
        self.width, self.blocks, self.heads = width, blocks, heads
        self.dropout, self.zero_init = dropout, zero_init
        self.inputs = nn.Linear(self.in_shape[1], width)
        # Where nothing comes before: an input of its own.
        self.start = nn.Parameter(torch.zeros(width))
        self.places = nn.Parameter(0.1 * torch.randn(places, width))
        features = context_size(self.context_shape)
        self.given = nn.Linear(features, width) if features else None
        self.layers = nn.ModuleList(_Block(width, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.last = nn.Linear(width, self.out_shape[1])
        if zero_init:
            zero_(self.last)
        self.later: Tensor
        later = torch.ones(places, places, dtype=torch.bool, device=CPU).triu(1)
        self.register_buffer("later", later.to(self.start.device), persistent=False)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        n, t = x.shape[:2]
        before = self.inputs(x[:, : t - 1])
        h = torch.cat([self.start_row(before, n), before], dim=1) + self.places[:t]
        given = self._given(context)
        h = self.drop(h if given is None else h + given)
        for block in self.layers:
            h, _ = block(h, self.later[:t, :t])
        out: Tensor = self.last(self.norm(h))
        return out

    def start_row(self, like: Tensor, n: int) -> Tensor:
        """What the first place reads, [n, 1, width]."""
        return self.start.to(like.dtype).expand(n, 1, self.width)

    def _given(self, context: Context) -> Tensor | None:
        if self.given is None:
            return None
        given: Tensor = self.given(torch.cat(flat_context(context, self.context_shape), dim=1))
        return given[:, None]

    def begin(self, context: Context = None) -> Progress:
        """An evaluation place by place, for `step`."""
        return Progress(0, self._given(context), (None,) * len(self.layers))

    def step(self, progress: Progress, before: Tensor) -> tuple[Tensor, Progress]:
        """Row [n, P] of the next place, from the input [n, C] before it, which the first place does not look at."""
        i, given, heard = progress
        h = self.inputs(before)[:, None] if i else self.start_row(before, before.shape[0])
        h = h + self.places[i]
        h = self.drop(h if given is None else h + given)
        told: list[Heard] = []
        for block, past in zip(self.layers, heard, strict=True):
            h, new = block(h, None, past)
            told.append(new)
        out: Tensor = self.last(self.norm(h))
        return out[:, 0], Progress(i + 1, given, tuple(told))

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "blocks": self.blocks,
            "heads": self.heads,
            "dropout": self.dropout,
            "zero_init": self.zero_init,
        }
