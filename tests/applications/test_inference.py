"""Calibration, coverage and predictive checks on a conjugate Gaussian: the right posterior passes, wrong ones fail."""

import xml.etree.ElementTree as ET

import pytest
import torch
from torch import distributions as D

from diffeo import zoo
from diffeo.applications import coverage, posterior_predictive, simulation_based_calibration
from diffeo.errors import InputError

PRIOR = D.Independent(D.Normal(torch.zeros(2), torch.ones(2)), 1)
NOISE = 0.5
DEVIATION = (NOISE**2 / (1 + NOISE**2)) ** 0.5
WRONG = {"narrow": (0.6, 0.0), "wide": (1.6, 0.0), "biased": (1.0, 0.5)}


def simulate(theta):
    return theta + NOISE * torch.randn_like(theta)


def normal(x, spread=1.0, bias=0.0):
    """The exact posterior N(x / (1 + s^2), s^2 / (1 + s^2)), or a wrong one."""
    mean = x / (1 + NOISE**2) + bias * DEVIATION
    return D.Independent(D.Normal(mean, spread * DEVIATION), 1)


def sampler(*wrong):
    return lambda n, x: normal(x, *wrong).sample((n,))


def log_prob(*wrong):
    return lambda theta, x: normal(x, *wrong).log_prob(theta)


def test_calibration_passes_the_right_posterior_at_the_promised_rate():
    found = [
        simulation_based_calibration(PRIOR, simulate, sampler(), simulations=200, draws=30, seed=s)
        for s in range(12)
    ]
    p = torch.cat([f.p_values for f in found])
    assert 0.25 < p.mean() < 0.75
    assert (p < 0.05).sum() <= 5  # of 24; more has probability 0.001
    assert found[0].ranks.shape == (200, 2)
    assert (found[0].ranks.min(), found[0].ranks.max()) == (0, 30)


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_calibration_and_coverage_fail_wrong_posteriors(wrong):
    found = simulation_based_calibration(PRIOR, simulate, sampler(*wrong))
    assert found.p_value < 0.01
    for density in (None, log_prob(*wrong)):
        share = coverage(PRIOR, simulate, sampler(*wrong), log_prob=density, simulations=600)
        # A bias of half a deviation hides in distances from points of the prior; densities see it.
        if density is not None or wrong[1] == 0:
            assert share.p_value < 0.01
    if wrong[0] != 1:
        side = share.covered - share.levels
        assert bool(((side < 0) == (wrong[0] < 1))[3:-3].all())


@pytest.mark.parametrize("density", [None, log_prob()], ids=["distance", "density"])
def test_coverage_of_the_right_posterior_is_its_level(density):
    found = [
        coverage(PRIOR, simulate, sampler(), log_prob=density, simulations=400, seed=s)
        for s in range(4)
    ]
    assert min(f.p_value for f in found) > 0.005
    mean = torch.stack([f.covered for f in found]).mean(0)
    assert bool(((mean - found[0].levels).abs() < 2 * found[0].band).all())
    assert found[0].regions == ("distance" if density is None else "highest density")


def test_ranks_of_statistics_and_ties():
    """Of a parameter on a grid, ranks are uniform only if ties are broken at random."""
    prior = D.Categorical(torch.ones(3))

    def simulator(theta):
        return theta[:, None].float()  # says nothing less than everything

    def exact(n, x):
        return x[:, 0].long().expand(n, -1)

    found = simulation_based_calibration(
        prior, simulator, exact, statistics=lambda t: t.reshape(len(t), -1), names=["k"], draws=20
    )
    assert found.names == ("k",)
    assert found.p_value > 0.005
    assert found.ranks.min() == 0
    assert found.ranks.max() == 20


def test_predictive_p_values():
    x = torch.tensor([0.3, 6.0])  # the second is five deviations of the prior predictive away
    found = posterior_predictive(simulate, sampler(), x)
    assert found.simulated.shape == (1000, 2)
    assert found.p_values[0] > 0.3
    assert found.p_values[1] < 0.1
    low = posterior_predictive(lambda t: simulate(t) - 5, sampler(), x)
    assert bool((low.p_values < 0.01).all())
    of_sum = posterior_predictive(
        simulate, sampler(), x, statistics=lambda x: x.sum(1, keepdim=True)
    )
    assert of_sum.observed.tolist() == pytest.approx([6.3])


def test_a_flow_is_a_posterior_and_results_are_drawn():
    torch.manual_seed(0)
    flow = zoo.build("nsf_coupling", (2,), (2,), size="tiny").eval()
    settings = {"simulations": 60, "draws": 20}
    sbc = simulation_based_calibration(PRIOR, simulate, flow, **settings)
    again = simulation_based_calibration(PRIOR, simulate, flow, **settings)
    assert torch.equal(sbc.ranks, again.ranks)
    share = coverage(PRIOR, simulate, flow, **settings)
    assert share.regions == "highest density"
    predictive = posterior_predictive(simulate, flow, torch.zeros(2), draws=50)
    for found in (sbc, share, predictive):
        assert ET.fromstring(found.svg()).tag.endswith("svg")


def test_inputs_that_do_not_fit():
    with pytest.raises(InputError, match=r"gives 3 rows for 300"):
        simulation_based_calibration(PRIOR, lambda theta: theta[:3], sampler())
    with pytest.raises(InputError, match=r"expected \(100, 50, 2\)"):
        coverage(PRIOR, simulate, lambda n, x: normal(x).sample((n,)).transpose(0, 1))
    with pytest.raises(InputError, match=r"300 of 300 simulations hold NaN"):
        coverage(PRIOR, lambda theta: theta * torch.nan, sampler())
    with pytest.raises(InputError, match=r"the observation is \(3,\)"):
        posterior_predictive(simulate, lambda n, x: torch.zeros(n, 1, 2), torch.zeros(3))
    with pytest.raises(InputError, match=r"expected 2 names, got 1"):
        simulation_based_calibration(PRIOR, simulate, sampler(), names=["a"])
