"""Restoring: the linear Gaussian case in closed form, and chains that are judged as they should be."""

import math

import pytest
import torch

import diffeo
from diffeo.applications import most_likely, posterior
from diffeo.applications.diagnostics import effective_size, split_rhat
from diffeo.distributions import GaussianMixture, StandardNormal
from diffeo.errors import InputError, ShapeError
from diffeo.transforms import Chain, LULinear


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def gaussian():
    """A flow over vectors of 3 that is a Gaussian, its mean and covariance, an observation, and the exact posterior."""
    torch.manual_seed(0)
    layer = LULinear((3,)).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.5 * torch.randn_like(p))
    flow = diffeo.Flow(Chain((3,), [layer]), StandardNormal((3,))).double().eval()
    w = layer.matrix().detach()
    covariance = torch.linalg.inv(w.mT @ w)
    mean = flow.decode(torch.zeros(3, dtype=torch.float64)).detach()
    y = torch.tensor([1.0, -0.5, 7.0], dtype=torch.float64)
    sigma = torch.tensor([0.5, 1.0, math.inf], dtype=torch.float64)
    precision = torch.linalg.inv(covariance)
    known = torch.where(sigma.isfinite(), sigma.square().reciprocal(), torch.zeros(3).double())
    after = torch.linalg.inv(precision + known.diag())
    centre = after @ (precision @ mean + known * y)
    return flow, y, sigma, centre, after


def test_the_most_likely_of_a_gaussian(gaussian):
    flow, y, sigma, centre, _ = gaussian
    found = most_likely(flow, y[None], sigma, steps=300, lr=0.1)
    assert torch.allclose(found[0], centre, atol=1e-3)


def test_the_posterior_of_a_gaussian(gaussian):
    flow, y, sigma, centre, after = gaussian
    found = posterior(
        flow,
        y.expand(2, 3),
        sigma,
        chains=8,
        draws=200,
        warmup=40,
        leapfrog=4,
        generator=generator(),
    )
    assert found.draws.shape == (8, 200, 2, 3)
    assert found.converged.all()
    assert 0.6 < found.accepted.mean() < 0.95
    deviation = after.diagonal().sqrt()
    error = deviation / found.effective.sqrt()[:, None]
    assert ((found.mean - centre).abs() < 5 * error).all()
    assert torch.allclose(found.deviation, deviation.expand(2, 3), rtol=0.1)
    flat = found.draws[:, :, 0].flatten(0, 1)
    assert torch.allclose(flat.mT.cov(), after, atol=0.2 * after.diagonal().max())


