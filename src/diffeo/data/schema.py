"""What a data set is: three parts, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..columns import Schema
from ..parts import Shape
from .densities import Density2D
from .given import given_of, given_shape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Table = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Data:
    """Three parts [n, *event]: float32, or uint8 or int64 in 0..levels-1 for discrete data.

    given: of pictures, what a conditional model of them is given (see `given_of`). Of a table of mixed columns: its
    schema, and contexts, the entries of the given columns, [n, entries] for each part.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    levels: int | None
    columns: tuple[str, ...] | None
    labels: tuple[Tensor, Tensor, Tensor] | None
    density: Density2D | None
    source: str
    alphabet: str | None = None  # of strings: character k is the integer k + 1, and 0 the end
    given: str | None = None
    contexts: tuple[Tensor, Tensor, Tensor] | None = None
    schema: Schema | None = None

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one example."""
        return self.train.shape[1:]

    @property
    def context_shape(self) -> Shape | None:
        """Shape of what is given of one example; None: nothing."""
        if self.contexts is not None:
            return tuple(self.contexts[0].shape[1:])
        return None if self.given is None else given_shape(tuple(self.event_shape), self.given)

    def context_rows(self, split: str, start: int, stop: int) -> Tensor | None:
        """What is given of rows start to stop of a part; None: nothing."""
        if self.contexts is not None:
            at = ("train", "validation", "test").index(split)
            return self.contexts[at][start:stop]
        return self.context(getattr(self, split)[start:stop])

    def context(self, x: Tensor) -> Tensor | None:
        """What is given of rows x [n, *event], as the context of a model; None: nothing."""
        return None if self.given is None else given_of(x, self.given)
