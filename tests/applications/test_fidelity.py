"""Statistics of two tables against their definitions, and on tables whose answer is known."""

from __future__ import annotations

import numpy as np
import pyarrow
import pytest

from diffeo.applications.closest import memorized
from diffeo.applications.fidelity import (
    area,
    associations,
    cells,
    column_distances,
    predicted,
    read_cells,
    told_apart,
)
from diffeo.columns import schema
from diffeo.errors import InputError

MIXED = schema(
    {
        "columns": {
            "x": {"kind": "continuous", "missing": True},
            "n": {"kind": "integer", "low": -3, "high": 9},
            "day": {"kind": "date", "low": "2024-01-01", "high": "2024-12-31"},
            "grade": {"kind": "ordinal", "values": ["lo", "mid", "hi"], "missing": True},
            "city": {"kind": "categorical", "values": ["Rome", "Oslo"], "missing": True},
            "angle": {"period": 360},
        },
        "given": ["n", "city"],
    }
)
UVW = {"kind": "categorical", "values": ["u", "v", "w"]}
PLAIN = schema({"columns": {"a": "continuous", "b": "continuous", "c": UVW}})


def plain(n: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    g = np.random.default_rng(seed)
    a = g.normal(size=n)
    c = np.digitize(a + 0.5 * g.normal(size=n), [-0.5, 0.5])
    return np.stack([a, g.normal(size=n) + shift, c.astype(float)], 1)


def test_cells_are_in_the_units_of_the_file() -> None:
    rows = np.array([[1.5, 0, 2, 2, 0, 90], [0.0, 1, 0, 0, 1, 0]])
    given = np.array([[0.0, 1], [12, 2]])
    found = cells(rows, MIXED, given)
    day = 19723  # 2024-01-01
    expected = [[1.5, -3, day + 2, 2, 1, 90], [np.nan, 9, day, np.nan, np.nan, 0]]
    np.testing.assert_array_equal(found, expected)
    table = pyarrow.table(
        {
            "x": [1.5, None],
            "n": [-3, 9],
            "day": ["2024-01-03", "2024-01-01"],
            "grade": ["hi", None],
            "city": ["Oslo", ""],
            "angle": [90.0, 0.0],
        }
    )
    np.testing.assert_array_equal(read_cells(table, MIXED), expected)


def test_distances_against_scipy() -> None:
    from scipy.stats import ks_2samp

    real, model = plain(300), plain(200, 1, 0.7)
    real[:30, 1] = np.nan
    found = column_distances(real, model, PLAIN)
    assert found[1].distance == pytest.approx(ks_2samp(real[30:, 1], model[:, 1]).statistic)
    assert found[1].missing == (0.1, 0.0)
    shares = [[(t[:, 2] == k).mean() for k in range(3)] for t in (real, model)]
    assert found[2].distance == pytest.approx(abs(np.subtract(*shares)).sum() / 2)
    same = column_distances(real, real, PLAIN)
    assert [d.distance for d in same] == [0, 0, 0]
    real[:, 1] = np.nan
    assert column_distances(real, model, PLAIN)[1].distance == 1


def test_associations_against_their_definitions() -> None:
    from scipy.stats import rankdata, spearmanr

    table = plain(400)
    table[:, 1] += table[:, 0]
    table[:, 0] = table[:, 0].round(1)  # ties
    found = associations(table, PLAIN)
    assert found[0, 1] == pytest.approx(spearmanr(table[:, 0], table[:, 1]).statistic)
    ranked, c = rankdata(table[:, 0]), table[:, 2]
    within = sum(((ranked[c == k] - ranked[c == k].mean()) ** 2).sum() for k in range(3))
    whole = ((ranked - ranked.mean()) ** 2).sum()
    assert found[0, 2] == pytest.approx(np.sqrt(1 - within / whole * 399 / 397))
    assert (found == found.T).all()
    both = schema({"columns": {"c": UVW, "d": UVW}})
    assert associations(table[:, [2, 2]], both)[0, 1] == pytest.approx(1, abs=1e-6)
    g = np.random.default_rng(0)
    other = np.stack([table[:, 2], g.permutation(table[:, 2])], 1)
    assert associations(other, both)[0, 1] < 0.1


def test_associations_without_cells_to_compare() -> None:
    table = plain(50)
    table[:, 0] = 3.0
    table[:, 1] = np.nan
    table[:, 2] = 1
    np.testing.assert_array_equal(associations(table, PLAIN), np.eye(3))


def test_area_and_its_error() -> None:
    """The error is the deviation of the area over repetitions."""
    from sklearn.metrics import roc_auc_score

    g = np.random.default_rng(0)
    found = []
    for _ in range(150):
        yes, no = g.normal(0.5, 1, 60).round(1), g.normal(size=80).round(1)
        found.append(area(yes, no))
    assert found[-1].value == pytest.approx(
        roc_auc_score(np.repeat([1, 0], [60, 80]), np.concatenate((yes, no)))
    )
    values = [f.value for f in found]
    assert np.mean([f.error for f in found]) == pytest.approx(np.std(values), rel=0.2)
    with pytest.raises(InputError, match="two scores of each kind"):
        area(yes[:1], no)


def test_equal_tables_are_not_told_apart_and_others_are() -> None:
    same = told_apart(plain(300), plain(300, 1), PLAIN)
    assert abs(same.area.value - 0.5) < 4 * same.area.error
    other = told_apart(plain(300), plain(300, 1, 1.5), PLAIN)
    assert other.area.value > 0.75
    assert other.columns[0][0] == "b"
    with pytest.raises(InputError, match="50 rows or more"):
        told_apart(plain(40), plain(300), PLAIN)


def test_prediction_of_a_column_from_the_others() -> None:
    train, test = plain(400), plain(400, 1)
    good = predicted(train, test, PLAIN, "a", like=train)
    assert good is not None
    assert good.value > 0.8
    chance = predicted(train, test, PLAIN, "b", like=train)
    assert chance is not None
    assert abs(chance.value - 0.5) < 4 * chance.error
    constant = train.copy()
    constant[:, 0] = 0
    assert predicted(constant, test, PLAIN, "a", like=train) is None


def test_memorized_rows_are_found_and_fresh_ones_are_not() -> None:
    train, held, fresh = plain(500), plain(500, 1), plain(400, 2)
    fresh[:50, 1] = np.nan
    found = memorized(fresh, train, held, PLAIN)
    assert abs(found.z) < 4
    assert found.copies == (0, 0)
    learnt = memorized(train[:400] + np.array([1e-9, 1e-9, 0]), train, held, PLAIN)
    assert learnt.share > 0.95
    assert learnt.z > 10
    part = fresh.copy()
    part[:80] = train[:80]
    assert memorized(part, train, held, PLAIN).copies[0] == pytest.approx(0.2)
    with pytest.raises(InputError, match="20 rows or more"):
        memorized(fresh, train[:10], held, PLAIN)


def test_the_error_of_the_share_is_that_of_repetitions() -> None:
    found = [
        memorized(plain(60, s), plain(60, s + 1), plain(60, s + 2), PLAIN) for s in range(0, 300, 3)
    ]
    z = [f.z for f in found]
    assert abs(np.mean(z)) < 4 / np.sqrt(len(z))
    assert np.std(z) == pytest.approx(1, abs=0.2)


def test_distances_on_a_circle_and_of_missing_cells() -> None:
    known = schema(
        {
            "columns": {
                "angle": {"period": 360},
                "city": {"kind": "categorical", "values": ["u", "v"], "missing": True},
            }
        }
    )
    train = np.tile([[350.0, np.nan]], (20, 1))
    query = np.tile([[10.0, np.nan]], (20, 1))
    found = memorized(query, train, query, known)
    assert found.synthetic.tolist() == pytest.approx([20 / 180 / 2] * 20)
    assert found.share == 0
    train[:, 1] = 0
    assert memorized(query, train, query, known).synthetic.tolist() == pytest.approx(
        [20 / 360 + 0.5] * 20
    )
