"""How like a real table a synthetic one is: its columns, their associations, and what a classifier makes of them.

Tables are cells [n, columns] of a schema (see `cells`). Associations: Spearman's correlation between ordered columns;
Cramér's V between categories, with the correction of Bergsma (Journal of the Korean Statistical Society 42, 2013), and
the correlation ratio of ranks between a category and an ordered column, corrected alike. A circular column counts as 12
sectors.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..columns import Column, Schema
from ..data.arrow_files import arrow_tables
from ..data.codec import encode
from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FEWEST = 50
"""Rows of each table without which no classifier is trained."""
_SECTORS = 12
_BLOCK = 2**14


def cells(rows: Any, schema: Schema, given: Any = None) -> Array:
    """Events [n, entries], and rows of what is given, as values [n, columns] in the order of the schema.

    Real columns and integers in their units, dates in days and datetimes in seconds since 1970, the places of ordinal
    and categorical values, NaN where missing.
    """
    import numpy as np

    found: dict[str, Array] = {}
    for columns, entries in ((schema.events, rows), (schema.conditions, given)):
        e = 0
        for c in columns:
            value = np.array(entries[:, e], dtype=np.float64)
            gone = value == len(c.values) if c.kind == "categorical" else np.zeros(len(value), bool)
            if c.flagged:
                gone = np.asarray(entries[:, e + 1]) == 1
            if not c.real and c.kind not in ("ordinal", "categorical"):
                value = c.bounds[0] + c.step * value
            found[c.name] = np.where(gone, np.nan, value)
            e += c.width
    return np.stack([found[name] for name in schema.names], 1)


def read_cells(table: str | os.PathLike[str] | Any, schema: Schema) -> Array:
    """Cells of a .csv or .parquet file, or of an Arrow table. Raises DataError for a cell outside of the schema."""
    import numpy as np

    plain = Schema(schema.columns)
    if not isinstance(table, str | os.PathLike):
        return cells(encode(table, plain), plain)
    found, row = [np.empty((0, len(plain.columns)))], 0
    for piece in arrow_tables(Path(table).expanduser(), plain.names, _BLOCK):
        found.append(cells(encode(piece, plain, row=row, name=str(table)), plain))
        row += len(piece)
    return np.concatenate(found)


@dataclass(frozen=True)
class Distance:
    """How far a column of one table is from that of another.

    distance: Kolmogorov-Smirnov's of the cells that are there, or for categories, "missing" among them, the total
    variation; 0 to 1. missing: shares of empty cells, of the two tables.
    """

    column: str
    measure: str
    distance: float
    missing: tuple[float, float]


def column_distances(real: Array, synthetic: Array, schema: Schema) -> tuple[Distance, ...]:
    """The distance of every column. Raises InputError for a table without rows."""
    import numpy as np

    _check(real, synthetic, schema, 1)
    found = []
    for i, c in enumerate(schema.columns):
        a, b = real[:, i], synthetic[:, i]
        gone = (float(np.isnan(a).mean()), float(np.isnan(b).mean()))
        if c.kind == "categorical":
            k = len(c.values) + 1
            p, q = (np.bincount(_codes(x, c), minlength=k) / len(x) for x in (a, b))
            found.append(Distance(c.name, "total variation", float(abs(p - q).sum() / 2), gone))
        else:
            a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
            found.append(Distance(c.name, "Kolmogorov-Smirnov", _smirnov(a, b), gone))
    return tuple(found)


def _smirnov(a: Array, b: Array) -> float:
    """max |F_a - F_b| of sorted values; 1 where only one of the two has any."""
    import numpy as np

    if not len(a) or not len(b):
        return float(len(a) != len(b))
    at = np.concatenate((a, b))
    below = [np.searchsorted(x, at, side="right") / len(x) for x in (a, b)]
    return float(abs(below[0] - below[1]).max())


def nominal(column: Column) -> bool:
    """Whether its values have no order (a circle has none)."""
    return column.kind in ("categorical", "circular")


def _codes(values: Array, column: Column) -> NDArray[np.int64]:
    """Categories, or sectors of a circle, as 0, 1, ...; missing is the last."""
    import numpy as np

    last = len(column.values) if column.kind == "categorical" else _SECTORS
    if column.kind == "circular":
        low, high = column.bounds
        values = np.floor((values - low) / (high - low) * _SECTORS).clip(0, _SECTORS - 1)
    return np.where(np.isnan(values), last, values).astype(np.int64)


def associations(table: Array, schema: Schema) -> Array:
    """How much each two columns tell of each other, [columns, columns]: signed for ordered columns, else 0 to 1.

    The measures are those of this file. Cells that are missing count as a category, or are left out pair by pair; a
    constant column has 0.
    """
    import numpy as np

    _check(table, table, schema, 2)
    kinds = [nominal(c) for c in schema.columns]
    plain = [i for i, other in enumerate(kinds) if not other]
    names = [i for i, other in enumerate(kinds) if other]
    found = np.zeros((len(kinds), len(kinds)))
    ranked = np.stack([_ranks(table[:, i]) for i in plain], 1) if plain else table[:, :0]
    there = ~np.isnan(ranked)
    ranked = np.where(there, ranked, 0.0)
    found[np.ix_(plain, plain)] = _correlations(ranked, there.astype(float))
    codes = {
        i: np.unique(_codes(table[:, i], schema.columns[i]), return_inverse=True)[1] for i in names
    }
    for k, i in enumerate(names):
        found[i, plain] = found[plain, i] = _ratios(codes[i], ranked, there.astype(float))
        for j in names[:k]:
            size = (int(codes[i].max()) + 1, int(codes[j].max()) + 1)
            both = np.bincount(codes[i] * size[1] + codes[j], minlength=size[0] * size[1])
            found[i, j] = found[j, i] = _cramer(both.reshape(size).astype(float))
    np.fill_diagonal(found, 1.0)
    return found


def _ranks(values: Array) -> Array:
    """Middle ranks in (-1/2, 1/2); NaN stays."""
    import numpy as np

    there = np.sort(values[~np.isnan(values)])
    ends = [np.searchsorted(there, values, side=side) for side in ("left", "right")]
    ranked = (ends[0] + ends[1]) / (2 * max(1, len(there))) - 0.5
    return np.where(np.isnan(values), np.nan, ranked)


def _safe(a: Any, b: Any) -> Any:
    """a / b, 0 where b is 0 but for rounding."""
    import numpy as np

    return np.where(b > 1e-12, a / np.where(b > 1e-12, b, 1.0), 0.0)


def _correlations(x: Array, there: Array) -> Array:
    """Pearson's, over the rows where both are there; x is 0 elsewhere."""
    import numpy as np

    n = np.maximum(there.T @ there, 1.0)
    sums, squares = x.T @ there, (x * x).T @ there
    spread = np.sqrt(np.maximum(squares / n - (sums / n) ** 2, 0.0))
    covariance = x.T @ x / n - sums * sums.T / n**2
    return np.asarray(_safe(covariance, spread * spread.T).clip(-1, 1))


