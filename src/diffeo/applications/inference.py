"""Is an amortized posterior right? Simulation-based calibration, expected coverage, posterior predictive checks.

All three need what inference by simulation has: a prior with `sample`, a simulator of x [n, *x_shape] from theta
[n, *theta_shape], and a posterior: a Flow over theta given x, or a callable `(draws, x) -> [draws, n, *theta_shape]`,
such as `lambda n, x: posterior.sample_batched((n,), x=x)` of sbi. Random numbers are torch's, under `seed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..flow import Flow

Sampler = Flow | Callable[[int, Tensor], Tensor]
LogProb = Callable[[Tensor, Tensor], Tensor]
_BINS = 10
_CHUNK = 50
"""Observations whose draws are held at a time."""


@dataclass(frozen=True)
class Calibration:
    """Ranks of the true parameters among posterior draws, [simulations, entries], from 0 to `draws`.

    p_values: of every entry, that ranks of a right posterior are as far from uniform; the Anderson-Darling distance,
    its law by simulation. p_value: of all entries together (Bonferroni).
    """

    ranks: Tensor
    draws: int
    names: tuple[str, ...]
    p_values: Tensor
    p_value: float
    _uniform: Tensor = field(repr=False)

    def svg(self) -> bytes:
        """Rank histograms with the band of 99 % for each bar, as an SVG picture."""
        from ..report.calibration import Ranks
        from ..report.figures import rank_histograms

        n = len(self._uniform)
        band = 2.576 * ((_BINS - 1) / n) ** 0.5
        found = []
        for u, name, p in zip(self._uniform.T, self.names, self.p_values.tolist(), strict=True):
            heights = torch.histc(u.float(), _BINS, 0, 1).double() * _BINS / n
            found.append(Ranks(f"{name}, p = {p:.2g}", heights, band, 0.0))
        return rank_histograms(found)


@dataclass(frozen=True)
class Coverage:
    """How often credible regions of probability `levels` hold the true parameters: `covered`, both [levels].

    band: half the width of the 95 % interval of each, for a right posterior. p_value: that a right one is as far from
    the diagonal. Above it, regions are too wide; below, too narrow. regions: `highest density` or `distance` (TARP).
    """

    levels: Tensor
    covered: Tensor
    band: Tensor
    p_value: float
    regions: str

    def svg(self) -> bytes:
        """Coverage against level, with the band around the diagonal, as an SVG picture."""
        from ..report.inference import coverage_curve

        return coverage_curve(self.levels, self.covered, self.band)


@dataclass(frozen=True)
class Predictive:
    """Simulations [draws, entries] at posterior draws beside the observation [entries].

    p_values: two-sided, of each entry, 2 min(P(simulated <= observed), P(simulated >= observed)), at most 1. They use
    the observation twice, so they are too large where the posterior fits it closely: small ones are a finding, large
    ones prove little.
    """

    simulated: Tensor
    observed: Tensor
    names: tuple[str, ...]
    p_values: Tensor

    def svg(self) -> bytes:
        """Per entry, the histogram of the simulations and the observation, as an SVG picture."""
        from ..report.inference import predictive_histograms

        return predictive_histograms(self.simulated, self.observed, self.names)


def simulation_based_calibration(
    prior: Any,
    simulate: Callable[[Tensor], Tensor],
    posterior: Sampler,
    *,
    simulations: int = 300,
    draws: int = 100,
    statistics: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Calibration:
    """Ranks of theta ~ prior among draws of the posterior at x ~ simulate(theta): uniform for the right posterior.

    statistics: of theta [n, *theta_shape], to rank in place of its entries, [n, k]. Talts, Betancourt, Simpson,
    Vehtari, Gelman. Validating Bayesian inference algorithms with simulation-based calibration. 2018,
    arXiv:1804.06788. Raises InputError for shapes or values that do not fit.
    """
    of = statistics or (lambda theta: theta.flatten(1))
    with _seeded(seed):
        theta, x = _pairs(prior, simulate, simulations)
        true = of(theta).double()
        below, equal = torch.zeros_like(true), torch.zeros_like(true)
        for part, found in _drawn(posterior, x, draws, theta.shape[1:]):
            values = of(found.flatten(0, 1)).double().unflatten(0, found.shape[:2])
            below[part] = (values < true[part]).double().sum(0)
            equal[part] = (values == true[part]).double().sum(0)
        # Ties are broken at random, and so are the numbers between two ranks.
        ranks = (below + torch.rand_like(below) * (equal + 1)).floor().clamp(max=draws)
        uniform = (ranks + torch.rand_like(ranks)) / (draws + 1)
        p_values = _uniformity(uniform)
    p_value = min(1.0, p_values.numel() * p_values.min().item())
    named = _names(names, true.shape[1], "theta")
    return Calibration(ranks.long(), draws, named, p_values, p_value, uniform)


def coverage(
    prior: Any,
    simulate: Callable[[Tensor], Tensor],
    posterior: Sampler,
    *,
    log_prob: LogProb | None = None,
    simulations: int = 300,
    draws: int = 100,
    levels: int = 19,
    seed: int = 0,
) -> Coverage:
    """The share of true parameters in credible regions of each level, averaged over the prior.

    Regions of highest density by `log_prob(theta [m, n, *theta_shape], x [n, *x_shape]) -> [m, n]`, a Flow's own if
    posterior is one: theta's level is the share of draws with a higher density (Hermans et al., 2021,
    arXiv:2110.06581). Without one, balls about a point drawn from the prior, in deviations of the prior (TARP: Lemos,
    Coogan, Hezaveh, Perreault-Levasseur, 2023, arXiv:2302.03026). Raises InputError for shapes or values that do not
    fit.
    """
    density = posterior.log_prob if log_prob is None and isinstance(posterior, Flow) else log_prob
    with _seeded(seed):
        theta, x = _pairs(prior, simulate, simulations)
        inner, equal = torch.zeros(simulations), torch.zeros(simulations)
        centre, scale = prior.sample((simulations,)), theta.std(0)
        for part, found in _drawn(posterior, x, draws, theta.shape[1:]):
            both = torch.cat((theta[part][None], found))
            if density is None:
                away = ((both - centre[part]) / scale).flatten(2).square().sum(2)
            else:
                away = -density(both, x[part])
            inner[part] = (away[1:] < away[0]).float().sum(0)
            equal[part] = (away[1:] == away[0]).float().sum(0)
        ranks = inner + torch.rand(simulations) * (equal + 1)
        level = (ranks / (draws + 1)).double()
        p_value = _uniformity(level[:, None]).item()
    at = torch.linspace(0, 1, levels + 2, dtype=torch.float64)[1:-1]
    covered = (level[:, None] <= at).double().mean(0)
    band = 1.96 * (at * (1 - at) / simulations).sqrt()
    kind = "distance" if density is None else "highest density"
    return Coverage(at, covered, band, p_value, kind)


def posterior_predictive(
    simulate: Callable[[Tensor], Tensor],
    posterior: Sampler,
    x: Tensor,
    *,
    draws: int = 1000,
    statistics: Callable[[Tensor], Tensor] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Predictive:
    """Simulate at posterior draws given the observation x [*x_shape], and compare entry by entry.

    statistics: of x [n, *x_shape], to compare in place of its entries, [n, k]. Raises InputError for shapes or values
    that do not fit.
    """
    of = statistics or (lambda x: x.flatten(1))
    with _seeded(seed):
        theta = _call(posterior, draws, x[None])[:, 0]
        simulated = simulate(theta)
    if simulated.shape != (draws, *x.shape):
        raise InputError(
            f"the simulator gives {tuple(simulated.shape)} for {draws} parameters, but the observation is "
            f"{tuple(x.shape)}"
        )
    values, observed = of(simulated).double(), of(x[None]).double()[0]
    low = (values <= observed).double().mean(0)
    high = (values >= observed).double().mean(0)
    p_values = (2 * torch.minimum(low, high)).clamp(max=1)
    return Predictive(values, observed, _names(names, values.shape[1], "x"), p_values)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        yield


def _pairs(prior: Any, simulate: Callable[[Tensor], Tensor], n: int) -> tuple[Tensor, Tensor]:
    theta = prior.sample((n,))
    x = simulate(theta)
    if len(x) != n:
        raise InputError(f"the simulator gives {len(x)} rows for {n} parameters")
    bad = ~x.flatten(1).isfinite().all(1)
    if bool(bad.any()):
        raise InputError(f"{int(bad.sum())} of {n} simulations hold NaN or infinite values")
    return theta, x


def _drawn(
    posterior: Sampler, x: Tensor, draws: int, event: Sequence[int]
) -> Iterator[tuple[slice, Tensor]]:
    """Draws [draws, rows, *event] for slices of the observations."""
    for start in range(0, len(x), _CHUNK):
        part = slice(start, start + _CHUNK)
        found = _call(posterior, draws, x[part])
        expected = (draws, len(x[part]), *event)
        if tuple(found.shape) != expected:
            raise InputError(
                f"the posterior gives draws of shape {tuple(found.shape)}, expected {expected}: draws, observations, "
                "then the shape of the parameters"
            )
        yield part, found


def _call(posterior: Sampler, draws: int, x: Tensor) -> Tensor:
    return posterior.sample((draws,), x) if isinstance(posterior, Flow) else posterior(draws, x)


def _names(names: Sequence[str] | None, n: int, stem: str) -> tuple[str, ...]:
    if names is not None and len(names) != n:
        raise InputError(f"expected {n} names, got {len(names)}")
    return tuple(names) if names is not None else tuple(f"{stem}{i + 1}" for i in range(n))


def _uniformity(u: Tensor, repeats: int = 1000) -> Tensor:
    """p-values of the columns of u [n, k] as uniform samples, by the Anderson-Darling distance; [k]."""
    n = len(u)
    null = torch.cat(
        [_anderson_darling(torch.rand(n, 100, dtype=u.dtype)) for _ in range(repeats // 100)]
    )
    beyond = (null[:, None] >= _anderson_darling(u)).sum(0)
    return (beyond + 1) / (len(null) + 1)


def _anderson_darling(u: Tensor) -> Tensor:
    """-n - mean_i (2 i - 1) (log u_(i) + log(1 - u_(n + 1 - i))) of each column."""
    n = len(u)
    tiny = torch.finfo(u.dtype).eps
    s = u.clamp(tiny, 1 - tiny).sort(0).values
    weight = (2 * torch.arange(1, n + 1, dtype=u.dtype) - 1)[:, None]
    return -n - (weight * (s.log() + torch.log1p(-s.flip(0)))).sum(0) / n
