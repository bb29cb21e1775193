"""Hamiltonian Monte Carlo on many targets side by side, several chains each."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Energy = Callable[[Tensor], tuple[Tensor, Tensor]]
ACCEPTANCE = 0.7


class Hamiltonian:
    """Chains z [chains, n, d] that do not know of each other, the chains of one column having one target.

    Trajectories have a random number of steps up to `leapfrog`. Neal, MCMC using Hamiltonian dynamics, 2012,
    arXiv:1206.1901.
    """

    def __init__(self, z: Tensor, leapfrog: int, generator: torch.Generator | None) -> None:
        self.z, self.leapfrog, self.generator = z, leapfrog, generator
        self.log_step = torch.full_like(z[0, :, 0], math.log(0.3))

    def aim(self, energy: Energy, metric: Tensor) -> None:
        """From now on draw from exp(-energy), with momenta of the covariance `metric` [n, d, d]; steps adapt anew.

        energy: z to the energies [chains, n] and x [chains, n, ...], which is kept beside z.
        """
        self.energy = energy
        # In float64: what is well known and what is not may differ by orders of magnitude.
        upper = torch.linalg.cholesky(metric.double()).mT
        identity = torch.eye(upper.shape[-1], dtype=upper.dtype, device=upper.device)
        # root root^T is the inverse of the metric: z = root w, and w has unit mass.
        root = torch.linalg.solve_triangular(upper, identity.expand_as(upper), upper=True)
        self.root = root.to(self.z.dtype)
        self.value, self.slope, self.x = self._at(self.z)
        # Dual averaging, Hoffman and Gelman, 2014, arXiv:1111.4246, with its constants.
        self.target = self.log_step + math.log(3.0)
        self.error, self.average = torch.zeros_like(self.target), torch.zeros_like(self.target)
        self.adapted = 0

    def adapt(self) -> None:
        """A proposal for every chain; the step size of their target goes towards an acceptance of 0.7."""
        chance, _ = self._propose()
        self.adapted += 1
        self.error += (ACCEPTANCE - chance.mean(0) - self.error) / (self.adapted + 10)
        self.log_step = self.target - self.adapted**0.5 / 0.05 * self.error
        self.average += self.adapted**-0.75 * (self.log_step - self.average)

    def settle(self) -> None:
        """Take the step sizes that `adapt` found."""
        if self.adapted:
            self.log_step = self.average

    def step(self) -> Tensor:
        """A proposal for every chain; [chains, n], 1 where it was taken."""
        return self._propose()[1].to(self.z.dtype)

    def _at(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value, x = self.energy(z)
            (slope,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), slope, x.detach()

    def _uniform(self) -> Tensor:
        rows = self.z[..., 0]
        return torch.rand(
            rows.shape, generator=self.generator, dtype=rows.dtype, device=rows.device
        )

    def _propose(self) -> tuple[Tensor, Tensor]:
        """The chance of each proposal, and whether it was taken."""
        z, value, slope, x = self.z, self.value, self.slope, self.x
        p = torch.randn(z.shape, generator=self.generator, dtype=z.dtype, device=z.device)
        before = value + 0.5 * p.square().sum(-1)
        # A chain in a narrow place goes on by the shorter ones.
        factor = 0.5 + self._uniform()
        step = (factor * self.log_step.exp())[..., None]
        for _ in range(int(torch.randint(1, self.leapfrog + 1, (), generator=self.generator))):
            p = p - 0.5 * step * torch.einsum("nij,cni->cnj", self.root, slope)
            z = z + step * torch.einsum("nij,cnj->cni", self.root, p)
            value, slope, x = self._at(z)
            p = p - 0.5 * step * torch.einsum("nij,cni->cnj", self.root, slope)
        after = value + 0.5 * p.square().sum(-1)
        # A trajectory that left all numbers is refused.
        chance = (before - after).nan_to_num(nan=-math.inf).clamp(max=0.0).exp()
        taken = self._uniform() < chance
        self.z = torch.where(taken[..., None], z, self.z)
        self.slope = torch.where(taken[..., None], slope, self.slope)
        self.value = torch.where(taken, value, self.value)
        self.x = torch.where(taken.reshape(*taken.shape, *[1] * (x.ndim - 2)), x, self.x)
        return chance, taken


__all__ = ["Hamiltonian"]
