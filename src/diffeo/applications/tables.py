"""Tables for a flow: opened in its units, cut into chunks, computed here or on Ray."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..data.given import given_of
from ..data.images import image_table, picture_files
from ..data.stream import Table, check_file, fingerprint, open_table
from ..data.strings import Strings, is_text, text_table
from ..data.typed import typed_table
from ..errors import ConfigError, DataError
from ..flow import Flow
from ..parts import Shape
from ..transforms.typed_columns import typed_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

ENGINES = ("local", "ray")
TYPED = (".csv", ".parquet")


def flow_levels(flow: Flow) -> int | None:
    """Number of levels of a flow over integers."""
    domain = flow.properties.domain
    return int(domain.high) + 1 if flow.discrete and domain is not None else None


@dataclass(frozen=True)
class Reading:
    """How a file or a folder of pictures becomes events, as in the recipe that the flow was trained by.

    columns: of a table, to use in this order. image_size (height, width), fit and channels: of pictures in a folder.
    bits: how many of 8 bits to keep. given: what a conditional model of pictures is given of each (see
    `diffeo.data.given_of`).
    """

    columns: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None
    fit: str = "resize"
    channels: int | None = None
    bits: int | None = None
    given: str | None = None

    def context(self, x: Tensor) -> Tensor | None:
        """What is given of rows x [n, *event]; None: nothing."""
        return None if self.given is None else given_of(x, self.given)


def open_for(flow: Flow, path: str | os.PathLike[str], reading: Reading | None = None) -> Table:
    """The table of a flow's events. Raises DataError for rows of another shape."""
    reading = reading or Reading()
    path, levels = Path(path).expanduser(), flow_levels(flow)
    typed = typed_columns(flow)
    if typed is not None and path.suffix.lower() in TYPED:
        # With the entries of what is given behind those of the event.
        return typed_table(path, typed.schema, strict=False)
    if path.is_dir():
        table = image_table(
            path,
            picture_files(path),
            image_size=reading.image_size,
            fit=reading.fit,
            channels=reading.channels,
        )
        table = replace(table, levels=levels)
    elif is_text(path) and check_file(path):
        table = text_table(path, Strings.of(flow))
    else:
        table = open_table(path, columns=reading.columns, levels=levels)
    if reading.bits is not None:
        table = replace(table, bits=reading.bits)
    return _fitting(table, flow.event_shape, "events")


def source_fingerprint(path: Path) -> str:
    """Equal for the same file, or folder of pictures."""
    if not path.is_dir():
        return fingerprint(path)
    state = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in picture_files(path)]
    return hashlib.sha256(repr(state).encode()).hexdigest()


def open_latents(flow: Flow, path: str | os.PathLike[str]) -> Table:
    """The table of a flow's latents: rows of its latent shape, or flat. Raises DataError for another shape."""
    table = open_table(path)
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
