"""Who may see whom: orders and causal graphs of the entries of an event, and the hidden units that keep to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError

Order = str | Sequence[int]
CPU = torch.device("cpu")
"""Where who sees whom is worked out, also for a network on the meta device."""


@dataclass(frozen=True)
class Graph:
    """Which of n entries each entry may see.

    adjacency: [n, n], row i marks what entry i sees. stages: the entries, in groups; each group sees only the groups
    before it, so an inverse finds one group at a time. patterns: the distinct rows, in the order of the stage at which
    everything that they mark is known (`known`, [patterns]).
    """

    adjacency: Tensor
    stages: tuple[tuple[int, ...], ...]
    patterns: Tensor
    known: Tensor


def resolve_order(order: Order, n: int) -> tuple[int, ...]:
    """The entries, first to last: `given`, `reverse`, `random` (drawn now), or the indices themselves.

    Raises ConfigError if the indices are no permutation.
    """
    if order == "given":
        return tuple(range(n))
    if order == "reverse":
        return tuple(range(n - 1, -1, -1))
    if order == "random":
        return tuple(torch.randperm(n, device=CPU).tolist())
    if isinstance(order, str) or sorted(order) != list(range(n)):
        raise ConfigError(
            f"order must be given, reverse, random or the {n} indices of the entries, got {order!r}"
        )
    return tuple(int(i) for i in order)


def chain_graph(order: Sequence[int]) -> Graph:
    """Every entry sees all entries before it in the order."""
    n = len(order)
    index = torch.tensor(order, dtype=torch.long, device=CPU)
    patterns = torch.zeros(n, n, dtype=torch.bool, device=CPU)
    patterns[:, index] = torch.ones_like(patterns).tril(-1)
    adjacency = torch.zeros(n, n, dtype=torch.bool, device=CPU)
    adjacency[index] = patterns
    return Graph(adjacency, tuple((i,) for i in order), patterns, torch.arange(n, device=CPU))


def causal_graph(adjacency: Any, n: int) -> Graph:
    """A directed acyclic graph: `adjacency[i][j]` is true where entry i sees entry j.

    Raises ConfigError for another shape, or a cycle.
    """
    matrix = torch.as_tensor(adjacency, device=CPU).bool()
    if tuple(matrix.shape) != (n, n):
        raise ConfigError(
            f"adjacency must be a {n} x {n} matrix, one row for each entry, got {tuple(matrix.shape)}"
        )
    level = torch.full((n,), -1, device=CPU)
    missing = matrix.sum(1)
    stages: list[tuple[int, ...]] = []
    while bool((level < 0).any()):
        ready = (missing == 0) & (level < 0)
        if not bool(ready.any()):
            left = (level < 0).nonzero().flatten().tolist()
            raise ConfigError(f"adjacency has a cycle among the entries {left}")
        level[ready] = len(stages)
        stages.append(tuple(ready.nonzero().flatten().tolist()))
        missing = missing - matrix[:, ready].sum(1)
    patterns = torch.unique(matrix, dim=0) if n else matrix
    known = torch.where(patterns, level + 1, 0).amax(1) if n else level
    sort = (known * (n + 1) + patterns.sum(1)).argsort(stable=True)
    return Graph(matrix, tuple(stages), patterns[sort], known[sort])


def hidden_units(graph: Graph, width: int, context: bool) -> Tensor:
    """The pattern of each of `width` hidden units, [width], ascending: an equal share for every pattern.

    A unit that sees no entry is a constant, so there is none, but with a context: then an eighth of the units at least
    see the context alone, for entries that see nothing else.
    """
    n = len(graph.patterns)
    alone = width // 8 if context and n > 1 else 0
    first = 0 if context or n == 1 else 1
    n, rest = n - first, width - alone
    every = torch.arange(rest, device=CPU) * n // max(rest, 1)
    share = every if rest >= n else torch.linspace(0, n - 1, rest, device=CPU).round().long()
    return torch.cat([torch.zeros(alone, dtype=torch.long, device=CPU), first + share])


def may_feed(source: Tensor, target: Tensor) -> Tensor:
    """Whether everything that a unit sees may be seen by another, [targets, sources]; of patterns [units, entries]."""
    outside: Tensor = (~target).float() @ source.float().mT
    return outside == 0