def _ratios(codes: NDArray[np.intp], x: Array, there: Array) -> Array:
    """The correlation ratio of each column of x given one category, with the degrees of freedom taken off."""
    import numpy as np

    def sums_of(columns: Array) -> Array:
        found = [np.bincount(codes, weights=column) for column in columns.T]
        return np.stack(found, 1) if found else np.zeros((1, 0))

    counts, sums = sums_of(there), sums_of(x)
    n, total = counts.sum(0), sums.sum(0)
    whole = (x * x).sum(0) - _safe(total**2, n)
    between = _safe(sums**2, counts).sum(0) - _safe(total**2, n)
    groups = (counts > 0).sum(0)
    left = (1 - _safe(between, whole)) * _safe(n - 1, n - groups)
    usable = (whole > 1e-12) & (n > groups)
    return np.where(usable, np.sqrt((1 - left).clip(0, 1)), 0.0)


def _cramer(counts: Array) -> float:
    import numpy as np

    n = counts.sum()
    rows, columns = counts.shape
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / n
    square = (_safe((counts - expected) ** 2, expected)).sum() / n
    corrected = max(0.0, square - (rows - 1) * (columns - 1) / (n - 1))
    least = min(k - (k - 1) ** 2 / (n - 1) for k in (rows, columns)) - 1
    return float(np.sqrt(min(1.0, corrected / least))) if least > 1e-12 else 0.0


# -- classifiers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Area:
    """Area under the ROC curve, with its standard error (DeLong, DeLong, Clarke-Pearson, Biometrics 44, 1988)."""

    value: float
    error: float


def area(positive: Array, negative: Array) -> Area:
    """P(a positive's score > a negative's), ties half. Raises InputError for fewer than two scores of a kind."""
    import numpy as np

    if min(len(positive), len(negative)) < 2:
        raise InputError(
            f"an area under the curve needs two scores of each kind, got {len(positive)} and {len(negative)}"
        )

    def share(below: Array, at: Array) -> Array:
        ends = [np.searchsorted(np.sort(below), at, side=side) for side in ("left", "right")]
        return np.asarray((ends[0] + ends[1]) / (2 * len(below)))

    won, lost = share(negative, positive), share(positive, negative)
    variance = won.var(ddof=1) / len(won) + lost.var(ddof=1) / len(lost)
    return Area(float(won.mean()), float(np.sqrt(variance)))


