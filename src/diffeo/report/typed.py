"""What the report shows of a table of mixed columns: samples beside real rows, in the columns and units of the file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..applications.closest import memorized
from ..applications.fidelity import (
    Area,
    associations,
    cells,
    column_distances,
    nominal,
    predicted,
    told_apart,
)
from ..columns import Column, Schema
from ..data import Data
from ..errors import InputError
from ..flow import Flow
from . import figures, mixed
from .calibration import Ranks, rank_section, ranks, row_ranks
from .drawing import BATCH, generator, on_flow, some_rows, test_rows
from .page import Picture, Section, plain_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

ROWS = 4000
"""Of every table that is compared, at most."""
_CLOSEST = 1500
_OWN_ROWS, _OWN_DRAWS = 400, 100
_SHOWN, _PAIRS, _CHANGED, _POINTS = 24, 4, 2, 1500
_PAIRED = 40
_MOST_TARGETS = 15

Maker = Callable[[Flow, Data, int], Section]


@dataclass(frozen=True, eq=False)
class Compared:
    """Cells of test rows, training rows and samples, and how they were drawn. lost: samples that were not finite."""

    flow: Flow
    data: Data
    schema: Schema
    seed: int
    real: Array
    train: Array
    model: Array
    lost: int


def typed_makers() -> tuple[dict[str, Maker], dict[str, Maker]]:
    """Sections on what the model makes, and on how that is checked; the tables are drawn once for all of them."""
    cached = functools.cache(compare)

    def on(section: Callable[[Compared], Section]) -> Maker:
        return lambda flow, data, seed: section(cached(flow, data, seed))

    shown = {"Columns": on(marginals), "Pairs of columns": on(pairs)}
    check = {
        "Calibration of the columns": on(calibration),
        "Told apart by a classifier": on(classified),
        "Closest training rows": on(closest),
        "Training on samples": on(useful),
    }
    return shown, check


def compare(flow: Flow, data: Data, seed: int) -> Compared:
    """Test rows, training rows and samples, those of a conditional model given what validation rows are given."""
    schema = _schema(data)
    parts = [
        cells(_some(data, part, seed).numpy(), schema, _given(data, part, seed))
        for part in ("test", "train")
    ]
    if data.contexts is None:
        model, lost = _samples(flow, schema, ROWS, None, seed)
    else:
        model, lost = _samples(flow, schema, 1, some_rows(data.contexts[1], ROWS, seed), seed)
    return Compared(flow, data, schema, seed, parts[0], parts[1], model, lost)


def _schema(data: Data) -> Schema:
    assert data.schema is not None
    return data.schema


def _some(data: Data, part: str, seed: int) -> Tensor:
    rows: Tensor = getattr(data, part)
    return some_rows(rows, ROWS, seed)


def _given(data: Data, part: str, seed: int) -> Array | None:
    if data.contexts is None:
        return None
    rows = data.contexts[("train", "validation", "test").index(part)]
    found: Array = some_rows(rows, ROWS, seed).double().numpy()
    return found


def _samples(
    flow: Flow, schema: Schema, n: int, context: Tensor | None, seed: int
) -> tuple[Array, int]:
    """Cells of n samples (for each row of a context), and how many were left out."""
    given = None if context is None else on_flow(flow, context)
    x = flow.sample(n, given, generator=generator(flow, seed), batch_size=BATCH).cpu()
    x = x.reshape(-1, *flow.event_shape).double()
    kept = x.isfinite().all(1)
    rows = None if context is None else context.repeat(n, 1).double()[kept].numpy()
    return cells(x[kept].numpy(), schema, rows), int((~kept).sum())


def _need(c: Compared, fewest: int, what: str) -> None:
    for table, name in ((c.real, "test rows"), (c.train, "training rows"), (c.model, "samples")):
        if len(table) < fewest:
            raise InputError(f"{what} needs {fewest} {name} or more, and there are {len(table)}.")


# -- what the model makes -------------------------------------------------------------------------------------------


def marginals(c: Compared) -> Section:
    """Each column alone: pictures, and distances with those of training rows beside them."""
    _need(c, 1, "a comparison of columns")
    shown = c.schema.columns[:_SHOWN]
    picture = Picture(
        mixed.marginals(c.real[:, : len(shown)], c.model[:, : len(shown)], shown),
        f"{len(shown)} columns, test rows and samples",
        "" if len(shown) == len(c.schema.columns) else f"the first {len(shown)} columns",
    )
    found = column_distances(c.real, c.model, c.schema)
    chance = column_distances(c.real, c.train[: len(c.model)], c.schema)
    lines = []
    for column, own, other in zip(c.schema.columns, found, chance, strict=True):
        missing = " / ".join(f"{100 * m:.1f} %" for m in own.missing) if column.missing else ""
        given = ", given" if column.name in c.schema.given else ""
        cells_ = (f"{own.distance:.3f}", f"{other.distance:.3f}", missing)
        lines.append((column.name, column.kind + given, *cells_))
    text = (
        f"{len(c.real):,} test rows (orange) beside {len(c.model):,} rows drawn from the model (blue){_how(c)}. "
        "The distance of a column is the total variation for categories, with missing ones among them, and the "
        "Kolmogorov-Smirnov distance of the cells that are there for the others: 0 for equal columns, 1 for columns "
        "that share nothing. Training rows, at the same test rows, show what chance makes of it."
    )
    if c.lost:
        text += f" {c.lost} samples held NaN or infinity and are left out."
    head = ("column", "kind", "samples", "training rows", "missing, real / samples")
    return Section("Columns", text, [picture], table=plain_table(head, lines, text_columns=2))


def _how(c: Compared) -> str:
    if not c.schema.given:
        return ""
    return f", given the {', '.join(c.schema.given)} of validation rows"


def pairs(c: Compared) -> Section:
    """Associations of all pairs, and pictures of some."""
    if len(c.schema.columns) == 1:
        raise InputError("the table has one column only.")
    _need(c, 2, "a comparison of pairs")
    n, d = min(len(c.real), len(c.model)), min(len(c.schema.columns), _PAIRED)
    schema = Schema(c.schema.columns[:d])
    a, b = (associations(t[:n, :d], schema) for t in (c.real, c.model))
    chance = associations(c.train[:n, :d], schema)
    upper = torch.triu_indices(len(a), len(a), 1)
    i, j = upper.numpy()
    change, by_chance = abs(b - a)[i, j], abs(chance - a)[i, j]
    worst = int(change.argmax())
    names = schema.names
    which = "" if d == len(c.schema.columns) else f" of the first {d}"
    text = (
        f"How much each two columns{which} tell of each other, in {n:,} rows each: Spearman's correlation where both "
        "are ordered, the correlation ratio of a category and an ordered column, Cramér's V of two categories, all 0 "
        "for independent columns. The mean difference of samples from test rows is "
        f"{change.mean():.3f}, where that of training rows is {by_chance.mean():.3f}; the largest is "
        f"{change[worst]:.2f}, of {names[i[worst]]} and {names[j[worst]]} (training rows: {by_chance.max():.2f})."
    )
    picture = Picture(
        mixed.associations(a, b, names),
        "associations of all pairs of columns in test rows, in samples, and their difference",
    )
    strong = (-abs(a[i, j])).argsort(kind="stable")[:_PAIRS].tolist()
    weak = [k for k in (-change).argsort(kind="stable").tolist() if k not in strong][:_CHANGED]
    drawn, points = [], min(n, _POINTS)
    for k in (*strong, *weak):
        at = [int(i[k]), int(j[k])]
        both = tuple(schema.columns[m] for m in at)
        image = mixed.pair(c.real[:points, at], c.model[:points, at], both, c.seed)
        drawn.append(Picture(image, f"{names[at[1]]} against {names[at[0]]}, real and sampled"))
    said = (
        f"The {len(strong)} most strongly associated pairs"
        + (f", then the {len(weak)} whose association differs most" if weak else "")
        + ". Categories are spread about their place; rare ones are one."
    )
    more = Section("Some pairs", said, drawn, "pairs")
    return Section("Pairs of columns", text, [picture], more=(more,))


# -- how it is checked ----------------------------------------------------------------------------------------------


def calibration(c: Compared) -> Section:
    """Ranks of test cells among samples; of a conditional model, among samples under the row's own conditions."""
    _need(c, 20, "calibration")
    if c.schema.given:
        return _own_calibration(c)
    found = []
    for k, column in enumerate(c.schema.columns):
        values, draws = (_placed(t[:, k], column) for t in (c.real, c.model))
        values, draws = values[~values.isnan()], draws[~draws.isnan()]
        if len(values) and len(draws):
            found.append(ranks(values, draws, column.name, c.seed + k))
    how = (
        f"The rank of each cell of {len(c.real):,} test rows among those of {len(c.model):,} samples, the probability "
        "integral transform; ties are broken at random, categories stand in the order of the schema, and missing "
        "numbers are left out. Where the model's column is right, "
    )
    return rank_section(_any(found), how)


