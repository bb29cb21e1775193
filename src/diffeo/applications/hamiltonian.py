"""Hamiltonian Monte Carlo of many chains side by side, their likelihood raised to a power."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Parts = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
ACCEPTANCE = 0.8


class _State(NamedTuple):
    """Where chains are, what -log of prior and likelihood are there, their slopes, and the curvature of the latter."""

    u: Tensor
    prior: Tensor
    misfit: Tensor
    prior_slope: Tensor
    misfit_slope: Tensor
    misfit_curvature: Tensor


class Hamiltonian:
    """Chains u [chains, n, d] of n targets exp(-prior - power misfit), power [n].

    parts: u [..., n, d] to prior and misfit [..., n], and the expected curvature of the misfit, [..., n, d]. Steps
    have a diagonal metric, the mean of slope^2 of the prior, which is its mean curvature, and of the curvature of the
    misfit; trajectories have a random number of steps, from half of `leapfrog`.
    Neal, MCMC using Hamiltonian dynamics, 2012, arXiv:1206.1901.
    """

    def __init__(
        self,
        u: Tensor,
        parts: Parts,
        power: Tensor,
        *,
        leapfrog: int,
        generator: torch.Generator | None,
    ) -> None:
        self.parts, self.power, self.leapfrog, self.generator = parts, power, leapfrog, generator
        self.state = self._at(u)
        self.curvature = self._curvature()
        self.log_step = torch.full_like(power, math.log(0.2))
        self.adapted = 0

    def adapt(self) -> None:
        """A proposal for every chain; step sizes go towards an acceptance of 0.8, and the metric follows the slopes."""
        chance, _ = self._propose()
        self.adapted += 1
        self.log_step = self.log_step + self.adapted**-0.5 * (chance.mean(0) - ACCEPTANCE)
        # Over about the last quarter of the steps: powers have risen since.
        self.curvature = self.curvature + (self._curvature() - self.curvature) / (
            1 + self.adapted / 4
        )

    def step(self) -> Tensor:
        """A proposal for every chain; [chains, n], 1 where it was taken."""
        return self._propose()[1].to(self.power.dtype)

    def _at(self, u: Tensor) -> _State:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            prior, misfit, curvature = self.parts(u)
            (misfit_slope,) = torch.autograd.grad(misfit.sum(), u, retain_graph=True)
            (prior_slope,) = torch.autograd.grad(prior.sum(), u)
        return _State(
            u.detach(),
            prior.detach(),
            misfit.detach(),
            prior_slope,
            misfit_slope,
            curvature.detach(),
        )

    def _energy(self, state: _State) -> Tensor:
        return state.prior + self.power * state.misfit

    def _slope(self, state: _State) -> Tensor:
        return state.prior_slope + self.power[..., None] * state.misfit_slope

    def _curvature(self) -> Tensor:
        # Not slope^2 of the misfit, which is large as long as chains are far off.
        state = self.state
        curvature = state.prior_slope.square() + self.power[..., None] * state.misfit_curvature
        return curvature.mean(0)

    def _uniform(self, like: Tensor) -> Tensor:
        return torch.rand(
            like.shape, generator=self.generator, dtype=like.dtype, device=like.device
        )

    def _propose(self) -> tuple[Tensor, Tensor]:
        """The chance of each proposal, and whether it was taken."""
        new = old = self.state
        p = torch.randn(
            old.u.shape, generator=self.generator, dtype=old.u.dtype, device=old.u.device
        )
        before = self._energy(old) + 0.5 * p.square().sum(-1)
        # A chain in a narrow place goes on by the shorter ones.
        factor = 0.6 + 0.8 * self._uniform(old.prior)
        tiny = torch.finfo(p.dtype).tiny
        step = (factor * self.log_step.exp())[..., None] * self.curvature.clamp(min=tiny).rsqrt()
        shortest = (self.leapfrog + 1) // 2
        for _ in range(
            int(torch.randint(shortest, self.leapfrog + 1, (), generator=self.generator))
        ):
            p = p - 0.5 * step * self._slope(new)
            new = self._at(new.u + step * p)
            p = p - 0.5 * step * self._slope(new)
        gain = before - self._energy(new) - 0.5 * p.square().sum(-1)
        # 0 for what has left all numbers.
        chance = gain.nan_to_num(nan=-math.inf).clamp(max=0.0).exp()
        taken = self._uniform(chance) < chance
        self.state = _State(
            *(
                torch.where(taken if a.ndim == 2 else taken[..., None], a, b)
                for a, b in zip(new, old, strict=True)
            )
        )
        return chance, taken


__all__ = ["Hamiltonian"]
