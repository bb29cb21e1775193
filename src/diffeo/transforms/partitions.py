"""Partitions: which entries a coupling sees, and which it changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, ShapeError
from ..parts import Part, Shape, as_shape, register, sum_event


class Partition(Part):
    """Splits [batch, *event_shape] into a visible and a changed part, and puts a changed part back."""

    def __init__(
        self, event_shape: Sequence[int], visible_shape: Shape, changed_shape: Shape
    ) -> None:
        super().__init__()
        self.event_shape: Shape = as_shape(event_shape)
        self.visible_shape = visible_shape
        self.changed_shape = changed_shape

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """visible, changed."""
        raise ConfigError(f"{type(self).__name__} does not split")

    def merge(self, x: Tensor, visible: Tensor, changed: Tensor) -> Tensor:
        """The event with `changed` in its place; x is the event that was split."""
        raise ConfigError(f"{type(self).__name__} does not merge")

    def sum(self, elementwise: Tensor) -> Tensor:
        """Sum over the changed entries only: [batch]."""
        return sum_event(elementwise)

    def mask(self) -> Tensor | None:
        """True where an entry of `changed` is only visible, for partitions that keep the whole shape."""
        return None


class _Axis(Partition):
    """Splits along one axis, by default the first: entries of a vector, channels of an image."""

    def __init__(self, event_shape: Sequence[int], visible: int, flip: bool, axis: int = 0) -> None:
        shape = as_shape(event_shape)
        if len(shape) <= axis or shape[axis] < 1:
            which = f"axis {axis}" if axis else "a first axis"
            raise ShapeError(f"{type(self).__name__} needs {which} to split, got {shape}")
        self.flip = flip
        before, after = shape[:axis], shape[axis + 1 :]
        super().__init__(
            shape, (*before, visible, *after), (*before, shape[axis] - visible, *after)
        )

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "flip": self.flip}

    def extra_repr(self) -> str:
        return f"{self.event_shape}, flip={self.flip}"


@register
class Halves(_Axis):
    """Sees the first half along the first axis (entries, or channels) and changes the rest; `flip` swaps the roles.

    With one entry there is nothing to see and it is changed either way. With an odd number the first half is smaller.
    """

    def __init__(self, event_shape: Sequence[int], flip: bool = False) -> None:
        n = as_shape(event_shape)[0] if event_shape else 0
        self.flip_roles = flip and n > 1
        self.at = n // 2
        super().__init__(event_shape, n - self.at if self.flip_roles else self.at, flip)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # Unlike two slices, the parts of one split have their gradients joined, not padded with zeros and added.
        first, second = x.split((self.at, x.shape[1] - self.at), dim=1)
        return (second, first) if self.flip_roles else (first, second)

    def merge(self, x: Tensor, visible: Tensor, changed: Tensor) -> Tensor:
        return torch.cat((changed, visible) if self.flip_roles else (visible, changed), dim=1)


@register
class Alternating(_Axis):
    """Sees the even entries along an axis and changes the odd ones; `flip` swaps the roles.

    axis: of the event; 2 for the columns of an image, each part an image of half the width. With one entry there is
    nothing to see and it is changed either way.
    """

    def __init__(self, event_shape: Sequence[int], flip: bool = False, *, axis: int = 0) -> None:
        shape = as_shape(event_shape)
        if axis < 0:
            raise ConfigError(f"the axis of Alternating must be 0 or more, got {axis}")
        n = shape[axis] if axis < len(shape) else 0
        self.axis = axis
        self.sees_odd = flip or n == 1
        super().__init__(shape, n // 2 if self.sees_odd else n - n // 2, flip, axis)

    def _from(self, x: Tensor, first: int, step: int | None, stop: int | None = None) -> Tensor:
        index = (slice(None),) * (self.axis + 1) + (slice(first, stop, step),)
        return x[index]

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        even, odd = self._from(x, 0, 2), self._from(x, 1, 2)
        return (odd, even) if self.sees_odd else (even, odd)

    def merge(self, x: Tensor, visible: Tensor, changed: Tensor) -> Tensor:
        even, odd = (changed, visible) if self.sees_odd else (visible, changed)
        at = self.axis + 1
        pairs = odd.shape[at]
        both = torch.stack((self._from(even, 0, None, pairs), odd), dim=at + 1).flatten(at, at + 1)
        if even.shape[at] == pairs:
            return both
        return torch.cat((both, self._from(even, pairs, None)), dim=at)

    def config(self) -> dict[str, Any]:
        return super().config() | {"axis": self.axis}

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", axis={self.axis}" if self.axis else "")


@register
class Mask(Partition):
    """Sees the entries where `mask` is true, the others read as zero, and changes the others; both keep the shape.

    Raises ShapeError if the mask does not have the event's shape.
    """

    def __init__(self, event_shape: Sequence[int], mask: Any) -> None:
        shape = as_shape(event_shape)
        super().__init__(shape, shape, shape)
        visible = torch.as_tensor(mask, dtype=torch.bool)
        if tuple(visible.shape) != shape:
            raise ShapeError(f"Mask{shape} got a mask of shape {tuple(visible.shape)}")
        self.visible: Tensor
        self.register_buffer("visible", visible)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(self.visible, x, torch.zeros_like(x)), x

    def merge(self, x: Tensor, visible: Tensor, changed: Tensor) -> Tensor:
        return torch.where(self.visible, x, changed)

    def sum(self, elementwise: Tensor) -> Tensor:
        return sum_event(torch.where(self.visible, torch.zeros_like(elementwise), elementwise))

    def mask(self) -> Tensor | None:
        return self.visible

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "mask": self.visible.tolist()}


@register
class Checkerboard(Mask):
    """Sees the pixels of an image [C, H, W] with (row + column) even and changes the odd ones; `flip` swaps the roles.

    A vector [D] reads as a row. Dinh et al., Real NVP, 2016, arXiv:1605.08803.
    """

    def __init__(self, event_shape: Sequence[int], flip: bool = False) -> None:
        shape = as_shape(event_shape)
        if not shape:
            raise ShapeError("Checkerboard needs at least one axis, got ()")
        self.flip = flip
        super().__init__(shape, checkerboard(shape, flip))

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "flip": self.flip}

    def extra_repr(self) -> str:
        return f"{self.event_shape}, flip={self.flip}"


def checkerboard(shape: Shape, flip: bool = False) -> Tensor:
    """True where the sum of the last two indices (of one index for a vector) is even, or odd with `flip`."""
    index = torch.arange(shape[-1])
    if len(shape) > 1:
        index = index + torch.arange(shape[-2])[:, None]
    return (index % 2 == int(flip)).expand(shape).clone()
