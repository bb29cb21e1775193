"""Tables for a flow: opened in its units, cut into chunks, computed here or on Ray."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..data.stream import Table, open_table
from ..errors import ConfigError, DataError
from ..flow import Flow
from ..parts import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

ENGINES = ("local", "ray")


def flow_levels(flow: Flow) -> int | None:
    """Number of levels of a flow over integers."""
    domain = flow.properties.domain
    return int(domain.high) + 1 if flow.discrete and domain is not None else None


def open_for(
    flow: Flow, path: str | os.PathLike[str], columns: Sequence[str] | None = None
) -> Table:
    """The table of a flow's events. Raises DataError for rows of another shape."""
    table = open_table(path, columns=columns, levels=flow_levels(flow))
    return _fitting(table, flow.event_shape, "events")


def open_latents(
    flow: Flow, path: str | os.PathLike[str], columns: Sequence[str] | None = None
) -> Table:
    """The table of a flow's latents: rows of its latent shape, or flat. Raises DataError for another shape."""
    table = open_table(path, columns=columns)
    flat = (math.prod(flow.latent_shape),)
    return table if table.event_shape == flat else _fitting(table, flow.latent_shape, "latents")


def _fitting(table: Table, shape: Shape, what: str) -> Table:
    if table.event_shape != shape:
        raise DataError(
            f"{table.path} holds rows of shape {table.event_shape}, but this model's {what} have shape {shape}"
        )
    return table


def check_engine(engine: str) -> None:
    """Raise ConfigError for an unknown engine, or one that is not installed."""
    if engine not in ENGINES:
        raise ConfigError(f"engine must be {' or '.join(ENGINES)}, got {engine!r}")
    if engine == "ray":
        from ..integrations.ray import check_installed

        check_installed()


def ordered_map(
    make: Callable[[], Callable[[int], Array]], starts: Sequence[int], engine: str
) -> Iterator[Array]:
    """make()(start) for each start, in order, by the engine."""
    if engine == "ray":
        from ..integrations import ray

        return ray.ordered_map(make, starts)
    return map(make(), starts)


class Forward:
    """Chunks of a table by their start, reading on from one to the next where that is cheaper than seeking."""

    def __init__(self, open_: Callable[[], Table], size: int) -> None:
        self.table = open_()
        self.size = size
        self.batches: Iterator[Array] = iter(())
        self.at = -1

    def __call__(self, start: int) -> Array:
        # A text file, whose number of rows is unknown, is always read from its beginning.
        seek = start > self.at and self.table.rows is not None
        if self.at < 0 or start < self.at or seek:
            self.batches, self.at = self.table.batches(self.size, start), start
        while self.at < start:
            self.at += len(next(self.batches))
        x = next(self.batches)
        self.at += len(x)
        return x


def check_rows(table: Table) -> int:
    """The number of rows, all of them read and checked. Raises DataError for the first that cannot be used."""
    rows = sum(len(x) for x in table.batches(2**14 // max(1, math.prod(table.event_shape)) + 1))
    if not rows:
        raise DataError(f"{table.path} holds no row")
    return rows
