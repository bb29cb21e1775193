"""What a data set is: three parts, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .densities import Density2D

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Table = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Data:
    """Three parts [n, *event]: float32, or uint8 or int64 in 0..levels-1 for discrete data."""

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    levels: int | None
    columns: tuple[str, ...] | None
    labels: tuple[Tensor, Tensor, Tensor] | None
    density: Density2D | None
    source: str

    @property
    def event_shape(self) -> torch.Size:
        """Shape of one example."""
        return self.train.shape[1:]
