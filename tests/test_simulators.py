"""The simulators of scripts/simulators.py against themselves, against solvers, and against sbibm's reference draws."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributions as D

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
try:
    import simulators
finally:
    sys.path.pop(0)

shipped = pytest.mark.skipif(
    simulators.sbibm_folder() is None,
    reason="the reference draws are in the sbibm wheel: pip install --no-deps sbibm",
)
SOLVED = ("sir", "lotka_volterra")
# Posteriors that vanish smoothly at the ends of their support; SLCP's are cut off by the prior, two moons' by the arc.
SMOOTH = ("gaussian_linear", "bernoulli_glm", "lotka_volterra", "sir", "gaussian_mixture")


def named(names: Iterable[str]) -> list[Any]:
    """Parameters of a test, slow where a differential equation is solved."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in SOLVED else n for n in names]


def score(task: simulators.Task, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Gradient of log p(x | theta) by theta, per row."""
    theta = theta.clone().requires_grad_()
    return torch.autograd.grad(task.log_likelihood(theta, x).sum(), theta)[0].double()


def within(values: torch.Tensor, deviations: float = 4.5) -> None:
    """The mean of every column is zero, to its standard error."""
    error = values.std(0) / len(values) ** 0.5
    assert bool((values.mean(0).abs() < deviations * error + 1e-9).all()), values.mean(0) / error


@pytest.mark.parametrize("name", named(n for n in simulators.TASKS if n != "two_moons"))
def test_the_score_of_simulations_has_mean_zero(name: str) -> None:
    """E[d log p(x | theta) / d theta] = 0 over x ~ p(. | theta): the simulator draws from that likelihood."""
    task = simulators.TASKS[name]()
    torch.manual_seed(0)
    theta = task.prior.sample((3,)).repeat_interleave(300, 0)
    if name == "slcp":
        theta[:, 2:4] = theta[:, 2:4].abs() + 0.5  # away from where the likelihood is a spike
    x = task.simulate(theta)
    assert x.dtype == theta.dtype
    for part in range(3):
        rows = slice(300 * part, 300 * (part + 1))
        within(score(task, theta[rows], x[rows]))


@shipped
@pytest.mark.parametrize("name", named(simulators.TASKS))
def test_reference_draws_are_likelier_than_others(name: str) -> None:
    task = simulators.TASKS[name]()
    torch.manual_seed(0)
    for number in (1, 4):
        seen = simulators.observation(name, number)
        draws = seen.reference[:300]
        assert bool(task.prior.support.check(draws).all())
        other = draws + 0.7 * draws.std(0) * torch.randn_like(draws)
        if name in SOLVED:
            other = other.abs()
        right, wrong = (
            task.log_likelihood(t, seen.x).clamp(min=-1e4).mean() for t in (draws, other)
        )
        assert bool(right.isfinite())
        assert float(right) > float(wrong) + 0.1


@shipped
@pytest.mark.parametrize("name", named(SMOOTH))
def test_reference_draws_are_of_this_posterior(name: str) -> None:
    """E[d log p(theta, x) / d theta_i] = 0 over the posterior of x; in log theta where theta is positive."""
    task = simulators.TASKS[name]()
    seen = simulators.observation(name, 2)
    theta = seen.reference[:: 10000 // 400].clone().requires_grad_()
    joint = task.log_likelihood(theta, seen.x) + task.prior.log_prob(theta)
    (slope,) = torch.autograd.grad(joint.sum(), theta)
    if name in SOLVED:
        slope = slope * theta.detach() + 1
    within(slope.double())


@shipped
def test_two_moons_reference_lies_on_its_arcs() -> None:
    """Given x, the arc's radius is N(0.1, 0.01^2) and its angle uniform."""
    seen = simulators.observation("two_moons", 3)
    theta = seen.reference.double()
    total, gap = theta.sum(1), theta[:, 1] - theta[:, 0]
    u = seen.x[0] + total.abs() / math.sqrt(2) - 0.25
    v = seen.x[1] - gap / math.sqrt(2)
    r, a = torch.hypot(u, v), torch.atan2(v, u)
    within(torch.stack((r - 0.1, a, (r - 0.1).square() - 1e-4, a.square() - math.pi**2 / 12), 1))


@pytest.mark.slow
def test_epidemics_and_predators_are_solved() -> None:
    integrate = pytest.importorskip("scipy.integrate")
    theta = torch.tensor([[0.4, 0.125], [2.0, 0.1]])
    task = simulators.sir()
    torch.manual_seed(0)
    x = task.simulate(theta.repeat_interleave(200, 0)).double()
    mean = x.reshape(2, 200, 10).mean(1) / 1000
    for (b, g), share in zip(theta.tolist(), mean, strict=True):
        solved = integrate.solve_ivp(
            lambda t, y, b=b, g=g: [-b * y[0] * y[1], b * y[0] * y[1] - g * y[1]],
            (0, 153), [1 - 1e-6, 1e-6], t_eval=range(0, 154, 17), rtol=1e-9, atol=1e-12,
        )  # fmt: skip
        exact = torch.tensor(solved.y[1])
        error = (exact * (1 - exact) / 200_000).sqrt() + 1e-6
        assert bool(((share - exact).abs() < 5 * error).all())
    theta = torch.tensor([[1.5, 0.1, 1.2, 0.05]])
    a, b, c, d = theta[0].tolist()
    solved = integrate.solve_ivp(
        lambda t, y: [a * y[0] - b * y[0] * y[1], -c * y[1] + d * y[0] * y[1]],
        (0, 19), [30.0, 1.0], t_eval=[2.1 * k for k in range(10)], rtol=1e-9, atol=1e-12,
    )  # fmt: skip
    x = simulators.lotka_volterra().simulate(theta.expand(400, 4)).double().log()
    within(x - torch.tensor(solved.y).flatten().log())


@shipped
@pytest.mark.slow
def test_observations_are_what_the_truth_gives() -> None:
    """Under the shipped true parameters, the observation is no outlier among simulations."""
    for name, make in simulators.TASKS.items():
        task = make()
        seen = simulators.observation(name, 1)
        torch.manual_seed(0)
        x = task.simulate(seen.truth.expand(400, -1))
        below = (x <= seen.x + 1e-6).double().mean(0)
        above = (x >= seen.x - 1e-6).double().mean(0)
        assert float(torch.minimum(below, above).min()) > 0.001, name


def test_box_is_a_prior_of_both_libraries() -> None:
    prior = simulators.box(2, 3.0)
    assert isinstance(prior, D.Distribution)
    assert float(prior.log_prob(torch.zeros(2))) == pytest.approx(-2 * math.log(6))