def _own_calibration(c: Compared) -> Section:
    x, context = test_rows(c.flow, c.data, _OWN_ROWS, c.seed)
    assert context is not None
    drawn, lost = _samples(c.flow, c.schema, _OWN_DRAWS, context.cpu(), c.seed)
    if lost:
        raise InputError(f"{lost} samples held NaN or infinity.")
    real = cells(x.cpu().double().numpy(), c.schema, context.cpu().double().numpy())
    draws = drawn.reshape(_OWN_DRAWS, len(real), -1)
    found = []
    for k, column in enumerate(c.schema.columns):
        if column.name in c.schema.given:
            continue
        values = _placed(real[:, k], column)
        there = ~values.isnan()
        own = _placed(draws[:, :, k].reshape(-1), column).reshape(_OWN_DRAWS, -1)
        if bool(there.any()):
            found.append(row_ranks(values[there], own[:, there], column.name, c.seed + k))
    how = (
        f"The rank of each cell of {len(real):,} test rows among {_OWN_DRAWS} samples under the conditions of that "
        "row; ties are broken at random, and missing numbers are left out. Where the model is right under every "
        "condition, "
    )
    return rank_section(_any(found), how)


def _any(found: list[Ranks]) -> list[Ranks]:
    if not found:
        raise InputError("no column has a value in test rows and samples.")
    return found


