"""Tasks of simulation-based inference, written from their published definitions, and what sbibm ships of them.

Lueckmann, Boelts, Greenberg, Goncalves, Macke. Benchmarking simulation-based inference. 2021, arXiv:2101.04653. The
observations and the reference draws are read from the wheel (`pip install --no-deps sbibm`), which is never imported.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch import distributions as D


@dataclass(frozen=True)
class Task:
    """A prior over theta [n, p], x [n, d] from theta, and log p(x | theta) up to what does not depend on theta."""

    name: str
    prior: D.Distribution
    simulate: Callable[[Tensor], Tensor]
    log_likelihood: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Observation:
    """x [d], the parameters that it was simulated with, and 10,000 draws of its posterior."""

    x: Tensor
    truth: Tensor
    reference: Tensor


def sbibm_folder() -> Path | None:
    """Where the wheel is installed; None where it is not."""
    spec = importlib.util.find_spec("sbibm")
    return (
        Path(spec.submodule_search_locations[0])
        if spec and spec.submodule_search_locations
        else None
    )


def observation(task: str, number: int) -> Observation:
    """One of the ten shipped observations of a task."""
    folder = sbibm_folder()
    if folder is None:
        raise SystemExit("the reference draws are in the sbibm wheel: pip install --no-deps sbibm")
    files = folder / "tasks" / task / "files" / f"num_observation_{number}"
    x, truth, reference = (
        torch.tensor(np.loadtxt(files / name, delimiter=",", skiprows=1, dtype=np.float32, ndmin=2))
        for name in (
            "observation.csv",
            "true_parameters.csv",
            "reference_posterior_samples.csv.bz2",
        )
    )
    return Observation(x[0], truth[0], reference)


def box(size: int, bound: float) -> D.Distribution:
    """Uniform in [-bound, bound]."""
    ones = torch.ones(size)
    return D.Independent(D.Uniform(-bound * ones, bound * ones), 1)


def two_moons() -> Task:
    """x = r (cos a, sin a) + (1/4, 0) + (-|t1 + t2|, t2 - t1) / sqrt 2, a in (-pi/2, pi/2), r ~ N(0.1, 0.01^2)."""

    def shift(theta: Tensor) -> Tensor:
        total, gap = theta[:, 0] + theta[:, 1], theta[:, 1] - theta[:, 0]
        return torch.stack((-total.abs(), gap), 1) / math.sqrt(2)

    def simulate(theta: Tensor) -> Tensor:
        a = math.pi * (torch.rand(len(theta)) - 0.5)
        r = 0.1 + 0.01 * torch.randn(len(theta))
        return torch.stack((r * a.cos() + 0.25, r * a.sin()), 1) + shift(theta)

    def log_likelihood(theta: Tensor, x: Tensor) -> Tensor:
        p = x - shift(theta)
        u, v = p[:, 0] - 0.25, p[:, 1]
        r = torch.hypot(u, v)
        inside = -0.5 * ((r - 0.1) / 0.01).square() - r.log()
        return torch.where(u > 0, inside, -math.inf)

    return Task("two_moons", box(2, 1.0), simulate, log_likelihood)


def slcp() -> Task:
    """Four draws of N((t1, t2), S), S of deviations t3^2, t4^2 and correlation tanh t5, and 1e-6 on its diagonal."""

    def normal(theta: Tensor) -> D.MultivariateNormal:
        s1, s2, rho = theta[:, 2].square(), theta[:, 3].square(), theta[:, 4].tanh()
        covariance = torch.stack(
            (s1.square() + 1e-6, rho * s1 * s2, rho * s1 * s2, s2.square() + 1e-6), 1
        ).reshape(-1, 2, 2)
        return D.MultivariateNormal(theta[:, :2], covariance, validate_args=False)

    def simulate(theta: Tensor) -> Tensor:
        return normal(theta.double()).sample((4,)).transpose(0, 1).flatten(1).to(theta.dtype)

    def log_likelihood(theta: Tensor, x: Tensor) -> Tensor:
        points = x.double().expand(len(theta), 8).reshape(-1, 4, 2).transpose(0, 1)
        return normal(theta.double()).log_prob(points).sum(0)

    return Task("slcp", box(5, 3.0), simulate, log_likelihood)


def gaussian_mixture() -> Task:
    """x ~ N(theta, 1) / 2 + N(theta, 0.1^2) / 2 in the plane."""

    def simulate(theta: Tensor) -> Tensor:
        scale = torch.where(torch.rand(len(theta), 1) < 0.5, 1.0, 0.1)
        return theta + scale * torch.randn_like(theta)

    def log_likelihood(theta: Tensor, x: Tensor) -> Tensor:
        far = (x - theta).square().sum(1) / 2
        return torch.logaddexp(-far, -100 * far + 2 * math.log(10))

    return Task("gaussian_mixture", box(2, 10.0), simulate, log_likelihood)


def _gaussian(name: str, prior: D.Distribution) -> Task:
    def simulate(theta: Tensor) -> Tensor:
        return theta + math.sqrt(0.1) * torch.randn_like(theta)

    def log_likelihood(theta: Tensor, x: Tensor) -> Tensor:
        return -(x - theta).square().sum(1) / 0.2

    return Task(name, prior, simulate, log_likelihood)


def gaussian_linear() -> Task:
    """x ~ N(theta, 0.1), theta ~ N(0, 0.1) (variances), both of ten entries."""
    prior = D.MultivariateNormal(torch.zeros(10), 0.1 * torch.eye(10))
    return _gaussian("gaussian_linear", prior)


def gaussian_linear_uniform() -> Task:
    """x ~ N(theta, 0.1) (variance), theta uniform in [-1, 1]^10."""
    return _gaussian("gaussian_linear_uniform", box(10, 1.0))


def bernoulli_glm() -> Task:
    """X' y, y ~ Bernoulli(sigmoid(X theta)) of 100 bins: an offset and nine lags of a white-noise stimulus."""
    stimulus = np.random.RandomState(42).randn(100).astype(np.float32)
    design = torch.ones(100, 10)
    for lag in range(9):
        design[:, lag + 1] = torch.tensor(np.r_[np.zeros(lag, np.float32), stimulus[: 100 - lag]])
    step = torch.eye(9) - torch.diag(torch.ones(8), -1)
    smooth = step @ step + torch.diag((torch.arange(9) / 9).sqrt())
    precision = torch.block_diag(torch.tensor([[0.5]]), smooth.T @ smooth)

    def simulate(theta: Tensor) -> Tensor:
        return torch.bernoulli((theta @ design.T).sigmoid()) @ design

    def log_likelihood(theta: Tensor, x: Tensor) -> Tensor:
        return (x * theta).sum(1) - torch.nn.functional.softplus(theta @ design.T).sum(1)

    prior = D.MultivariateNormal(torch.zeros(10), precision_matrix=precision)
    return Task("bernoulli_glm", prior, simulate, log_likelihood)


