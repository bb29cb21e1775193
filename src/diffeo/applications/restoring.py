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

from ..errors import InputError, ShapeError
from ..flow import Flow
from .diagnostics import effective_size, split_rhat

CENTRE = 0.5
"""Of a bin: integers k stand for [k, k + 1) under a dequantizer."""


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
        return (self.rhat <= 1.05) & (self.effective >= 100)


def most_likely(
    flow: Flow,
    y: Tensor,
    sigma: Any,
    *,
    context: Any = None,
    steps: int = 400,
    lr: float = 0.05,
    start: Tensor | None = None,
) -> Tensor:
    """argmax_x log p(x) - |y - x|^2 / (2 sigma^2), [n, *event_shape], by Adam on the latents, in float.

    y: [n, *event_shape], what was observed. sigma: deviation of the noise in units of the data, for every entry,
    infinite where y says nothing (its values there do not matter). start: pictures to begin at; the mean latent by
    default. Raises ShapeError or InputError for what does not fit.
    """
    inner, energy = _problem(flow, y, sigma, context, jacobian=True)
    if start is None:
        z = torch.zeros(len(y), *flow.latent_shape, dtype=flow.dtype, device=flow.device)
    else:
        z = inner.encode(_centred(flow, start), context).detach()
    z.requires_grad_()
    optimizer = torch.optim.Adam([z], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    best, lowest = z.detach().clone(), torch.full((len(y),), math.inf, device=z.device)
    with torch.enable_grad():
        for _ in range(steps):
            value, _ = energy(z)
            better = (value.detach() < lowest).reshape(-1, *[1] * (z.ndim - 1))
            best = torch.where(better, z.detach(), best)
            lowest = torch.minimum(lowest, value.detach().to(lowest.dtype))
            optimizer.zero_grad()
            (gradient,) = torch.autograd.grad(value.sum(), z)
            z.grad = gradient
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return _in_units(flow, inner.decode(best, context))


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
) -> Posterior:
    """Draws from p(x | y) by Hamiltonian Monte Carlo on the latents, whose prior is the base.

    y, sigma, start: as for `most_likely`. Every picture has a scale for each latent and every chain a step size, set in
    the warm-up, the latter for an acceptance of 0.8; trajectories have a random number of steps up to `leapfrog`. Neal,
    MCMC using Hamiltonian dynamics, 2012, arXiv:1206.1901. Raises ShapeError or InputError for what does not fit.
    """
    if min(chains, draws // 4, warmup + 1, leapfrog) < 1:
        raise InputError(
            f"posterior needs a chain, four draws and a step at least, got {chains}, {draws} and {leapfrog}"
        )
    n = len(y)
    inner, energy = _problem(flow, y, sigma, context, jacobian=False, repeats=chains)
    like = {"dtype": flow.dtype, "device": flow.device}
    z = torch.randn(chains * n, *flow.latent_shape, generator=generator, **like)  # type: ignore[call-overload]
    if start is not None:
        at = inner.encode(_centred(flow, start), context).detach()
        # Chains that begin in different places are what R-hat compares.
        z = at.repeat(chains, *[1] * (at.ndim - 1)) + 0.3 * z
    sampler = _Hamiltonian(energy, z, leapfrog, generator)
    # Each stretch of the warm-up starts from what the one before it found of the scales.
    for length in (warmup // 4, warmup // 4, warmup - 2 * (warmup // 4)):
        seen = []
        for i in range(length):
            sampler.step(adapt=i + 1)
            seen.append(sampler.z)
        sampler.settle(seen[len(seen) // 2 :], chains)
    kept, accepted = [], torch.zeros(chains * n, **like)  # type: ignore[call-overload]
    for _ in range(draws):
        accepted += sampler.step()
        kept.append(_in_units(flow, sampler.x).reshape(chains, n, *flow.event_shape))
    found = torch.stack(kept, 1)
    flat = found.reshape(chains, draws, n, -1)
    return Posterior(
        found,
        split_rhat(flat).amax(-1),
        effective_size(flat).amin(-1),
        accepted.reshape(chains, n).mean(0) / draws,
    )


class _Hamiltonian:
    """Chains z [rows, *latent] that do not know of each other; energy(z) gives a value per row, and x."""

    def __init__(
        self,
        energy: Callable[[Tensor], tuple[Tensor, Tensor]],
        z: Tensor,
        leapfrog: int,
        generator: torch.Generator | None,
    ) -> None:
        self.energy, self.leapfrog, self.generator = energy, leapfrog, generator
        self.z, self.scale = z, torch.ones_like(z)
        self.value, self.slope, self.x = self._at(z)
        self.log_step = torch.full((len(z),), math.log(0.1), dtype=z.dtype, device=z.device)
        # Dual averaging, Hoffman and Gelman, 2014, arXiv:1111.4246, with its constants.
        self.target = self.log_step + math.log(10.0)
        self.error = torch.zeros_like(self.log_step)
        self.average = torch.zeros_like(self.log_step)

    def _at(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value, x = self.energy(z)
            (slope,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), slope, x.detach()

    def _wide(self, rows: Tensor) -> Tensor:
        return rows.reshape(-1, *[1] * (self.z.ndim - 1))

    def step(self, adapt: int = 0) -> Tensor:
        """One proposal for every row; 1 where it was taken. adapt: how many so far, in the warm-up."""
        p = torch.randn(
            self.z.shape, generator=self.generator, dtype=self.z.dtype, device=self.z.device
        )
        before = self.value + 0.5 * p.square().flatten(1).sum(1)
        # In units of the scales, which stand for a diagonal mass matrix.
        step = self._wide(self.log_step.exp()) * self.scale
        z, value, slope, x = self.z, self.value, self.slope, self.x
        count = int(torch.randint(1, self.leapfrog + 1, (), generator=self.generator))
        for _ in range(count):
            p = p - 0.5 * step * slope
            z = z + step * p
            value, slope, x = self._at(z)
            p = p - 0.5 * step * slope
        after = value + 0.5 * p.square().flatten(1).sum(1)
        # A trajectory that left all numbers is refused.
        chance = (before - after).nan_to_num(nan=-math.inf).clamp(max=0.0).exp()
        drawn = torch.rand(len(z), generator=self.generator, dtype=z.dtype, device=z.device)
        taken = drawn < chance
        wide = self._wide(taken)
        self.z = torch.where(wide, z, self.z)
        self.slope = torch.where(wide, slope, self.slope)
        self.value = torch.where(taken, value, self.value)
        self.x = torch.where(taken.reshape(-1, *[1] * (x.ndim - 1)), x, self.x)
        if adapt:
            self.error += (0.8 - chance - self.error) / (adapt + 10)
            self.log_step = self.target - adapt**0.5 / 0.05 * self.error
            self.average += adapt**-0.75 * (self.log_step - self.average)
        return taken.to(z.dtype)

    def settle(self, seen: list[Tensor], chains: int) -> None:
        """Take the scales from draws of the warm-up and the step sizes that it found, and adapt from there."""
        if not seen:
            return
        self.log_step = self.average
        if len(seen) * chains > 20:
            by_picture = torch.stack(seen).unflatten(1, (chains, -1))
            n = len(seen) * chains
            # A little towards one, for scales that few draws do not know.
            variance = (n * by_picture.flatten(0, 1).var(0) + 5) / (n + 5)
            wanted = variance.sqrt().repeat(chains, *[1] * (self.z.ndim - 1))
            # The same step in the middle of the scales.
            ratio = (self.scale / wanted).log().flatten(1).mean(1)
            self.log_step, self.scale = self.log_step + ratio, wanted
        self.target = self.log_step + math.log(10.0)
        self.error = torch.zeros_like(self.log_step)
        self.average = torch.zeros_like(self.log_step)


def _problem(
    flow: Flow, y: Tensor, sigma: Any, context: Any, *, jacobian: bool, repeats: int = 1
) -> tuple[Flow, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """The flow over real numbers, and -log of (p(x), or with no jacobian p(z)) N(y; x, sigma^2), with x.

    z: `repeats` times the rows of y.
    """
    if tuple(y.shape[1:]) != flow.event_shape or not len(y):
        raise ShapeError(
            f"this flow restores pictures [n, {', '.join(map(str, flow.event_shape))}], got {tuple(y.shape)}"
        )
    deviation = torch.as_tensor(sigma, dtype=flow.dtype, device=flow.device).expand(y.shape)
    if not bool((deviation > 0).all()):
        raise InputError("sigma must be positive everywhere, and infinite where nothing is known")
    known = deviation.isfinite()
    weight = torch.where(known, deviation, torch.ones_like(deviation)).reciprocal() * known
    observed = torch.where(known, _centred(flow, y), torch.zeros_like(weight))
    weight, observed = (t.repeat(repeats, *[1] * (t.ndim - 1)) for t in (weight, observed))
    inner = flow.continuous.eval()
    _, _, rows = inner._sample_rows((repeats,), context, (len(y),))

    def energy(z: Tensor) -> tuple[Tensor, Tensor]:
        x, ladj = inner.transform.inverse(z, rows)
        misfit = 0.5 * (weight * (observed - x)).square().flatten(1).sum(1)
        prior = inner.base.log_prob(z, rows)
        return misfit - prior + (ladj if jacobian else 0), x

    return inner, energy


def _centred(flow: Flow, x: Tensor) -> Tensor:
    x = x.to(device=flow.device, dtype=flow.dtype)
    return x + CENTRE if flow.discrete else x


def _in_units(flow: Flow, x: Tensor) -> Tensor:
    """Numbers on the scale of the data: k stands for the integer k."""
    return x - CENTRE if flow.discrete else x


__all__ = ["Posterior", "most_likely", "posterior"]
