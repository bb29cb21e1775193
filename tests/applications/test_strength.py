"""Strength of strings: against the exact rank on a space of 40 strings, and against quadrature where it is a bound."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import diffeo
from diffeo.applications.strength import Ranks, code_log_prob, sampled_ranks, strength
from diffeo.data.strings import Strings, well_formed
from diffeo.errors import DataError, InputError
from diffeo.testing import randomize

STRINGS = Strings("abc", 3)


def all_codes(levels: int, length: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(levels), repeat=length)))


@pytest.fixture(scope="module")
def flow() -> diffeo.Flow:
    torch.manual_seed(0)
    made = diffeo.zoo.build("passflow", (3,), size="tiny", levels=4, alphabet="abc")
    return randomize(made.double().eval(), 0, 0.7)


@pytest.fixture(scope="module")
def space(flow: diffeo.Flow) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All 40 well-formed codes, their log-probabilities, and their exact ranks."""
    codes = all_codes(4, 3)
    codes = codes[well_formed(codes)]
    log_p = code_log_prob(flow, codes)[0]
    return codes, log_p, (log_p > log_p[:, None]).sum(1).double()


def test_no_probability_is_lost_but_what_every_symbol_keeps(flow, space) -> None:
    everything = flow.log_prob(all_codes(4, 3)).exp().sum()
    assert float(everything.detach()) == pytest.approx(1, abs=1e-12)
    lost = 1 - float(space[1].exp().sum())
    assert 0 < lost < 2 * 3 * 1e-6


def test_rank_is_unbiased_and_its_interval_covers(flow, space) -> None:
    codes, log_p, rank = space
    assert rank.max() == 39
    repetitions, n = 200, 500
    g = torch.Generator().manual_seed(1)
    # The model's own samples, drawn at once: by their number among all codes.
    drawn = flow.sample(repetitions * n, generator=g).long()
    by_number = torch.full((64,), -math.inf, dtype=torch.float64)
    by_number[(codes * torch.tensor([16, 4, 1])).sum(1)] = log_p
    found = by_number[(drawn * torch.tensor([16, 4, 1])).sum(1)].reshape(repetitions, n)
    assert bool(found.isfinite().all())
    estimates, covered = [], []
    for sample in found:
        middle, low, high = Ranks(sample.sort(descending=True).values, n)(log_p)
        estimates.append(middle)
        covered.append((low <= rank + 1e-9) & (rank <= high + 1e-9))
    mean, spread = torch.stack(estimates).mean(0), torch.stack(estimates).std(0)
    assert bool(((mean - rank).abs() <= 4 * spread / repetitions**0.5 + 1e-9).all())
    share = torch.stack(covered).double().mean(0)
    assert share.mean() > 0.92
    assert share.min() > 0.85


def test_strength_of_strings(flow, space) -> None:
    codes, log_p, rank = space
    strings = STRINGS.decode(codes)
    found = strength(flow, strings, samples=20_000, seed=3)
    assert found.kind == "exact"
    assert not found.bits_error.any()
    assert torch.allclose(found.bits, -log_p / math.log(2))
    assert bool(((found.rank - rank).abs() < 0.05 * rank + 0.5).all())
    assert bool((found.low <= found.rank).all())
    assert bool((found.rank <= found.high).all())
    assert found.ill_formed < 0.001
    again = strength(flow, strings[:1], ranks=sampled_ranks(flow, 20_000, seed=3))
    assert float(again.rank) == float(found.rank[0])


def test_what_the_model_cannot_write(flow) -> None:
    found = strength(flow, ["ab", "abcd", "axb"], samples=50)
    assert found.bits[1:].tolist() == found.rank[1:].tolist() == [math.inf, math.inf]
    assert found.reasons[0] is None
    assert "4 characters long" in str(found.reasons[1])
    assert "place 2" in str(found.reasons[2])
    assert "x" not in str(found.reasons[2])[-30:]


def test_a_string_rarer_than_all_samples_has_no_upper_end() -> None:
    ranks = Ranks(torch.tensor([-1.0, -2.0], dtype=torch.float64), 2)
    rank, low, high = ranks(torch.tensor([-5.0, -0.5], dtype=torch.float64))
    assert float(rank[0]) == pytest.approx((math.e + math.e**2) / 2)
    assert low[0] < rank[0]
    assert high.tolist() == [math.inf, pytest.approx(-math.log(0.025) / 2 * math.exp(0.5))]


def test_a_bound_tends_to_the_probability() -> None:
    """Two characters of two letters under affine couplings: quadrature in the noise."""
    torch.manual_seed(0)
    made = diffeo.zoo.build("passflow", (2,), size="tiny", layer="affine", levels=3, alphabet="ab")
    affine = randomize(made.double().eval(), 0, 0.5)
    assert affine.likelihood == "bound"
    codes = all_codes(3, 2)
    axis = (torch.arange(80, dtype=torch.float64) + 0.5) / 80
    u = torch.cartesian_prod(axis, axis)
    rest = (None,) * (len(affine.transform) - 1)
    each = [affine.log_prob(c.expand(len(u), 2), noise=(u, *rest)).exp().mean() for c in codes]
    exact = torch.stack(each).detach().log()
    found, error = code_log_prob(affine, codes, draws=3000)
    assert bool(((found - exact).abs() < 4 * error + 1e-3).all())
    one = strength(affine, ["ab"], samples=200, draws=8)
    assert one.kind == "importance-weighted bound, K = 8"
    assert float(one.bits_error) > 0
    assert one.ill_formed > 0.01


def test_wrong_options_are_named(flow) -> None:
    with pytest.raises(InputError, match="samples must be a whole number of 1"):
        strength(flow, ["a"], samples=0)
    with pytest.raises(InputError, match="level"):
        strength(flow, ["a"], samples=10, level=1.5)
    plain = diffeo.zoo.build("passflow", (3,), size="tiny", levels=4)
    with pytest.raises(DataError, match="knows no alphabet"):
        strength(plain, ["a"])
    assert strength(plain, ["a"], alphabet="abc", samples=10).bits.isfinite().all()
