"""Training data as batches: arrays, data sets and loaders, with context and weights per example."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError

CHUNK = 2**22  # entries that a check reads at a time


class Batch(NamedTuple):
    """The share of one process of the global batch of a step: rows start .. start + len(x) of `total`."""

    x: Tensor
    context: Any
    weights: Tensor | None
    step: int
    start: int
    total: int


class Rows:
    """Examples fetched a whole batch at a time by their indices; memory-mapped arrays stay where they are.

    context: as many rows, a dict of such, or a function of the rows x.
    """

    def __init__(self, x: Any, context: Any = None, weights: Any = None) -> None:
        self.x, self._cast = _source(x)
        self.context = (
            {k: as_tensor(v) for k, v in context.items()}
            if isinstance(context, dict)
            else context
            if context is None or callable(context)
            else as_tensor(context)
        )
        n = len(self.x)
        if n == 0:
            raise InputError("there are no rows to train on")
        self.weights = None if weights is None else _checked_weights(weights, n)
        contexts = self.context.values() if isinstance(self.context, dict) else [self.context]
        for c in contexts:
            if c is not None and not callable(c) and len(c) != n:
                raise InputError(f"there are {n} rows of data but {len(c)} rows of context")
        self._check_finite()

    def _check_finite(self) -> None:
        if not isinstance(self.x, Tensor) or not self.x.is_floating_point():
            return
        n, bad, first = len(self.x), 0, None
        size = max(1, CHUNK // max(1, self.x[0].numel()))
        for start in range(0, n, size):
            rows = ~torch.isfinite(self.x[start : start + size])
            found = rows.flatten(1).any(1).nonzero().flatten()
            if len(found):
                bad += len(found)
                first = start + int(found[0]) if first is None else first
        if bad:
            raise InputError(
                f"{bad} of {n} rows hold NaN or infinite values, first row {first}: remove or fill them"
            )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> tuple[Tensor, Any, Tensor | None]:
        if not isinstance(self.x, Tensor):
            return _items(self.x, index, self.weights)
        context: Any = None
        x = self.x[index]
        if isinstance(self.context, dict):
            context = {k: v[index] for k, v in self.context.items()}
        elif callable(self.context):
            context = self.context(x)
        elif self.context is not None:
            context = self.context[index]
        return (
            x if self._cast is None else x.to(self._cast),
            context,
            None if self.weights is None else self.weights[index],
        )

    def head(self, n: int) -> tuple[Tensor, Any]:
        """The first n rows and their contexts."""
        x, context, _ = self[torch.arange(min(n, len(self)))]
        return x, context

    def fingerprint(self) -> str:
        """A digest of the number of rows and of some of them, which tells other data apart."""
        n = len(self)
        x, _, _ = self[torch.linspace(0, n - 1, min(n, 64)).long()]
        content = x.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        return hashlib.sha256(f"{n} {tuple(x.shape)} {x.dtype}".encode() + content).hexdigest()


class Stream:
    """Batches without end from step `start`: shuffled under (seed, epoch), each process its share of every batch.

    What step s holds depends on seed and s alone, so a stream that starts at s goes on as if it had come from 0.
    """

    def __init__(self, rows: Rows, batch_size: int, *, seed: int, start: int = 0) -> None:
        self.rows = rows
        self.batch_size = min(batch_size, len(rows))
        self.seed = seed
        self.start = start

    @property
    def per_epoch(self) -> int:
        """Batches of one pass over the rows; the last may be smaller."""
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        n, size = len(self.rows), self.batch_size
        rank, world = place()
        first = self.start % self.per_epoch
        for epoch in itertools.count(self.start // self.per_epoch):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(n, generator=generator)
            for i in range(first, self.per_epoch):
                index = order[i * size : (i + 1) * size]
                low, high = share(len(index), rank, world)
                x, context, weights = self.rows[index[low:high]]
                step = epoch * self.per_epoch + i
                yield Batch(x, context, weights, step, low, len(index))
            first = 0


class Once:
    """The rows in their order, or the first `most` of them, in chunks, each process its share of every chunk."""

    def __init__(self, rows: Rows, size: int, most: int | None = None) -> None:
        self.rows = rows
        self.size = size
        self.count = len(rows) if most is None else min(most, len(rows))

    def __iter__(self) -> Iterator[Batch]:
        rank, world = place()
        for i, begin in enumerate(range(0, self.count, self.size)):
            total = min(self.size, self.count - begin)
            low, high = share(total, rank, world)
            x, context, weights = self.rows[slice(begin + low, begin + high)]
            yield Batch(x, context, weights, i, low, total)


class Repeated:
    """The batches of a loader, `epochs` times (None: without end); the loader shares them out among processes."""

    def __init__(self, batches: Any, epochs: int | None = None) -> None:
        self.batches = batches
        self.epochs = epochs

    @property
    def per_epoch(self) -> int | None:
        """Batches of one pass, where the loader knows."""
        try:
            return len(self.batches)
        except TypeError:
            return None

    def __iter__(self) -> Iterator[Batch]:
        rank, world = place()
        step = 0
        for epoch in itertools.count() if self.epochs is None else range(self.epochs):
            for name in ("sampler", "batch_sampler"):
                set_epoch = getattr(getattr(self.batches, name, None), "set_epoch", None)
                if set_epoch is not None:
                    set_epoch(epoch)
            before = step
            for batch in self.batches:
                x, context, weights = unpack(batch)
                yield Batch(x, context, weights, step, rank * len(x), world * len(x))
                step += 1
            if step == before:
                raise InputError("the loader gives no batch")


def place() -> tuple[int, int]:
    """Rank and number of the processes that train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def share(n: int, rank: int, world: int) -> tuple[int, int]:
    """First and one-past-last of the rows of `rank`, shares as equal as can be."""
    return n * rank // world, n * (rank + 1) // world


