"""Checks of a density: it integrates to 1 in one and two dimensions, and its samples follow it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..properties import Domain
from .case import expect
from .report import Failure

P_VALUE = 1e-4
"""Samples fail where chi-square would be as large by chance with a smaller probability."""

_CELLS = {1: 64, 2: 20}
_FINE = {1: 64, 2: 24}


@dataclass(frozen=True)
class Grid:
    """A product grid on (0, 1)^d, mapped to the domain: low + (high - low) u, or c + width sinh(reach (2u - 1))."""

    domain: Domain
    center: Tensor
    width: Tensor
    reach: float = 6.0

    @staticmethod
    def of(samples: Tensor, domain: Domain | None) -> Grid:
        """A grid that suits samples [n, d]: on a line, of their median and half the width of their middle half."""
        q = samples.double().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64), dim=0)
        return Grid(domain or Domain(), q[1], ((q[2] - q[0]) / 2).clamp(min=1e-6))

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.domain.low) and math.isfinite(self.domain.high)

    def x(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Points [n, d] and log |dx/du| [n]."""
        if self.bounded:
            size = self.domain.high - self.domain.low
            return self.domain.low + size * u, u.new_full((len(u),), u.shape[1] * math.log(size))
        t = self.reach * (2 * u - 1)
        slope = (2 * self.reach * self.width * t.cosh()).log().sum(-1)
        return self.center + self.width * t.sinh(), slope

    def u(self, x: Tensor) -> Tensor:
        """Where points [n, d] lie on (0, 1)^d; those beyond the grid at its edge."""
        if self.bounded:
            u = (x - self.domain.low) / (self.domain.high - self.domain.low)
        else:
            u = (((x - self.center) / self.width).asinh() / self.reach + 1) / 2
        return u.clamp(0, 1 - 1e-12)


@torch.no_grad()
def cell_masses(log_prob: Callable[[Tensor], Tensor], grid: Grid, d: int) -> Tensor:
    """Probability of every cell of the grid, [cells^d], by the midpoint rule."""
    cells, fine = _CELLS[d], _FINE[d]
    n = cells * fine
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    u = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    x, slope = grid.x(u)
    pieces = [log_prob(part) for part in torch.split(x, 2**15)]
    mass = (torch.cat(pieces) + slope).exp() / n**d
    if not bool(mass.isfinite().all()):
        raise Failure(f"the density is not finite at {x[~mass.isfinite()][0].tolist()}")
    shape = [cells, fine] * d
    total: Tensor = mass.reshape(shape).sum(tuple(range(1, 2 * d, 2)))
    return total.flatten()


def integral_is_one(masses: Tensor, tolerance: float) -> float:
    """|sum of the masses - 1|."""
    total = float(masses.sum())
    return expect(abs(total - 1), tolerance, f"the density integrates to {total:.8f}, not 1")


def samples_follow(samples: Tensor, masses: Tensor, grid: Grid) -> float:
    """Chi-square of the counts per cell; cells with an expectation under 5 count as one. Returns the p-value."""
    d = samples.shape[1]
    index = (grid.u(samples.double()) * _CELLS[d]).long()
    flat = index[:, 0] if d == 1 else index[:, 0] * _CELLS[d] + index[:, 1]
    counts = torch.bincount(flat, minlength=len(masses)).double()
    expected = len(samples) * masses / masses.sum()
    large = expected >= 5
    counts = torch.cat((counts[large], counts[~large].sum()[None]))
    expected = torch.cat((expected[large], expected[~large].sum()[None]))
    kept = expected > 1
    chi2 = float(((counts - expected) ** 2 / expected.clamp(min=1e-9))[kept].sum())
    freedom = int(kept.sum()) - 1
    if freedom < 1:
        raise Failure("all samples are expected in one cell")
    p = chi_square_p_value(chi2, freedom)
    if p < P_VALUE:
        raise Failure(f"chi-square {chi2:.1f} for {freedom} degrees of freedom: p = {p:.1e}")
    return p


def chi_square_p_value(chi2: float, freedom: int) -> float:
    """P(chi-square of `freedom` degrees >= chi2) = Q(freedom / 2, chi2 / 2)."""
    half = torch.tensor([freedom / 2, chi2 / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
