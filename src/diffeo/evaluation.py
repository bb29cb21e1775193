"""Numbers with their kind and standard error: the likelihood of a flow on held-out data, and of simple baselines."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .data import Data
from .errors import InputError
from .flow import Flow
from .report import Row
from .transforms import Transform, TypedColumns, VariationalDequantize
from .transforms.base import Context

LOG2 = math.log(2)
_CHUNK_ENTRIES = 2**22
_ROWS_WITH_NOISE = 20_000
_WIDEST_COVARIANCE = 4096
_COPULA_ROWS = 2**16


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
    importance: int | None = None,
    seed: int = 0,
    batch_size: int = 1000,
    name: str = "this model",
) -> Row:
    """Mean -log p over a split, under what is given of each example, with the standard error over its examples.

    For integers, the mean over `draws` draws of the dequantization noise, by default 10 and fewer for many rows, whose
    mean is sharp already: a bound. importance: K, for the importance-weighted bound of K draws an example in its place
    (see `importance_weighted`); its standard error holds the noise of the draws, too.

    Raises InputError for an importance where the likelihood is no bound, or together with draws.
    """
    if importance is not None and draws is not None:
        raise InputError(f"give draws ({draws}) or importance ({importance}), not both")
    flow.eval()
    x = part(data, split)
    generator = torch.Generator(flow.device).manual_seed(seed)

    def scores(start: int) -> Tensor:
        rows = x[start : start + batch_size].to(flow.device)
        given = data.context_rows(split, start, start + batch_size)
        given = None if given is None else given.to(flow.device)
        if importance is None:
            return flow.log_prob(rows, given, generator=generator).double().cpu()
        return importance_weighted(
            flow, rows, given, samples=importance, batch_size=batch_size, generator=generator
        ).cpu()

    # An exact likelihood is the same for every draw.
    stochastic = flow.transform.stochastic and importance is None and flow.likelihood != "exact"
    times = _draws(draws, x) if stochastic else 1
    each = torch.zeros(len(x), dtype=torch.float64)
    with torch.no_grad():
        for _ in range(times):
            each += torch.cat([scores(i) for i in range(0, len(x), batch_size)]) / times
    if importance is not None:
        kind = f"importance-weighted bound, K = {importance}"
        return row(name, -each, data, kind=kind, note=f"K draws of {_noise(flow)} an example")
    note = _note(times, _noise(flow)) if stochastic else ""
    return row(name, -each, data, kind=flow.likelihood, note=note)


@torch.no_grad()
def importance_weighted(
    flow: Flow,
    x: Tensor,
    context: Context = None,
    *,
    samples: int,
    batch_size: int = 1000,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log 1/K sum_k p(x + u_k) / q(u_k | x), in nats, float64, [*batch]: K = `samples` draws of the noise.

    Its expectation is a lower bound on log P(x) that rises with K to log P(x); K = 1 is `flow.log_prob`. batch_size:
    rows at a time, whatever K. Burda et al., Importance weighted autoencoders, 2016, arXiv:1509.00519.

    Raises InputError for a flow whose likelihood is no bound, or one whose log-determinants are estimates: the mean of
    exp(log p + noise) is above p.
    """
    if flow.likelihood != "bound":
        raise InputError(
            f"importance weighting is for likelihoods that are a bound, and that of this model is {flow.likelihood}: "
            "leave it out"
        )
    if samples > 1 and any(
        isinstance(m, Transform) and m.stochastic and m.properties.kind == "estimate"
        for m in flow.transform.modules()
    ):
        raise InputError(
            "importance weighting needs exact log-determinants, and those of this model are estimates: give the same "
            "weights with exact ones (diffeo.estimating.with_estimator, diffeo.solving.with_solver, or a model built "
            "with estimator='exact')"
        )
    if samples < 1 or batch_size < 1:
        raise InputError(
            f"samples and batch_size must be at least 1, got {samples} and {batch_size}"
        )
    # One x with many contexts is as many rows: the draws come before them all.
    batch, rows, _ = flow._rows(x, context)
    x = rows.reshape(*batch, *flow.event_shape)
    at_once = max(1, batch_size // max(1, len(rows)))
    total: Tensor | None = None
    done = 0
    while done < samples:
        n = min(samples - done, at_once)
        each = flow.log_prob(
            x.expand(n, *x.shape), context, batch_size=batch_size, generator=generator
        )
        found = each.double().logsumexp(0)
        total = found if total is None else torch.logaddexp(total, found)
        done += n
    assert total is not None
    return total - math.log(samples)


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

    The Gaussian is left out above 4096 entries, where its covariance would not fit. None sees what a model is given.
    """
    if data.schema is not None:
        return [_gaussian_copula(data, split, draws, seed)]
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


def _gaussian_copula(data: Data, split: str, draws: int | None, seed: int) -> Row:
    """Marginals as TypedColumns fits them, and a full-covariance Gaussian of what it makes of the columns."""
    assert data.schema is not None
    layer = TypedColumns(data.schema).double()
    test, train = part(data, split), data.train[:_COPULA_ROWS].double()
    generator = torch.Generator().manual_seed(seed)

    def latent(x: Tensor) -> tuple[Tensor, Tensor]:
        noise = layer.draw(len(x), generator=generator, like=x)
        z, ladj = layer(x, None, noise)
        return z, ladj

    with torch.no_grad():
        layer.initialize(train)
        z, _ = latent(train)
        covariance = z.T.cov().reshape(z.shape[1], -1)
        covariance = covariance + 1e-6 * torch.eye(z.shape[1], dtype=z.dtype)
        normal = torch.distributions.MultivariateNormal(z.mean(0), covariance)
        times = _draws(draws, test) if layer.stochastic else 1
        nats = torch.zeros(len(test), dtype=torch.float64)
        for _ in range(times):
            found = (latent(x) for x in _chunks(test))
            nats -= torch.cat([normal.log_prob(z) + ladj for z, ladj in found]) / times
    note = "fitted marginals, Gaussian dependence" + (
        f"; {_note(times)}" if layer.stochastic else ""
    )
    return row("Gaussian copula", nats, data, kind=layer.properties.kind, note=note)


def _draws(draws: int | None, rows: Tensor) -> int:
    return draws if draws is not None else max(1, min(10, _ROWS_WITH_NOISE // len(rows)))


def _note(draws: int, noise: str = "uniform noise") -> str:
    return f"{draws} draw{'s' if draws > 1 else ''} of {noise}"


def _noise(flow: Flow) -> str:
    learned = any(isinstance(m, VariationalDequantize) for m in flow.modules())
    noise = ["learned noise" if learned else "uniform noise"] if flow.dequantized else []
    probes = ["random probes"] if flow.continuous.likelihood == "estimate" else []
    return " and ".join(noise + probes)


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
