"""Pictures restored under the exact likelihood: the most likely one, and draws from the posterior.

y = x + sigma n, sigma given for every entry and infinite where nothing is known: so denoising and inpainting are one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..errors import InputError, ShapeError
from ..flow import Flow
from .diagnostics import effective_size, split_rhat
from .hamiltonian import Hamiltonian
from .tables import flow_levels

CENTRE = 0.5
"""Of a bin: integers k stand for [k, k + 1) under a dequantizer."""
BIN = 1 / math.sqrt(12)
"""The standard deviation of real numbers within their bin."""
RHAT, EFFECTIVE = 1.05, 100


@dataclass(frozen=True)
class Posterior:
    """Draws [chains, draws, n, *event_shape] of restored events, in the units of the data.

    rhat, effective: of every picture, the worst of its entries, [n]; accepted: share of the proposals, [n].
    """

    draws: Tensor
    rhat: Tensor
    effective: Tensor
    accepted: Tensor

    @property
    def mean(self) -> Tensor:
        """The posterior mean, [n, *event_shape]: the best guess in mean squared error."""
        return self.draws.mean((0, 1))

    @property
    def deviation(self) -> Tensor:
        """The posterior standard deviation of every entry, [n, *event_shape]."""
        return self.draws.flatten(0, 1).std(0)

    @property
    def converged(self) -> Tensor:
        """R-hat at most 1.05 and 100 effective draws, [n]."""
        return (self.rhat <= RHAT) & (self.effective >= EFFECTIVE)


def most_likely(
    flow: Flow,
    y: Tensor,
    sigma: Any,
    *,
    context: Any = None,
    steps: int = 200,
    lr: float = 0.05,
    start: Tensor | None = None,
) -> Tensor:
    """argmax_x log p(x) - |y - x|^2 / (2 sigma^2), [n, *event_shape], by Adam, in float.

    y: [n, *event_shape], what was observed. sigma: deviation of the noise in units of the data, for every entry,
    infinite where y says nothing (its values there do not matter). For integer data the deviation of a bin, 1 / 12^1/2,
    is added to it (in squares), so that 0 stands for what is known. start: pictures to begin at; that of the mean
    latent by default. Raises ShapeError or InputError for what does not fit.
    """
    problem = _Problem(flow, y, sigma, context)
    mean = problem.prior_draws(1, None, temperature=0)
    u = problem.inward(mean if start is None else problem.centred(start)[None])
    u.requires_grad_()
    optimizer = torch.optim.Adam([u], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    best, lowest = u.detach().clone(), torch.full_like(u[..., 0].detach(), math.inf)
    with torch.enable_grad():
        for _ in range(steps):
            x, _ = problem.outward(u)
            value = problem.misfit(x) - problem.log_prob(x)
            better = value.detach() < lowest
            best = torch.where(better[..., None], u.detach(), best)
            lowest = torch.where(better, value.detach(), lowest)
            optimizer.zero_grad()
            u.grad = torch.autograd.grad(value.sum(), u)[0]
            optimizer.step()
            schedule.step()
    return problem.in_units(best)[0]


def posterior(
    flow: Flow,
    y: Tensor,
    sigma: Any,
    *,
    context: Any = None,
    chains: int = 8,
    draws: int = 2000,
    warmup: int = 100,
    leapfrog: int = 8,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Posterior:
    """Draws from p(x | y) by Hamiltonian Monte Carlo, integers through x = levels / (1 + e^-u).

    y, sigma: as for `most_likely`. Chains begin at draws of the flow and know nothing of each other; in the warm-up the
    likelihood's power rises to one, and step sizes and metrics are found. Trajectories have up to `leapfrog` steps.
    progress: called with the steps done and their number. Raises ShapeError or InputError for what does not fit.
    """
    if min(chains, draws // 4, warmup + 1, leapfrog) < 1:
        raise InputError(
            "posterior needs a chain, four draws and a step at least, "
            f"got {chains}, {draws} and {leapfrog}"
        )
    problem = _Problem(flow, y, sigma, context)
    # Draws out of range begin at its edge.
    u = problem.inward(problem.prior_draws(chains, generator))
    first = problem.first_power(u)
    sampler = Hamiltonian(u, problem.parts, first, leapfrog=leapfrog, generator=generator)
    tell = progress or (lambda done, total: None)
    for i in range(warmup):
        sampler.power = first ** (1 - min(1.0, 2 * (i + 1) / warmup))
        sampler.adapt()
        tell(i + 1, warmup + draws)
    sampler.power = torch.ones_like(first)
    kept, accepted = [], torch.zeros_like(first)
    for i in range(draws):
        accepted += sampler.step().mean(0)
        kept.append(problem.in_units(sampler.state.u))
        tell(warmup + i + 1, warmup + draws)
    found = torch.stack(kept, 1)
    flat = found.flatten(3)
    return Posterior(
        found, split_rhat(flat).amax(-1), effective_size(flat).amin(-1), accepted / draws
    )


class _Problem:
    """p(x) and N(y; x, sigma^2) of n pictures; x = u, or levels / (1 + e^-u) for integers; u [..., n, d]."""

    def __init__(self, flow: Flow, y: Tensor, sigma: Any, context: Any) -> None:
        if tuple(y.shape[1:]) != flow.event_shape or not len(y):
            raise ShapeError(
                f"this flow restores pictures [n, {', '.join(map(str, flow.event_shape))}], got {tuple(y.shape)}"
            )
        self.n, self.context, self.discrete = len(y), context, flow.discrete
        self.levels = flow_levels(flow)
        self.flow = flow.frozen().continuous
        self.like: dict[str, Any] = {"dtype": flow.dtype, "device": flow.device}
        deviation = torch.as_tensor(sigma, **self.like).expand(y.shape).flatten(1)
        if self.discrete:
            deviation = torch.where(deviation >= 0, deviation.square() + BIN**2, deviation).sqrt()
        if not bool((deviation > 0).all()):
            raise InputError(
                "sigma must be positive everywhere (or 0, for integer data), and infinite where nothing is known"
            )
        self.weight = deviation.reciprocal()
        self.known = self.weight > 0
        self.y = torch.where(self.known, self.centred(y).flatten(1), 0)

    @torch.no_grad()
    def prior_draws(
        self, k: int, generator: torch.Generator | None, *, temperature: float = 1.0
    ) -> Tensor:
        """x of the flow alone, [k, n, *event_shape]; that of the mean latent at temperature 0."""
        return self.flow.sample(
            k, self.context, temperature, generator=generator, batch_shape=(self.n,)
        )

    def inward(self, x: Tensor) -> Tensor:
        """u of x, [..., n, d]; what is out of the range of levels becomes its edge."""
        x = x.flatten(-len(self.flow.event_shape))
        return x if self.levels is None else torch.logit((x / self.levels).clamp(1e-3, 1 - 1e-3))

    def outward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """x [..., n, d] and log|dx/du| [..., n]."""
        if self.levels is None:
            return u, torch.zeros_like(u[..., 0])
        ladj = math.log(self.levels) + logsigmoid(u) + logsigmoid(-u)
        return self.levels * u.sigmoid(), ladj.sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """[..., n]."""
        return self.flow.log_prob(x.unflatten(-1, self.flow.event_shape), self.context)

    def misfit(self, x: Tensor) -> Tensor:
        return 0.5 * (self.weight * (self.y - x)).square().sum(-1)

    def parts(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-log p(u), the misfit, and its expected curvature (dx/du / sigma)^2."""
        x, ladj = self.outward(u)
        slope = torch.ones_like(x) if self.levels is None else x * (1 - x / self.levels)
        return -self.log_prob(x) - ladj, self.misfit(x), (self.weight * slope).square()

    def first_power(self, u: Tensor) -> Tensor:
        """What the misfit at draws of the prior asks for, [n]."""
        expected = 0.5 * self.known.sum(-1)
        misfit = self.misfit(self.outward(u)[0]).mean(0)
        return (expected / misfit.clamp(min=1e-6)).clamp(1e-6, 1.0)

    def in_units(self, u: Tensor) -> Tensor:
        """x [..., n, *event_shape] on the scale of the data: k stands for the integer k."""
        x = self.outward(u.detach())[0].unflatten(-1, self.flow.event_shape)
        found: Tensor = x - CENTRE if self.discrete else x
        return found

    def centred(self, x: Tensor) -> Tensor:
        x = x.to(**self.like)
        return x + CENTRE if self.discrete else x


__all__ = ["Posterior", "most_likely", "posterior"]
