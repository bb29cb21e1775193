"""Numbers with their kind and standard error: the likelihood of a flow on held-out data, and of simple baselines."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .data import Data
from .flow import Flow
from .report import Row

LOG2 = math.log(2)
_CHUNK_ENTRIES = 2**22
_ROWS_WITH_NOISE = 20_000
_WIDEST_COVARIANCE = 4096


def part(data: Data, split: str) -> Tensor:
    """The rows of a split: train, validation or test."""
    rows: Tensor = getattr(data, split)
    return rows


def evaluate(
    flow: Flow,
    data: Data,
    *,
    split: str = "test",
    draws: int | None = None,
    seed: int = 0,
    batch_size: int = 1000,
    name: str = "this model",
) -> Row:
    """Mean -log p over a split, with the standard error over its examples.

    For integers, the mean over `draws` draws of the dequantization noise, by default 10 and fewer for many rows, whose
    mean is sharp already: a bound.
    """
    flow.eval()
    x = part(data, split)
    generator = torch.Generator(flow.device).manual_seed(seed)
    times = _draws(draws, x) if flow.transform.stochastic else 1
    each = torch.zeros(len(x), dtype=torch.float64)
    with torch.no_grad():
        for _ in range(times):
            scores = [
                flow.log_prob(rows.to(flow.device), generator=generator).double().cpu()
                for rows in x.split(batch_size)
            ]
            each += torch.cat(scores) / times
    note = _note(times) if flow.transform.stochastic else ""
    return row(name, -each, data, kind=flow.likelihood, note=note)


def row(name: str, nats: Tensor, data: Data, *, kind: str, note: str = "") -> Row:
    """A line of the table from -log p of each example."""
    n = len(nats)
    mean = float(nats.mean())
    error = float(nats.std() / math.sqrt(n)) if n > 1 else None
    per_bit = math.prod(data.event_shape) * LOG2
    discrete = data.levels is not None
    return Row(
        name=name,
        nats=mean,
        nats_error=error,
        bits=mean / per_bit if discrete else None,
        bits_error=error / per_bit if discrete and error is not None else None,
        kind=kind,
        note=note,
    )


def baselines(
    data: Data, *, split: str = "test", draws: int | None = None, seed: int = 0
) -> list[Row]:
    """What simple models give on the same split: uniform, per-entry histogram, full-covariance Gaussian, the truth.

    The Gaussian is left out above 4096 entries, where its covariance would not fit.
    """
    train, test = data.train.flatten(1), part(data, split).flatten(1)
    rows = []
    if data.levels is not None:
        k = data.levels
        nats = torch.full((len(test),), test.shape[1] * math.log(k), dtype=torch.float64)
        rows.append(row("uniform", nats, data, kind="exact", note=f"{k} levels, all alike"))
        nats = _histogram_nats(train, test, k)
        rows.append(
            row("histogram of each entry", nats, data, kind="exact", note="add-one smoothing")
        )
    if train.shape[1] <= _WIDEST_COVARIANCE:
        rows.append(_gaussian(train, test, data, _draws(draws, test), seed))
    if data.density is not None:
        nats = -torch.cat([data.density.log_prob(x) for x in _chunks(test)])
        rows.append(
            row("the true density", nats, data, kind="exact", note="no model can be better")
        )
    return rows


def _draws(draws: int | None, rows: Tensor) -> int:
    return draws if draws is not None else max(1, min(10, _ROWS_WITH_NOISE // len(rows)))


def _note(draws: int) -> str:
    return f"{draws} draw{'s' if draws > 1 else ''} of uniform noise"


def _chunks(rows: Tensor) -> Iterator[Tensor]:
    """Rows [n, d] in float64, some at a time: they may be larger than memory."""
    for some in rows.split(max(1, _CHUNK_ENTRIES // rows.shape[1])):
        yield some.double()


def _histogram_nats(train: Tensor, test: Tensor, levels: int) -> Tensor:
    width = train.shape[1]
    offset = levels * torch.arange(width)
    counts = torch.ones(width * levels, dtype=torch.float64)
    for x in _chunks(train):
        counts += torch.bincount((x.long() + offset).flatten(), minlength=len(counts))
    log_p = (counts / (len(train) + levels)).log()
    return -torch.cat([log_p[x.long() + offset].sum(1) for x in _chunks(test)])


def _gaussian(train: Tensor, test: Tensor, data: Data, draws: int, seed: int) -> Row:
    discrete = data.levels is not None
    n = len(train)
    mean = torch.stack([x.sum(0) for x in _chunks(train)]).sum(0) / n
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for x in _chunks(train):
        centered = x - mean
        covariance += centered.T @ centered / n
    eye = torch.eye(len(mean), dtype=torch.float64)
    if discrete:
        # The moments of x + u, u uniform on [0, 1).
        mean, covariance = mean + 0.5, covariance + eye / 12
    else:
        covariance = covariance + 1e-9 * covariance.diagonal().mean() * eye
    normal = torch.distributions.MultivariateNormal(mean, covariance)
    if not discrete:
        nats = -torch.cat([normal.log_prob(x) for x in _chunks(test)])
        return row("Gaussian, full covariance", nats, data, kind="exact")
    generator = torch.Generator().manual_seed(seed)

    def noisy(x: Tensor) -> Tensor:
        return x + torch.rand(x.shape, dtype=x.dtype, generator=generator)

    nats = torch.zeros(len(test), dtype=torch.float64)
    for _ in range(draws):
        nats -= torch.cat([normal.log_prob(noisy(x)) for x in _chunks(test)]) / draws
    note = _note(draws)
    return row("Gaussian, full covariance", nats, data, kind="bound", note=note)
