"""Convergence of Markov chains: split R-hat and effective sample size, both on ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError


def split_rhat(draws: Tensor) -> Tensor:
    """R-hat of split chains on normal scores of the ranks, draws [chains, draws, ...] to [...]; near 1 once converged.

    Vehtari, Gelman, Simpson, Carpenter, Buerkner. Rank-normalization, folding, and localization. 2021,
    arXiv:1903.08008. Raises InputError for fewer than four draws.
    """
    halves = _normal_scores(_halves(draws))
    n = halves.shape[1]
    within = halves.var(1).mean(0)
    between = halves.mean(1).var(0)
    # Chains that all stay in one place have nothing to compare.
    tiny = torch.finfo(within.dtype).tiny
    return ((n - 1) / n + between / within.clamp(min=tiny)).sqrt()


def effective_size(draws: Tensor) -> Tensor:
    """How many independent draws would know the mean as well, draws [chains, draws, ...] to [...].

    Autocovariances of split chains on normal scores, summed in pairs while these are positive and falling (Geyer,
    1992); arXiv:1903.08008. Raises InputError for fewer than four draws.
    """
    halves = _normal_scores(_halves(draws))
    chains, n = halves.shape[:2]
    centred = halves - halves.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * n, dim=1).abs().square()
    covariance = torch.fft.irfft(spectrum, n=2 * n, dim=1)[:, :n].mean(0) / n
    within = covariance[0] * n / (n - 1)
    total = within * (n - 1) / n + halves.mean(1).var(0)
    tiny = torch.finfo(total.dtype).tiny
    correlation = 1 - (within - covariance) / total.clamp(min=tiny)
    correlation = torch.cat((torch.ones_like(correlation[:1]), correlation[1:]))
    even = n - n % 2
    pairs = correlation[:even].unflatten(0, (even // 2, 2)).sum(1)
    kept = (pairs > 0).to(pairs.dtype).cumprod(0)
    falling = (pairs * kept).cummin(0).values
    time = (2 * falling.sum(0) - 1).clamp(min=1 / torch.tensor(n * chains).log10().item())
    size: Tensor = chains * n / time
    return size


def _halves(draws: Tensor) -> Tensor:
    """[2 chains, draws / 2, ...]."""
    n = draws.shape[1] // 2 if draws.ndim > 1 else 0
    if n < 2:
        raise InputError(
            f"convergence takes [chains, draws, ...] with four draws at least, got shape {tuple(draws.shape)}"
        )
    return torch.cat((draws[:, :n], draws[:, -n:])).double()


def _normal_scores(draws: Tensor) -> Tensor:
    """Phi^-1((rank - 3/8) / (n + 1/4)) over chains and draws; ties by their order, which leaves constants alone."""
    flat = draws.flatten(0, 1)
    constant = (flat == flat[:1]).all(0)
    ranks = flat.argsort(dim=0, stable=True).argsort(0).to(flat.dtype) + 1
    scores = torch.special.ndtri((ranks - 0.375) / (len(flat) + 0.25))
    return torch.where(constant, torch.zeros_like(scores), scores).reshape(draws.shape)
