"""A file as rows of numbers, read in blocks: what every reader returns and everything else works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .checks import Place, as_float32, as_levels, check_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

IMAGE_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Block:
    """Consecutive rows: values [n, *event] as they are in the file, and the line of each row of a text file."""

    values: Array
    lines: Sequence[int] | None = None


@dataclass(frozen=True)
class Table:
    """Rows of one shape in a file, read in its order and in constant memory."""

    path: Path
    columns: tuple[str, ...] | None
    rows: int | None  # None where only reading would tell
    event_shape: tuple[int, ...]
    real: bool  # float in the file; else integers
    blocks: Callable[[int, int], Iterator[Block]]  # of at most so many rows, from a row on
    levels: int | None = None  # None: real numbers
    bits: int | None = None  # keep so many of 8 bits: floor(x / 2^(8 - bits))
    name: str = ""  # in messages, instead of the path

    def batches(self, size: int, start: int = 0) -> Iterator[Array]:
        """Checked rows [size, *event] from row `start` on, the last batch perhaps shorter.

        float32; or integers in 0..levels-1, uint8 up to 256 levels and else int64.
        DataError in one sentence with row and column for a row that cannot be used.
        """
        import numpy as np

        check_number("size", size, 1)
        check_number("start", start, 0)
        waiting: list[Array] = []
        count, row = 0, start
        for block in self.blocks(start, size):
            values = self._checked(block, row)
            row += len(values)
            while count + len(values) >= size:
                take = size - count
                yield np.concatenate([*waiting, values[:take]]) if waiting else values[:take]
                values, waiting, count = values[take:], [], 0
            if len(values):
                waiting.append(values)
                count += len(values)
        if waiting:
            yield np.concatenate(waiting)

    def _checked(self, block: Block, row: int) -> Array:
        place = Place(self.name or str(self.path), row, block.lines, self.columns)
        if self.levels is None:
            return as_float32(block.values, place)
        if self.bits is None:
            return as_levels(block.values, self.levels, place)
        return as_levels(block.values, 256, place) >> (8 - self.bits)

    def with_levels(self, levels: int | None) -> tuple[Table, str]:
        """The same rows as integers 0..levels-1 where levels are given, images with channels first, and a note."""
        made = replace(self, levels=levels)
        shape = self.event_shape
        if len(shape) == 2 and levels is not None:
            return _rearranged(made, (1, *shape), lambda x: x[:, None]), _note("H, W", "1, H, W")
        if len(shape) == 3 and shape[-1] in IMAGE_CHANNELS and shape[0] not in IMAGE_CHANNELS:
            moved = (shape[2], *shape[:2])
            return _rearranged(made, moved, _channels_first), _note("H, W, C", "C, H, W")
        return made, ""


def _rearranged(
    table: Table, event_shape: tuple[int, ...], change: Callable[[Array], Array]
) -> Table:
    def blocks(start: int, size: int) -> Iterator[Block]:
        for block in table.blocks(start, size):
            yield Block(change(block.values), block.lines)

    return replace(table, event_shape=event_shape, blocks=blocks)


def _channels_first(x: Array) -> Array:
    moved: Array = x.transpose(0, 3, 1, 2)
    return moved


def _note(before: str, after: str) -> str:
    return f"[n, {before}] turned into [n, {after}]"


def array_table(path: Path, value: Array, name: str = "") -> Table:
    """A table of an array [n, *event] in memory or memory-mapped. Raises DataError for what holds no real numbers."""
    name = name or str(path)
    if value.dtype.kind not in "biuf":
        raise DataError(f"{name} holds values of dtype {value.dtype}, expected real numbers.")
    if value.ndim == 0:
        raise DataError(f"{name} holds a single number, expected an array [n, ...] of n rows.")
    if 0 in value.shape[1:]:
        raise DataError(
            f"{name} has rows of the shape {list(value.shape[1:])}, which hold nothing."
        )
    rows = value[:, None] if value.ndim == 1 else value

    def blocks(start: int, size: int) -> Iterator[Block]:
        for first in range(start, len(rows), size):
            yield Block(rows[first : first + size])

    return Table(
        path, None, len(rows), tuple(rows.shape[1:]), value.dtype.kind == "f", blocks, name=name
    )