def runge_kutta(
    slope: Callable[[Tensor], Tensor], start: Tensor, every: float, times: int, steps: int
) -> Tensor:
    """y at 0, every, 2 every, ... (`times` of them), by `steps` classical steps between two; [times, *start]."""
    y, h, out = start, every / steps, [start]
    for _ in range(times - 1):
        for _ in range(steps):
            a = slope(y)
            b = slope(y + h / 2 * a)
            c = slope(y + h / 2 * b)
            y = y + h / 6 * (a + 2 * b + 2 * c + slope(y + h * c))
        out.append(y)
    return torch.stack(out)


def sir() -> Task:
    """Infected of 1,000 tested in a million, every 17 days from one case: S' = -b S I, I' = b S I - g I."""
    people, tested = 1e6, 1000

    def share(theta: Tensor) -> Tensor:
        b, g = theta.double().unbind(1)

        def slope(y: Tensor) -> Tensor:
            new = b * y[0] * y[1]
            return torch.stack((-new, new - g * y[1]))

        start = torch.tensor([1 - 1 / people, 1 / people]).double()[:, None].expand(2, len(b))
        infected = runge_kutta(slope, start, 17.0, 10, 136)[:, 1]
        return infected.T.clamp(0, 1)

    def simulate(theta: Tensor) -> Tensor:
        return D.Binomial(tested, share(theta)).sample().to(theta.dtype)

    def log_likelihood(theta: Tensor, x: Tensor) -> Tensor:
        p = share(theta).clamp(1e-300, 1 - 1e-15)
        return (x * p.log() + (tested - x) * torch.log1p(-p)).sum(1)

    location = torch.tensor([math.log(0.4), math.log(0.125)])
    prior = D.Independent(D.LogNormal(location, torch.tensor([0.5, 0.2])), 1)
    return Task("sir", prior, simulate, log_likelihood)


def lotka_volterra() -> Task:
    """Prey and predators every 2.1 days from (30, 1), with log-normal noise of 0.1; solved in logarithms."""

    def state(theta: Tensor) -> Tensor:
        a, b, c, d = theta.double().unbind(1)

        def slope(y: Tensor) -> Tensor:
            return torch.stack((a - b * y[1].exp(), d * y[0].exp() - c))

        start = torch.tensor([30.0, 1.0]).double().log()[:, None].expand(2, len(a))
        logs = runge_kutta(slope, start, 2.1, 10, 210)
        return logs.permute(2, 1, 0).flatten(1).clamp(math.log(1e-10), math.log(1e4))

    def simulate(theta: Tensor) -> Tensor:
        logs = state(theta)
        return (logs + 0.1 * torch.randn_like(logs)).exp().to(theta.dtype)

    def log_likelihood(theta: Tensor, x: Tensor) -> Tensor:
        return -(x.double().log() - state(theta)).square().sum(1) / 0.02

    location = torch.tensor([-0.125, -3.0, -0.125, -3.0])
    prior = D.Independent(D.LogNormal(location, 0.5 * torch.ones(4)), 1)
    return Task("lotka_volterra", prior, simulate, log_likelihood)


TASKS: dict[str, Callable[[], Task]] = {
    make.__name__: make
    for make in (
        two_moons,
        slcp,
        gaussian_mixture,
        sir,
        gaussian_linear_uniform,
        gaussian_linear,
        bernoulli_glm,
        lotka_volterra,
    )
}