def _placed(values: Array, column: Column) -> Tensor:
    """Numbers to rank by; a missing category is behind the others."""
    found = torch.from_numpy(values.copy())
    return found.nan_to_num(len(column.values)) if column.kind == "categorical" else found


def classified(c: Compared) -> Section:
    """The classifier two-sample test."""
    found = told_apart(c.real, c.model, c.schema, seed=c.seed)
    text = (
        f"Boosted trees learn to tell {found.rows:,} samples from as many test rows, and are tried on rows that they "
        f"have not seen, in 5 folds. Area under the ROC curve: {_area(found.area)}, where 0.5 "
        "is guessing, the best that a model can get, and 1 means that every sample is recognized. Beside it, by how "
        "much the area falls if one column is shuffled between the rows: the higher, the more the column, with those "
        "that go with it, gives samples away."
    )
    lines = [(name, f"{fall:.3f}".replace("-", "−")) for name, fall in found.columns[:6]]
    return Section(
        "Told apart by a classifier", text, table=plain_table(("column", "fall of the area"), lines)
    )


def closest(c: Compared) -> Section:
    """Has the model learned rows by heart?"""
    found = memorized(c.model[:_CLOSEST], c.train, c.real, c.schema, seed=c.seed)
    verdict = (
        "far more than chance: the model repeats rows that it was trained on"
        if found.z > 3
        else "more than chance would make likely"
        if found.z > 2
        else "within chance: there is no sign of memorized rows"
        if found.z > -3
        else "less than chance: training and test rows may be of different laws"
    )
    sides = f"{abs(found.z):.1f} standard errors {'above' if found.z >= 0 else 'below'} it"
    text = (
        f"For each of {len(found.synthetic):,} samples the closest of {found.searched:,} training rows and of as many "
        "test rows, which the model has not seen; the distance of two rows is the mean over the columns of the "
        "difference of ranks, or for categories of 0 or 1. A sample lies closer to a training row in "
        f"{100 * found.share:.1f} ± {100 * found.error:.1f} % of the cases, where 50 % is the same whatever the model: "
        f"{sides}, {verdict}. "
        f"{100 * found.copies[0]:.2f} % of the samples equal a training row in every cell, as "
        f"{100 * found.copies[1]:.2f} % of the test rows do."
    )
    picture = Picture(
        figures.distances(found.held_out, found.synthetic, "mean over the columns"),
        "histograms of distances to the closest training row, of test rows and of samples",
    )
    return Section("Closest training rows", text, [picture])


def useful(c: Compared) -> Section:
    """Train on samples, test on real rows, for every column."""
    if c.data.contexts is None:
        model = c.model
    else:
        context = some_rows(c.data.contexts[0], ROWS, c.seed)
        model, _ = _samples(c.flow, c.schema, 1, context, c.seed + 1)
    n = min(len(c.train), len(model))
    lines = []
    for column in c.schema.events[:_MOST_TARGETS]:
        own, other = (
            predicted(t[:n], c.real, c.schema, column.name, like=c.train, seed=c.seed)
            for t in (c.train, model)
        )
        if own is None or other is None:
            continue
        what = _target(c, column)
        areas = (_area(own), _area(other))
        lines.append((column.name, what, *areas))
    if not lines:
        raise InputError("no column has 20 rows of each of two classes to predict.")
    text = (
        f"Boosted trees predict each column of {len(c.real):,} test rows from the other columns, once after training "
        f"on {n:,} training rows, once on as many samples: the area under the ROC curve, ± its standard error. Samples "
        "that can stand for real rows give the same areas. Numbers are predicted to lie above their median or not."
    )
    left = len(c.schema.events) - len(lines)
    if left:
        text += f" {left} columns are left out: too few rows of one class, or beyond the first {_MOST_TARGETS}."
    head = ("column", "predicted", "trained on real rows", "on samples")
    return Section("Training on samples", text, table=plain_table(head, lines, text_columns=2))


def _target(c: Compared, column: Column) -> str:
    import numpy as np

    like = c.train[:, c.schema.names.index(column.name)]
    if column.kind == "circular":
        return "the sector of most rows"
    if nominal(column):
        filled = np.where(np.isnan(like), len(column.values), like).astype(int)
        k = int(np.bincount(filled).argmax())
        return "missing" if k == len(column.values) else f"is {mixed.short(column.values[k], 24)}"
    return f"above {mixed.shown(float(np.nanmedian(like)), column)}"


def _area(found: Area) -> str:
    return f"{found.value:.3f} ± {found.error:.3f}"