def unpack(batch: Any) -> tuple[Tensor, Any, Tensor | None]:
    """x, context and weights of a loader's batch: x, (x, context) or (x, context, weights)."""
    if isinstance(batch, Tensor):
        return batch, None, None
    x, context, *rest = [*batch, None] if len(batch) == 1 else batch
    if isinstance(context, Tensor) and context.numel() == 0:
        context = None
    return x, context, rest[0] if rest else None


def gather(data: Any, weights: Any = None, context: Any = None) -> Rows | DataLoader[Any]:
    """Whatever the user has, as rows, or the loader that they gave.

    Accepts an array or tensor [n, *event], a pair (x, context), a Dataset of x or (x, context), or a DataLoader.
    """
    if isinstance(data, DataLoader):
        if weights is not None or context is not None:
            raise InputError(
                "a DataLoader brings its own batches: give weights or context as arrays"
            )
        return data
    if isinstance(data, tuple) and len(data) == 2 and context is None:
        data, context = data
    if isinstance(data, Dataset) and context is not None:
        raise InputError("a Dataset brings its own context: let it give pairs (x, context)")
    return Rows(data, context, weights)


def _source(x: Any) -> tuple[Any, torch.dtype | None]:
    """Data as a tensor, or a Dataset as it is; and the dtype that batches are converted to."""
    if isinstance(x, Dataset):
        if not hasattr(x, "__len__"):
            raise InputError("a Dataset must have a length: wrap an iterable one in a DataLoader")
        return x, None
    if isinstance(x, Tensor):
        return x, None
    # Converted a batch at a time: an array on disk may be larger than memory.
    return (tensor := _as_is(x)), torch.get_default_dtype() if tensor.is_floating_point() else None


def _items(data: Any, index: Any, weights: Tensor | None) -> tuple[Tensor, Any, Tensor | None]:
    where = range(len(data))[index] if isinstance(index, slice) else index.tolist()
    items = [data[i] for i in where]
    context = None
    if items and isinstance(items[0], tuple | list):
        context = _stack([item[1] for item in items]) if len(items[0]) > 1 else None
        items = [item[0] for item in items]
    return _stack(items), context, None if weights is None else weights[index]


def _stack(items: Sequence[Any]) -> Any:
    if items and isinstance(items[0], dict):
        return {k: _stack([item[k] for item in items]) for k in items[0]}
    return torch.stack([as_tensor(item) for item in items]) if items else torch.empty(0)


def _checked_weights(weights: Any, n: int) -> Tensor:
    w = as_tensor(weights).float()
    if w.shape != (n,):
        raise InputError(f"weights must have one number per row, ({n},), got {tuple(w.shape)}")
    if bool((w < 0).any()) or not bool(torch.isfinite(w).all()):
        raise InputError("weights must be finite and not negative")
    if float(w.sum()) == 0:
        raise InputError("all weights are zero")
    return w


def as_tensor(value: Any) -> Tensor:
    """A tensor from an array; float64 arrays become the default dtype. Raises InputError for what has no numbers."""
    if isinstance(value, Tensor):
        return value
    tensor = _as_is(value)
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor


def _as_is(value: Any) -> Tensor:
    try:
        with warnings.catch_warnings():
            # An array that is mapped for reading only: nothing here writes into it.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"expected numbers in an array, got {type(value).__name__}: {error}"
        ) from error
