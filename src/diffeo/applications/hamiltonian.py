"""Hamiltonian Monte Carlo at several temperatures side by side, with exchanges between them."""

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
    """Chains u [chains, rungs, n, d] of n targets exp(-prior - power misfit), the power rising with the rung.

    parts: u [..., n, d] to prior and misfit [..., n], and the expected curvature of the misfit, [..., n, d]. power:
    [rungs, n]. Steps have a diagonal metric, the mean of slope^2 of the prior, which is its mean curvature, and of the
    curvature of the misfit; trajectories have a random number of steps, from half of `leapfrog`.
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
        self.adapted = self.swaps = 0

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
        """A proposal for every chain; [chains, rungs, n], 1 where it was taken."""
        return self._propose()[1].to(self.power.dtype)

    def renew(self, u: Tensor) -> Tensor:
        """Draws of the prior, [chains, n, d], proposed to the lowest rung; the chance of each, [chains, n]."""
        new = self._at(u[:, None])
        old = _State(*(part[:, :1] for part in self.state))
        chance = _chance(self.power[:1] * (old.misfit - new.misfit))
        lowest = _where(self._uniform(chance) < chance, new, old)
        self.state = _State(
            *(torch.cat((a, b[:, 1:]), 1) for a, b in zip(lowest, self.state, strict=True))
        )
        return chance[:, 0]

    def exchange(self) -> Tensor:
        """Neighbouring rungs may exchange their chains, even and odd pairs in turn; chances [chains, pairs, n].

        Syed and others, Non-reversible parallel tempering, 2022, arXiv:1905.02939.
        """
        rungs = len(self.power)
        low = torch.arange(self.swaps % 2, rungs - 1, 2, device=self.power.device)
        self.swaps += 1
        power, misfit = self.power, self.state.misfit
        chance = _chance((power[low + 1] - power[low]) * (misfit[:, low + 1] - misfit[:, low]))
        taken = (self._uniform(chance) < chance).long()
        order = torch.arange(rungs, device=low.device)[None, :, None].repeat(
            len(misfit), 1, misfit.shape[2]
        )
        order[:, low] += taken
        order[:, low + 1] -= taken
        self.state = _State(
            *(
                part.gather(1, order if part.ndim == 3 else order[..., None].expand_as(part))
                for part in self.state
            )
        )
        return chance

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
        chance = _chance(before - self._energy(new) - 0.5 * p.square().sum(-1))
        taken = self._uniform(chance) < chance
        self.state = _where(taken, new, old)
        return chance, taken


def _chance(gain: Tensor) -> Tensor:
    """min(1, e^gain), and 0 for what has left all numbers."""
    return gain.nan_to_num(nan=-math.inf).clamp(max=0.0).exp()


def _where(taken: Tensor, new: _State, old: _State) -> _State:
    return _State(
        *(
            torch.where(taken if a.ndim == 3 else taken[..., None], a, b)
            for a, b in zip(new, old, strict=True)
        )
    )


__all__ = ["Hamiltonian"]
