"""Does a synthetic table repeat the rows that its model was trained on? Distances to the closest record.

The distance of two rows is the mean over the columns of: |F(x) - F(y)| for values in an order, F their distribution in
training and held-out rows; for angles the shorter arc over half a circle; 0 or 1 for categories, and where one of the
two cells is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..columns import Schema
from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FEWEST = 20
_CHUNK = 2**20


@dataclass(frozen=True)
class Memorization:
    """Distances to the closest training row, of synthetic rows and of held-out rows, and where synthetic rows lie.

    share: of the synthetic rows that are closer to a training row than to any of as many held-out rows, ties half. It
    is 1/2, whatever the quality of the model, unless it has memorized training rows. error: the standard deviation of
    the share if training and held-out rows were exchanged at random. copies: shares of synthetic rows, and of held-out
    rows, that equal a training row.
    """

    share: float
    error: float
    synthetic: Tensor
    held_out: Tensor
    copies: tuple[float, float]
    searched: int

    @property
    def z(self) -> float:
        """How many standard errors the share lies above 1/2."""
        above = self.share - 0.5
        return above / self.error if self.error > 0 else 0.0


def memorized(
    synthetic: Array, train: Array, held_out: Array, schema: Schema, *, seed: int = 0
) -> Memorization:
    """Compare closest records, with as many training rows as held-out rows: the longer table is cut at random.

    Platzer, Reutterer. Holdout-based empirical assessment of mixed-type synthetic data. 2021, arXiv:2104.00635. The
    held-out rows must be of the same law as the training rows, and unseen. Raises InputError below 20 rows of a table.
    """
    import numpy as np

    for table in (synthetic, train, held_out):
        if len(table) < FEWEST:
            raise InputError(
                f"closest records need {FEWEST} rows or more of each table, and there are {len(table)}"
            )
    rng = np.random.default_rng(seed)
    n = min(len(train), len(held_out))
    seen, unseen = (t[np.sort(rng.permutation(len(t))[:n])] for t in (train, held_out))
    # Ranks among training rows alone would favour the others.
    space = _Space(np.concatenate((seen, unseen)), schema)
    made, old, new = (space(t) for t in (synthetic, seen, unseen))
    to_old, at_old = space.closest(made, old)
    to_new, at_new = space.closest(made, new)
    asked = new[: len(made)]
    held, _ = space.closest(asked, old)
    tie = to_old == to_new
    share = float((to_old < to_new).double().mean() + tie.double().mean() / 2)
    # Under exchange the label of the closest row of both is a coin: a row that is closest often counts as often.
    where = torch.where(to_old < to_new, at_old, n + at_new)[~tie]
    weight = torch.bincount(where, minlength=2 * n).double()
    error = float(weight.square().sum().sqrt() / (2 * len(made)))
    copies = (float((to_old == 0).double().mean()), float((held == 0).double().mean()))
    return Memorization(share, error, to_old, held, copies, n)


class _Space:
    """Rows as numbers whose differences are the distances of the columns."""

    def __init__(self, like: Array, schema: Schema) -> None:
        import numpy as np

        self.columns = schema.columns
        self.sorted = [np.sort(x[~np.isnan(x)]) for x in like.T]

    def __call__(self, table: Array) -> Tensor:
        import numpy as np

        found = table.copy()
        for i, (c, order) in enumerate(zip(self.columns, self.sorted, strict=True)):
            x = table[:, i]
            if c.kind == "circular":
                low, high = c.bounds
                found[:, i] = (x - low) / (high - low)
            elif c.kind != "categorical" and len(order):
                ends = np.searchsorted(order, x, side="left") + np.searchsorted(
                    order, x, side="right"
                )
                found[:, i] = np.where(np.isnan(x), np.nan, ends / (2 * len(order)))
        return torch.from_numpy(found).float()

    def closest(self, queries: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the closest row, and its number, [queries] each."""
        distances, numbers = [], []
        for some in queries.split(max(1, _CHUNK // len(rows))):
            total = torch.zeros(len(some), len(rows))
            for i, c in enumerate(self.columns):
                a, b = some[:, i, None], rows[None, :, i]
                gap = (a - b).abs()
                if c.kind == "categorical":
                    gap = (gap > 0).float()
                elif c.kind == "circular":
                    gap = 2 * torch.minimum(gap, 1 - gap)
                if bool(a.isnan().any()) or bool(b.isnan().any()):
                    gone, other = a.isnan(), b.isnan()
                    gap = torch.where(gone | other, (gone != other).float(), gap)
                total += gap
            found = total.min(1)
            distances.append(found.values / len(self.columns))
            numbers.append(found.indices)
        return torch.cat(distances), torch.cat(numbers)
