"""The measurement of strings: its n-grams are distributions, its errors are right, and its tables render."""

from __future__ import annotations

import itertools
import math
from types import ModuleType

import numpy as np
import pytest
from tests.docs.test_measured import loaded


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded("scripts", "strings")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_n_grams_sum_to_one(script: ModuleType, order: int) -> None:
    score = script.kneser_ney(["ab", "abb", "ba", "b"], order, 3)
    by_length = [
        sum(2 ** -score("".join(s), 0.7) for s in itertools.product("ab", repeat=n))
        for n in range(13)
    ]
    assert sum(by_length) < 1
    # What is left are longer strings, whose mass falls geometrically.
    ratio = by_length[-1] / by_length[-2]
    assert sum(by_length) + by_length[-1] * ratio / (1 - ratio) == pytest.approx(1, abs=0.01)


def test_a_unigram_counts(script: ModuleType) -> None:
    """Order 1, d = 0.5: 4 of a, 2 of b, 2 ends; P(a) = (4 - 0.5) / 8 + 0.5 * 3 / 8 / 3."""
    score = script.kneser_ney(["aab", "aab"], 1, 3)
    a, end = (4 - 0.5) / 8 + 0.5 / 8, (2 - 0.5) / 8 + 0.5 / 8
    assert score("a", 0.5) == pytest.approx(-math.log2(a * end))


def test_errors_of_means(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    strings = ["a" * n for n in rng.integers(1, 9, 4000)]
    bits = [3.0 * (len(s) + 1) + rng.normal() for s in strings]
    found = script.means(bits, strings)
    assert abs(found["per_symbol"] - 3) < 4 * found["per_symbol_error"]
    assert found["per_symbol_error"] == pytest.approx(1 / 4000**0.5 / 5.5, rel=0.1)


def test_tables_render() -> None:
    strings = loaded("docs", "measured_strings").strings
    assert "not measured" in strings(None, "bits names")
    means = {"bits": 17.1, "bits_error": 0.1, "per_symbol": 2.4, "per_symbol_error": 0.01}
    row = means | {"kind": "exact", "ill_formed": 0.0, "seconds": 60.0}
    pair = {"spearman": 0.5, "spearman_error": 0.01, "kendall": 0.4, "kendall_error": 0.01}
    judged = {
        "correlations": {"flow, zxcvbn's guesses": pair},
        "auc": {"flow": 0.9},
        "judged": 100,
        "rank_median": 1e5,
        "rank_width": 1.2,
        "rank_open": 0.01,
    }
    document = {
        "rows": {
            "names, categorical": row | {"samples": ["ada", "bo"], "known": 0.1},
            "names, affine, uniform": row | {"one_draw": means},
            "passwords, categorical": row | judged,
        },
        "baselines": {"names": {"uniform": means, "5-gram": means | {"discount": 0.7}}},
    }
    table = strings(document, "bits names")
    assert "17.10 ± 0.10" in table
    assert "d = 0.7" in table
    assert "ada, bo" in strings(document, "samples names")
    assert "0.500 ± 0.010" in strings(document, "correlations passwords")
    assert "not measured" in strings(document, "bits words")
