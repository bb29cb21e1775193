"""Calibration: ranks of test values among draws of the model, for the columns of the data and for the latents.

The rank of a value among m draws of the same law, ties broken at random, over m + 1, is uniform: the probability
integral transform, with draws in place of the distribution function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..auditing.points import Copy
from ..data import Data
from ..flow import Flow
from . import figures
from .drawing import generator, sample, some_rows, test_rows
from .page import Picture, Section, plain_table

_BINS = 20
_WIDE = 2.576  # 99 % of a Gaussian
_KOLMOGOROV = 1.628  # 99 % of the Kolmogorov-Smirnov statistic


@dataclass(frozen=True)
class Ranks:
    """Histogram heights (1 is ideal), half the width of their 99 % band, and the Kolmogorov-Smirnov distance.

    excess: that distance over its 99 % band for two samples; up to 1 is chance.
    """

    name: str
    heights: Tensor
    band: float
    excess: float


def ranks(values: Tensor, draws: Tensor, name: str, seed: int) -> Ranks:
    """How values [n] rank among draws [m]."""
    values, draws = values.double(), draws.double().sort().values
    n, m = len(values), len(draws)
    g = torch.Generator().manual_seed(seed)
    low = torch.searchsorted(draws, values).double()
    high = torch.searchsorted(draws, values, right=True).double()
    u = (low + torch.rand(n, generator=g, dtype=torch.float64) * (high - low + 1)) / (m + 1)
    return _uniformity(u, name, 1 / n + 1 / m)


def row_ranks(values: Tensor, draws: Tensor, name: str, seed: int) -> Ranks:
    """How values [n] rank each among its own draws [m, n]; draws that are NaN do not count."""
    values, draws = values.double(), draws.double()
    g = torch.Generator().manual_seed(seed)
    low, ties = (draws < values).sum(0).double(), (draws == values).sum(0)
    coin = torch.rand(len(values), generator=g, dtype=torch.float64)
    u = (low + coin * (ties + 1)) / (draws.isfinite().sum(0) + 1)
    return _uniformity(u, name, 1 / len(values))


def _uniformity(u: Tensor, name: str, noise: float) -> Ranks:
    n = len(u)
    heights = torch.histc(u.float(), _BINS, 0, 1).double() * _BINS / n
    at = u.sort().values
    step = torch.arange(1, n + 1, dtype=torch.float64) / n
    distance = torch.maximum((step - at).abs(), (at - (step - 1 / n)).abs()).max().item()
    band = _WIDE * math.sqrt((_BINS - 1) * noise)
    return Ranks(name, heights, band, distance / (_KOLMOGOROV * math.sqrt(noise)))


def columns(flow: Flow, data: Data, seed: int) -> Section:
    """Each column of the test rows among samples."""
    real = some_rows(data.test, 20_000, seed).flatten(1)
    model = sample(flow, min(20_000, max(5000, len(real))), seed + 1).flatten(1)
    model = model[model.double().isfinite().all(1)]
    names = data.columns or tuple(f"x{i + 1}" for i in range(real.shape[1]))
    found = [
        ranks(real[:, i], model[:, i], name, seed + i) for i, name in enumerate(names) if len(model)
    ]
    how = f"Each test value's rank among {len(model):,} samples of its column. Where the model's marginal is right, "
    return rank_section(found, how)


def rank_section(found: Sequence[Ranks], how: str) -> Section:
    """Histograms of the ranks of columns. how: what the ranks are of, up to the comma after a condition."""
    worst = max(found, key=lambda r: r.excess)
    beyond = sum(r.excess > 1 for r in found)
    text = (
        f"{how}ranks are uniform: bars stay in the grey band with probability 0.99 each. A hump in the middle: the "
        "model is too wide; high ends: too narrow; a slope: shifted. "
        f"{beyond} of {len(found)} columns lie outside the 99 % band of the Kolmogorov-Smirnov distance (chance alone: "
        f"{0.01 * len(found):.2g}); the farthest is {worst.name}, at {worst.excess:.2g} times the band."
    )
    shown = sorted(sorted(found, key=lambda r: -r.excess)[:12], key=found.index)
    what = "the columns" if len(shown) == len(found) else f"the {len(shown)} columns farthest off"
    caption = "" if len(shown) == len(found) else what
    picture = Picture(figures.rank_histograms(shown), f"rank histograms of {what}", caption)
    return Section("Calibration of the columns", text, [picture])


def latents(flow: Flow, data: Data, seed: int) -> Section:
    """Test data as latents, level by level, against the base."""
    model = Copy(flow)
    x, context = test_rows(flow, data, 1000 if flow.event_size <= 128 else 200, seed)
    noise = flow.transform.draw(len(x), generator=generator(flow, seed), like=flow.base.like)
    v, noise = model.smooth(x, context, noise)
    z, _ = model.forward(v, context, noise)
    draws = flow.base.sample(
        max(len(x), 1 + (1 << 16) // flow.event_size), generator=generator(flow, seed + 1)
    )
    z, draws = z.flatten(1).cpu(), draws.flatten(1).cpu()
    found, cells = [], []
    levels = flow.levels
    for i, level in enumerate(levels):
        name = f"level {i + 1}" if len(levels) > 1 else "all latents"
        inside = z[:, level.slice]
        inside = inside[inside.isfinite().all(1)].double()
        if not inside.numel():
            continue
        r = ranks(inside.flatten(), draws[:, level.slice].flatten(), name, seed)
        found.append(r)
        cells.append(
            (
                name,
                " × ".join(map(str, level.shape)),
                f"{inside.mean().item():.3f}",
                f"{inside.std().item():.3f}",
                f"{inside.abs().max().item():.2f}",
                f"{_expected_largest(inside.numel()):.2f}",
                f"{r.excess:.2g}",
            )
        )
    text = (
        f"The latents of {len(x):,} test examples"
        f"{', integers with their dequantization noise' if flow.discrete else ''}, {_levels(len(levels))}. A perfect "
        "model gives independent draws of its base, for N(0, 1) with mean 0 and deviation 1, and ranks among draws of "
        "the base that stay in the grey band with probability 0.99 each. Largest |z| stands beside what as many "
        "draws of N(0, 1) would give. Misfit is the Kolmogorov-Smirnov distance over its 99 % band: up to 1 is chance."
    )
    head = ("level", "shape", "mean", "deviation", "largest |z|", "of N(0, 1)", "misfit")
    picture = Picture(figures.rank_histograms(found), "rank histograms of latents, per level")
    return Section("Latents", text, [picture], table=plain_table(head, cells, text_columns=2))


def _levels(count: int) -> str:
    return "as one level" if count == 1 else f"in {count} levels, fine to coarse"


def _expected_largest(n: int) -> float:
    """Median of the largest |z| among n draws of N(0, 1)."""
    half_tail = -math.expm1(math.log(0.5) / n) / 2
    return -float(torch.special.ndtri(torch.tensor(half_tail, dtype=torch.float64)))
