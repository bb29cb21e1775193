"""Pictures restored under the exact likelihood: the most likely one, and draws from the posterior.

y = x + sigma n, sigma given for every entry and infinite where nothing is known: so denoising and inpainting are one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, ShapeError
from ..flow import Flow
from .diagnostics import effective_size, split_rhat
from .hamiltonian import Hamiltonian

CENTRE = 0.5
"""Of a bin: integers k stand for [k, k + 1) under a dequantizer."""
BIN = 1 / math.sqrt(12)
"""The standard deviation of real numbers within their bin."""
RHAT, EFFECTIVE = 1.05, 100
RUNG = 4
"""Between powers of the likelihood in the warm-up."""
ROWS = 1024
"""At once, for Jacobians."""
JACOBIANS = 512
"""Times latents: how many chains have theirs averaged, four of 128 latents, or one of many."""


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
    """argmax_x log p(x) - |y - x|^2 / (2 sigma^2), [n, *event_shape], by Adam on the latents, in float.

    y: [n, *event_shape], what was observed. sigma: deviation of the noise in units of the data, for every entry,
    infinite where y says nothing (its values there do not matter). For integer data the deviation of a bin, 1 / 12^1/2,
    is added to it (in squares), so that 0 stands for what is known. start: pictures to begin at; the mean latent by
    default. Raises ShapeError or InputError for what does not fit.
    """
    problem = _Problem(flow, y, sigma, context)
    z = problem.middle() if start is None else problem.encode(start)
    z.requires_grad_()
    optimizer = torch.optim.Adam([z], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    best, lowest = z.detach().clone(), torch.full_like(z[..., 0].detach(), math.inf)
    with torch.enable_grad():
        for _ in range(steps):
            x, ladj = problem.decode(z)
            value = problem.misfit(x) - problem.prior(z) + ladj
            better = value.detach() < lowest
            best = torch.where(better[..., None], z.detach(), best)
            lowest = torch.where(better, value.detach(), lowest)
            optimizer.zero_grad()
            z.grad = torch.autograd.grad(value.sum(), z)[0]
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return problem.in_units(problem.decode(best)[0])[0]


def posterior(
    flow: Flow,
    y: Tensor,
    sigma: Any,
    *,
    context: Any = None,
    chains: int = 4,
    draws: int = 250,
    warmup: int = 250,
    leapfrog: int = 10,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Posterior:
    """Draws from p(x | y) by Hamiltonian Monte Carlo on the latents, whose prior is the base.

    y, sigma, start: as for `most_likely`; without a start, chains begin at draws of the prior, and the likelihood comes
    in by powers below one. The momenta of a picture have the covariance I + J^T J / sigma^2, J = dx/dz, the mean over
    some of its chains, and its step size is set for an acceptance of 0.7; both are found in the warm-up.
    Trajectories have a random number of steps up to `leapfrog`. progress: called with the steps done and their number.
    Neal, MCMC using Hamiltonian dynamics, 2012, arXiv:1206.1901. Raises ShapeError or InputError for what does not fit.
    """
    if min(chains, draws // 4, warmup + 1, leapfrog) < 1:
        raise InputError(
            f"posterior needs a chain, four draws and a step at least, got {chains}, {draws} and {leapfrog}"
        )
    problem = _Problem(flow, y, sigma, context)
    z = problem.noise(chains, generator)
    if start is not None:
        # Chains that begin in different places are what R-hat compares.
        z = problem.encode(start) + 0.3 * z
    sampler = Hamiltonian(z, leapfrog, generator)
    tell = progress or (lambda done, total: None)
    done = 0
    for power, length in problem.stages(z, warmup):
        sampler.aim(problem.energy(power), problem.metric(sampler.z, power))
        for _ in range(length):
            sampler.adapt()
            done += 1
            tell(done, warmup + draws)
        sampler.settle()
    kept, accepted = [], torch.zeros_like(z[..., 0])
    for _ in range(draws):
        accepted += sampler.step()
        kept.append(problem.in_units(sampler.x))
        done += 1
        tell(done, warmup + draws)
    found = torch.stack(kept, 1)
    flat = found.flatten(3)
    return Posterior(
        found, split_rhat(flat).amax(-1), effective_size(flat).amin(-1), accepted.mean(0) / draws
    )


class _Problem:
    """p(z) and N(y; x(z), sigma^2) of n pictures, for latents z [k, n, d], any k of them for each picture."""

    def __init__(self, flow: Flow, y: Tensor, sigma: Any, context: Any) -> None:
        if tuple(y.shape[1:]) != flow.event_shape or not len(y):
            raise ShapeError(
                f"this flow restores pictures [n, {', '.join(map(str, flow.event_shape))}], got {tuple(y.shape)}"
            )
        self.n, self.context, self.discrete = len(y), context, flow.discrete
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
        self.y = torch.where(self.known, self._centred(y).flatten(1), 0)
        self._rows: dict[int, Any] = {}

    def noise(self, k: int, generator: torch.Generator | None) -> Tensor:
        """Draws of the base, [k, n, d]."""
        d = math.prod(self.flow.latent_shape)
        with torch.no_grad():
            z = self.flow.base.sample(k * self.n, self.rows(k), generator=generator)
        return z.reshape(k, self.n, d)

    def middle(self) -> Tensor:
        """Zero, [1, n, d]."""
        return torch.zeros(1, self.n, math.prod(self.flow.latent_shape), **self.like)

    def rows(self, k: int) -> Any:
        """The context of k latents for each picture."""
        if k not in self._rows:
            with torch.no_grad():
                self._rows[k] = self.flow._sample_rows((k,), self.context, (self.n,))[2]
        return self._rows[k]

    def encode(self, x: Tensor) -> Tensor:
        """The latents of pictures, [1, n, d]."""
        with torch.no_grad():
            return self.flow.encode(self._centred(x), self.context).detach().flatten(1)[None]

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x [k, n, *event_shape] and log|dx/dz| [k, n]."""
        rows = z.reshape(-1, *self.flow.latent_shape)
        x, ladj = self.flow.transform.inverse(rows, self.rows(len(z)))
        return x.unflatten(0, z.shape[:2]), ladj.reshape(z.shape[:2])

    def prior(self, z: Tensor) -> Tensor:
        rows = z.reshape(-1, *self.flow.latent_shape)
        log_p: Tensor = self.flow.base.log_prob(rows, self.rows(len(z)))
        return log_p.reshape(z.shape[:2])

    def misfit(self, x: Tensor) -> Tensor:
        return 0.5 * (self.weight * (self.y - x.flatten(2))).square().sum(-1)

    def energy(self, power: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """-log of p(z) times the likelihood to a power [n], and x."""

        def energy(z: Tensor) -> tuple[Tensor, Tensor]:
            x, _ = self.decode(z)
            return power * self.misfit(x) - self.prior(z), x

        return energy

    @torch.no_grad()
    def stages(self, z: Tensor, length: int) -> list[tuple[Tensor, int]]:
        """Powers of the likelihood, rising to one from what the misfit at z asks for, and the steps under each."""
        expected = 0.5 * self.known.sum(-1)
        first = (expected / self.misfit(self.decode(z)[0]).mean(0)).clamp(max=1.0)
        rungs = math.ceil(math.log(1 / max(first.min().item(), 1e-6), RUNG))
        powers = [first ** (1 - i / rungs) for i in range(rungs)] + [torch.ones_like(first)] * 2
        # Half of the steps, in two parts, are under the posterior itself.
        ends = [length * i // (2 * rungs) for i in range(rungs + 1)] if rungs else [0]
        ends += [(ends[-1] + length) // 2, length]
        return [(p, b - a) for p, (a, b) in zip(powers, pairwise(ends), strict=True)]

    def metric(self, z: Tensor, power: Tensor) -> Tensor:
        """I + power J^T J / sigma^2, J = dx/dz, the mean over some of the chains: its curvature to first order."""
        z = z[: max(1, JACOBIANS // z.shape[-1])]
        k, n, d = z.shape
        total = torch.zeros(n, d, d, **self.like)
        outputs = self.known.any(0).nonzero()[:, 0]
        for some in outputs.split(max(1, ROWS // (k * n))):
            with torch.enable_grad():
                many = z.detach().repeat(len(some), 1, 1).requires_grad_()
                x = self.decode(many)[0].flatten(2).unflatten(0, (len(some), k))
                one = x.gather(-1, some[:, None, None, None].expand(-1, k, n, 1))
                (slope,) = torch.autograd.grad(one.sum(), many)
            slope = slope.unflatten(0, (len(some), k)) * self.weight.mT[some][:, None, :, None]
            total += torch.einsum("skni,sknj->nij", slope, slope)
        identity = torch.eye(d, **self.like)
        return identity + power[:, None, None] / k * total

    def in_units(self, x: Tensor) -> Tensor:
        """Numbers on the scale of the data: k stands for the integer k."""
        return x - CENTRE if self.discrete else x

    def _centred(self, x: Tensor) -> Tensor:
        x = x.to(**self.like)
        return x + CENTRE if self.discrete else x


__all__ = ["Posterior", "most_likely", "posterior"]
