"""Training data as batches: arrays, data sets and loaders, with context and weights per example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import InputError

# x, context (or an empty tensor), weight per example
Batch = tuple[Tensor, Any, Tensor]


class Rows(Dataset[Batch]):
    """Examples in memory, fetched a whole batch at a time by its indices."""

    def __init__(self, x: Any, context: Any = None, weights: Any = None) -> None:
        self.x = as_tensor(x)
        self.context = (
            {k: as_tensor(v) for k, v in context.items()}
            if isinstance(context, dict)
            else None
            if context is None
            else as_tensor(context)
        )
        n = len(self.x)
        if n == 0:
            raise InputError("there are no rows to train on")
        self.weights = torch.ones(n) if weights is None else as_tensor(weights).float()
        if self.weights.shape != (n,):
            raise InputError(
                f"weights must have one number per row, ({n},), got {tuple(self.weights.shape)}"
            )
        if bool((self.weights < 0).any()) or not bool(torch.isfinite(self.weights).all()):
            raise InputError("weights must be finite and not negative")
        if float(self.weights.sum()) == 0:
            raise InputError("all weights are zero")
        contexts = self.context.values() if isinstance(self.context, dict) else [self.context]
        for c in contexts:
            if c is not None and len(c) != n:
                raise InputError(f"there are {n} rows of data but {len(c)} rows of context")
        if self.x.is_floating_point():
            bad = (~torch.isfinite(self.x)).flatten(1).any(1).nonzero().flatten()
            if len(bad):
                raise InputError(
                    f"{len(bad)} of {n} rows hold NaN or infinite values, first row {int(bad[0])}: remove or fill them"
                )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Batch:
        context: Any = torch.empty(0)
        if isinstance(self.context, dict):
            context = {k: v[index] for k, v in self.context.items()}
        elif self.context is not None:
            context = self.context[index]
        return self.x[index], context, self.weights[index]

    def head(self, n: int) -> tuple[Tensor, Any]:
        """The first n rows and their contexts."""
        x, context, _ = self[slice(0, n)]
        return x, context if self.context is not None else None


class Batches(Sampler[Tensor]):
    """Indices of whole batches: shuffled under (seed, epoch), the last batch kept unless it would be a single row."""

    def __init__(self, n: int, batch_size: int, *, shuffle: bool, seed: int = 0) -> None:
        self.n = n
        self.batch_size = min(batch_size, n)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.arange(self.n)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.n, generator=generator)
        yield from order.split(self.batch_size)


def loader(rows: Rows, batch_size: int, *, shuffle: bool, seed: int = 0) -> DataLoader[Batch]:
    """A loader that fetches whole batches from memory."""
    sampler = Batches(len(rows), batch_size, shuffle=shuffle, seed=seed)
    return DataLoader(rows, sampler=sampler, batch_size=None)


def gather(data: Any, weights: Any = None, context: Any = None) -> Rows | DataLoader[Any]:
    """Whatever the user has, as rows in memory, or the loader that they gave.

    Accepts an array or tensor [n, *event], a pair (x, context), a Dataset of x or (x, context), a DataLoader, or a
    diffeo data set (its training part).
    """
    if isinstance(data, DataLoader):
        if weights is not None or context is not None:
            raise InputError(
                "a DataLoader brings its own batches: give weights or context as arrays"
            )
        return data
    if isinstance(data, tuple) and len(data) == 2 and context is None:
        data, context = data
    if isinstance(data, Dataset):
        items = [data[i] for i in range(len(data))]  # type: ignore[arg-type]
        if items and isinstance(items[0], tuple | list):
            context = _stack([item[1] for item in items])
            items = [item[0] for item in items]
        data = _stack(items)
    return Rows(data, context, weights)


def _stack(items: list[Any]) -> Any:
    if items and isinstance(items[0], dict):
        return {k: _stack([item[k] for item in items]) for k in items[0]}
    return torch.stack([as_tensor(item) for item in items]) if items else torch.empty(0)


def as_tensor(value: Any) -> Tensor:
    """A tensor from an array; float64 arrays become the default dtype. Raises InputError for what has no numbers."""
    if isinstance(value, Tensor):
        return value
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"expected numbers in an array, got {type(value).__name__}: {error}"
        ) from error
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor
