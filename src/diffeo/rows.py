"""Leading batch shapes as rows, contexts broadcast against them, and work in chunks of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .errors import InputError, ShapeError
from .parts import Shape
from .transforms.base import Context


def show(shape: Shape) -> str:
    return ", ".join(map(str, shape))


def check_dtype(x: Tensor, dtype: torch.dtype, *, what: str = "", integers: bool = False) -> None:
    """Raise InputError where x cannot be the integers, or the real numbers, of a flow in `dtype`."""
    if integers and x.is_floating_point():
        raise InputError(
            f"this flow models integers, got {x.dtype}: give integers, or use flow.continuous for what is "
            "dequantized already"
        )
    if not integers and not x.is_floating_point():
        raise InputError(f"this flow models real numbers, got {x.dtype}: convert with .to({dtype})")
    if not integers and x.dtype != dtype and torch.float64 in (x.dtype, dtype):
        raise InputError(
            f"{what}this flow is in {dtype}, got {x.dtype}: convert one of them with .to({dtype}) or "
            f"flow.to({x.dtype})"
        )


def batch_of(context: Any, shape: Shape, name: str) -> Shape:
    if not isinstance(context, Tensor):
        raise InputError(
            f"{name}: expected a tensor [*batch, {show(shape)}], got {type(context).__name__}"
        )
    at = context.ndim - len(shape)
    if at < 0 or tuple(context.shape[at:]) != shape:
        raise ShapeError(
            f"{name}: expected last axes {shape}, the context shape, got {tuple(context.shape)}"
        )
    return tuple(context.shape[:at])


def context_rows(
    context: Context, shape: Shape | dict[str, Shape], dtype: torch.dtype | None
) -> tuple[Shape, Any]:
    """The batch shape of a context, and its rows; integers, such as labels and masks, become numbers in `dtype`.

    dtype None: numbers stay as they are. Raises InputError or ShapeError for another shape or precision.
    """
    if context is None:
        raise InputError(f"this flow needs a context of shape {shape}, but got none")
    if isinstance(shape, dict):
        if not isinstance(context, dict) or set(context) != set(shape):
            raise InputError(f"this flow takes a dict of contexts with keys {', '.join(shape)}")
        found = {k: batch_of(context[k], s, k) for k, s in shape.items()}
        try:
            batch: Shape = tuple(torch.broadcast_shapes(*found.values()))
        except RuntimeError as error:
            raise ShapeError(f"the contexts' batch shapes {found} do not broadcast") from error
        rows: Any = {
            k: _numbers(context[k], dtype, k).expand(*batch, *s).reshape(-1, *s)
            for k, s in shape.items()
        }
    else:
        if isinstance(context, dict):
            raise InputError(f"this flow takes one context tensor of shape {shape}, but got a dict")
        batch = batch_of(context, shape, "context")
        rows = _numbers(context, dtype, "context").reshape(-1, *shape)
    return batch, rows


def _numbers(context: Tensor, dtype: torch.dtype | None, name: str) -> Tensor:
    if dtype is None:
        return context
    if not context.is_floating_point():
        return context.to(dtype)
    check_dtype(context, dtype, what=f"{name}: ")
    return context


def broadcast(batch: Shape, given: Shape, what: str) -> Shape:
    """The shape that batch shapes of x and of its contexts broadcast to. Raises ShapeError."""
    try:
        return tuple(torch.broadcast_shapes(batch, given))
    except RuntimeError as error:
        raise ShapeError(
            f"the batch shape {batch} of the {what} and {given} of the contexts do not broadcast"
        ) from error


def expand(context: Context, given: Shape, batch: Shape) -> Context:
    """Rows of contexts with batch shape `given` as rows of the larger shape `batch`."""
    if context is None or given == batch:
        return context
    if isinstance(context, dict):
        return {k: _expand_rows(v, given, batch) for k, v in context.items()}
    return _expand_rows(context, given, batch)


def _expand_rows(rows: Tensor, given: Shape, batch: Shape) -> Tensor:
    inner = rows.shape[1:]
    return rows.reshape(*given, *inner).expand(*batch, *inner).reshape(-1, *inner)


def chunked(fn: Callable[..., Tensor], n: int, batch_size: int | None, *args: Any) -> Tensor:
    """fn over chunks of the rows of its arguments; one call where batch_size is None."""
    if batch_size is None or n <= batch_size:
        return fn(*args)
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    pieces = [
        fn(*(slice_rows(a, start, start + batch_size) for a in args))
        for start in range(0, n, batch_size)
    ]
    return torch.cat(pieces)


def slice_rows(value: Any, start: int, stop: int) -> Any:
    """Rows start to stop of a tensor, or of each tensor in a tuple or dict."""
    if isinstance(value, Tensor):
        return value[start:stop]
    if isinstance(value, tuple):
        return tuple(slice_rows(v, start, stop) for v in value)
    if isinstance(value, dict):
        return {k: slice_rows(v, start, stop) for k, v in value.items()}
    return value
