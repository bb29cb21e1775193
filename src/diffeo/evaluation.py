"""Numbers with their kind and standard error: the likelihood of a flow on held-out data, and of simple baselines."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .data import Data
from .flow import Flow
from .report import Row

LOG2 = math.log(2)


def part(data: Data, split: str) -> Tensor:
    """The rows of a split: train, validation or test."""
    rows: Tensor = getattr(data, split)
    return rows


def evaluate(
    flow: Flow,
    data: Data,
    *,
    split: str = "test",
    draws: int = 10,
    seed: int = 0,
    batch_size: int = 1000,
    name: str = "this model",
) -> Row:
    """Mean -log p over a split, with the standard error over its examples.

    For integers, the mean over `draws` draws of the dequantization noise: a bound.
    """
    flow.eval()
    x = part(data, split).to(flow.device)
    generator = torch.Generator(flow.device).manual_seed(seed)
    with torch.no_grad():
        each = (
            torch.stack(
                [
                    flow.log_prob(x, batch_size=batch_size, generator=generator).double()
                    for _ in range(draws if flow.transform.stochastic else 1)
                ]
            )
            .mean(0)
            .cpu()
        )
    note = f"{draws} draws of uniform noise" if flow.transform.stochastic else ""
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


def baselines(data: Data, *, split: str = "test", draws: int = 10, seed: int = 0) -> list[Row]:
    """What simple models give on the same split: uniform, per-entry histogram, full-covariance Gaussian, the truth."""
    train = data.train.flatten(1).double()
    test = part(data, split).flatten(1).double()
    rows = []
    if data.levels is not None:
        k = data.levels
        nats = torch.full((len(test),), test.shape[1] * math.log(k), dtype=torch.float64)
        rows.append(row("uniform", nats, data, kind="exact", note=f"{k} levels, all alike"))
        counts = torch.stack([(train == v).sum(0) for v in range(k)]) + 1.0
        log_p = (counts / counts.sum(0)).log()
        nats = -log_p.gather(0, test.long()).sum(1)
        rows.append(
            row("histogram of each entry", nats, data, kind="exact", note="add-one smoothing")
        )
    rows.append(_gaussian(train, test, data, draws, seed))
    if data.density is not None:
        nats = -data.density.log_prob(part(data, split).double())
        rows.append(
            row("the true density", nats, data, kind="exact", note="no model can be better")
        )
    return rows


def _gaussian(train: Tensor, test: Tensor, data: Data, draws: int, seed: int) -> Row:
    discrete = data.levels is not None
    mean = train.mean(0)
    centered = train - mean
    covariance = centered.T @ centered / len(train)
    eye = torch.eye(len(mean), dtype=torch.float64)
    if discrete:
        # The moments of x + u, u uniform on [0, 1).
        mean, covariance = mean + 0.5, covariance + eye / 12
    else:
        covariance = covariance + 1e-9 * covariance.diagonal().mean() * eye
    normal = torch.distributions.MultivariateNormal(mean, covariance)
    if not discrete:
        return row("Gaussian, full covariance", -normal.log_prob(test), data, kind="exact")
    generator = torch.Generator().manual_seed(seed)
    noisy = [
        normal.log_prob(test + torch.rand(test.shape, dtype=test.dtype, generator=generator))
        for _ in range(draws)
    ]
    nats = -torch.stack(noisy).mean(0)
    note = f"{draws} draws of uniform noise"
    return row("Gaussian, full covariance", nats, data, kind="bound", note=note)