def two_modes(apart):
    """A flow over the plane with two unequal modes, an observation between them, and its posterior by quadrature."""
    torch.manual_seed(1)
    base = GaussianMixture((2,), 2).double()
    layer = LULinear((2,)).double()
    with torch.no_grad():
        base.logits.copy_(torch.tensor([0.0, 0.7]))
        base.loc.copy_(apart * torch.tensor([[-1.0, 0.5], [1.0, -0.5]]))
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    flow = diffeo.Flow(Chain((2,), [layer]), base).double().eval()
    y, sigma = torch.tensor([[0.1, 0.2]]).double(), torch.tensor([2.0, math.inf]).double()
    line = torch.linspace(-9, 9, 601, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    with torch.no_grad():
        weight = (flow.log_prob(x) - 0.5 * ((y - x) / sigma).square().sum(1)).softmax(0)
    return flow, y, sigma, x, weight


def test_the_posterior_of_two_modes():
    """Mean, deviation and mass of a mode, against quadrature."""
    flow, y, sigma, x, weight = two_modes(1.5)
    found = posterior(
        flow,
        y,
        sigma,
        chains=16,
        draws=120,
        warmup=40,
        leapfrog=4,
        generator=generator(),
    )
    assert found.converged.all()
    draws = found.draws.reshape(-1, 2)
    mean = weight @ x
    deviation = (weight @ (x - mean).square()).sqrt()
    error = deviation / found.effective.sqrt()
    assert ((draws.mean(0) - mean).abs() < 5 * error).all()
    assert torch.allclose(draws.std(0), deviation, rtol=0.1)
    with torch.no_grad():
        first = weight[flow.encode(x)[:, 0] < 0].sum()
        share = (flow.encode(draws)[:, 0] < 0).double().mean()
    assert 0.1 < first < 0.9
    assert share == pytest.approx(first.item(), abs=5 * (0.25 / found.effective.item()) ** 0.5)


def test_chains_that_stay_in_their_modes_are_not_called_converged():
    flow, y, sigma, _, _ = two_modes(4.0)
    found = posterior(flow, y, sigma, chains=8, draws=40, warmup=20, generator=generator())
    assert not found.converged.any()
    assert (found.rhat > 1.2).all()


def test_ranks_of_the_truth_are_uniform():
    """Truths of the flow, observed: nine in ten lie in nine tenths of their draws, by each half of the ranks alike."""
    flow, _, sigma, _, _ = two_modes(2.0)
    x = flow.sample((300,), generator=generator(1)).detach()
    noise = torch.randn(x.shape, generator=generator(2), dtype=x.dtype)
    y = x + sigma.nan_to_num(posinf=0.0) * noise
    found = posterior(flow, y, sigma, chains=2, draws=40, warmup=30, generator=generator())
    ranks = (found.draws < x).double().mean((0, 1))
    within = ((ranks > 0.05) & (ranks < 0.95)).double().mean(0)
    assert ((within - 0.9).abs() < 0.06).all()  # 3.5 standard errors
    assert ((ranks.mean(0) - 0.5).abs() < 0.06).all()
    assert ((ranks.var(0) - 1 / 12).abs() < 0.015).all()


@pytest.mark.slow
def test_digits_fit_what_is_known():
    flow, x = diffeo.load("digits-glow"), diffeo.data.load("digits").test[:2]
    sigma = torch.zeros(flow.event_shape)
    sigma[:, 4:] = math.inf
    found = posterior(
        flow,
        x,
        sigma,
        chains=2,
        draws=8,
        warmup=60,
        leapfrog=6,
        generator=generator(),
    )
    error = (found.mean - x)[:, :, :4].abs().mean()
    assert error < 1
    best = most_likely(flow, x, sigma, start=x, steps=5)
    assert best.shape == x.shape
    assert (best - x)[:, :, :4].abs().mean() < 1


def test_wrong_use_is_a_sentence(gaussian):
    flow, y, sigma, _, _ = gaussian
    with pytest.raises(ShapeError, match="restores pictures"):
        most_likely(flow, y, sigma)
    with pytest.raises(InputError, match="sigma must be positive"):
        most_likely(flow, y[None], 0.0)
    with pytest.raises(InputError, match="sigma must be positive"):
        posterior(diffeo.load("digits-glow"), torch.zeros(1, 1, 8, 8), -1.0)
    with pytest.raises(InputError, match="four draws"):
        posterior(flow, y[None], sigma, draws=3)


def test_convergence_of_chains():
    draws = torch.randn(4, 500, 2, generator=generator(), dtype=torch.float64)
    assert (split_rhat(draws) < 1.01).all()
    assert (effective_size(draws) - 2000).abs().max() < 400
    apart = draws + torch.arange(4.0)[:, None, None]
    assert (split_rhat(apart) > 1.3).all()
    assert (effective_size(apart) < 50).all()
    # x_t = 0.9 x_t-1 + noise has (1 + 0.9) / (1 - 0.9) = 19 draws for one.
    series = torch.zeros_like(draws)
    for t in range(1, 500):
        series[:, t] = 0.9 * series[:, t - 1] + draws[:, t]
    assert effective_size(series).mean() == pytest.approx(2000 / 19, rel=0.4)
    assert split_rhat(torch.ones(2, 10)).item() == pytest.approx(1, abs=0.2)
    with pytest.raises(InputError, match="four draws"):
        split_rhat(torch.zeros(2, 3))