def classifier(
    schema: Schema, left_out: int | None = None, *, seed: int = 0, **settings: Any
) -> Any:
    """Gradient-boosted trees (scikit-learn's) on cells, of all columns but one; missing cells are as they are.

    Categories of up to 254 values are split by sets, others by their place.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    kinds = [c.kind == "categorical" and len(c.values) < 255 for c in schema.columns]
    if left_out is not None:
        del kinds[left_out]
    chosen = {"max_iter": 50, "learning_rate": 0.2, "max_leaf_nodes": 31} | settings
    return HistGradientBoostingClassifier(
        categorical_features=kinds if any(kinds) else None,
        early_stopping=False,
        random_state=seed,
        **chosen,
    )


@dataclass(frozen=True)
class ToldApart:
    """area: of the classifier, on rows that it was not trained on; 1/2 if the tables are of one law.

    columns: by how much the area falls if the cells of one column are shuffled, the most telling first.
    """

    area: Area
    columns: tuple[tuple[str, float], ...]
    rows: int


def told_apart(
    real: Array, synthetic: Array, schema: Schema, *, folds: int = 5, seed: int = 0
) -> ToldApart:
    """Classifier two-sample test (Lopez-Paz, Oquab, arXiv:1610.06545) with boosted trees and cross-validation.

    Real rows beside as many synthetic ones: the longer table is cut. The area is the mean over the folds, each with
    the classifier of the other folds. Raises InputError for fewer than 50 rows of a table.
    """
    import numpy as np

    n = min(len(real), len(synthetic))
    _check(real, synthetic, schema, FEWEST)
    rng = np.random.default_rng(seed)
    fold = rng.permutation(n) % folds
    areas, falls = [], np.zeros(real.shape[1])
    for k in range(folds):
        inside, outside = fold != k, fold == k
        model = classifier(schema, seed=seed)
        m = int(inside.sum())
        both = np.concatenate((real[:n][inside], synthetic[:n][inside]))
        model.fit(both, np.repeat([0, 1], m))
        held = [real[:n][outside], synthetic[:n][outside]]
        areas.append(area(*(model.decision_function(x) for x in reversed(held))))
        if k == 0:
            for i in range(len(falls)):
                mixed = [x.copy() for x in held]
                shuffled = rng.permutation(np.concatenate([x[:, i] for x in held]))
                mixed[0][:, i], mixed[1][:, i] = np.split(shuffled, 2)
                other = area(*(model.decision_function(x) for x in reversed(mixed)))
                falls[i] = areas[0].value - other.value
    mean = float(np.mean([a.value for a in areas]))
    error = float(np.sqrt(np.sum([a.error**2 for a in areas])) / folds)
    order = sorted(range(len(falls)), key=lambda i: -falls[i])
    columns = tuple((schema.names[i], float(falls[i])) for i in order)
    return ToldApart(Area(mean, error), columns, n)


def is_positive(values: Array, like: Array, column: Column) -> NDArray[np.bool_]:
    """What is predicted of a column: whether it has the most frequent value of `like`, or one above its median."""
    import numpy as np

    if nominal(column):
        codes = _codes(like, column)
        return np.asarray(_codes(values, column) == np.bincount(codes).argmax())
    return np.asarray(values > np.nanmedian(like))


def predicted(
    train: Array, test: Array, schema: Schema, column: str, *, like: Array, seed: int = 0
) -> Area | None:
    """How well boosted trees that learn from `train` predict a column of `test` from the others.

    With synthetic rows to learn from, train on synthetic, test on real (Esteban, Hyland, Rätsch, arXiv:1706.02633).
    like: the cells by which the two classes are chosen, see `is_positive`. Rows where the column is missing are left
    out, unless it is a category. None where a class has fewer than 20 rows, in the one table or the other.
    """
    import numpy as np

    _check(train, test, schema, 1)
    at = schema.names.index(schema.column(column).name)
    c = schema.columns[at]
    reference = like[:, at]
    if np.isnan(reference).all():
        return None
    parts = []
    for table in (train, test):
        there = table if c.kind == "categorical" else table[~np.isnan(table[:, at])]
        yes = is_positive(there[:, at], reference, c)
        if min(yes.sum(), (~yes).sum()) < 20:
            return None
        parts.append((np.delete(there, at, 1), yes))
    (x, yes), (x_test, yes_test) = parts
    model = classifier(schema, at, seed=seed).fit(x, yes)
    score = model.decision_function(x_test)
    return area(score[yes_test], score[~yes_test])


def _check(a: Array, b: Array, schema: Schema, fewest: int) -> None:
    for table in (a, b):
        if table.ndim != 2 or table.shape[1] != len(schema.columns):
            raise InputError(
                f"cells must be [rows, {len(schema.columns)}] for this schema, got {tuple(table.shape)}"
            )
        if len(table) < fewest:
            raise InputError(
                f"this needs {fewest} rows or more of each table, and there are {len(table)}"
            )
