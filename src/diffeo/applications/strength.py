"""How hard a string is to guess for who knows the model: bits, and its rank among all strings, likeliest first.

Dell'Amico and Filippone. Monte Carlo strength evaluation: fast and reliable password checking. CCS 2015.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.strings import Strings, well_formed
from ..errors import InputError
from ..flow import Flow
from .blocks import check_flow, check_whole

TIE = 1e-4
"""Strings whose log-probabilities differ by less, in nats, count as equally likely: float32 knows no better."""


@dataclass(frozen=True)
class Strength:
    """What `strength` found for each of n strings, float64 [n].

    bits: -log2 P; bits_error: its standard error from the noise of dequantization, 0 for an exact likelihood. rank: how
    many strings are likelier, estimated; low, high: its confidence interval, whose end is inf for a string rarer than
    all samples. A string that the model cannot write has infinite bits and rank, and `reasons` says why. kind: of the
    bits. ill_formed: the share of the model's samples that are codes of no string.
    """

    bits: Tensor
    bits_error: Tensor
    rank: Tensor
    low: Tensor
    high: Tensor
    reasons: tuple[str | None, ...]
    kind: str
    samples: int
    ill_formed: float


@dataclass(frozen=True)
class Ranks:
    """Log-probabilities of `samples` draws of a model: those of well-formed codes, the largest first, float64 [m]."""

    log_probs: Tensor
    samples: int

    @property
    def ill_formed(self) -> float:
        """The share of the draws that are codes of no string."""
        return 1 - len(self.log_probs) / self.samples

    def __call__(self, log_prob: Tensor, *, level: float = 0.95) -> tuple[Tensor, Tensor, Tensor]:
        """Rank, and the ends of its confidence interval, of strings with these log-probabilities, float64 [n].

        rank = 1/N sum_i 1/P(s_i) over the samples s_i likelier than the string: an unbiased estimate of the number of
        likelier strings. The interval is normal on the logarithm. Where no sample is likelier it ends at the largest
        mass that N draws miss with probability (1 - level) / 2, over P; where all are, at infinity.
        """
        if not 0 < level < 1:
            raise InputError(f"level must be between 0 and 1, got {level}")
        n = self.samples
        inverse = (-self.log_probs).exp()
        zero = inverse.new_zeros(1)
        first = torch.cat([zero, inverse.cumsum(0)]) / n
        second = torch.cat([zero, inverse.square().cumsum(0)]) / n
        log_prob = log_prob.double()
        above = torch.searchsorted(-self.log_probs, -(log_prob + TIE))
        rank = first[above]
        error = ((second[above] - rank.square()).clamp(min=0) / n).sqrt()
        z = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
        width = (z * error / rank.clamp(min=1e-300)).clamp(max=700).exp()
        missed = -math.log((1 - level) / 2) / n * (-log_prob).exp()
        high = torch.where(above == 0, missed, rank * width)
        high = torch.where(above == len(self.log_probs), torch.full_like(high, math.inf), high)
        return rank, rank / width, high


@torch.no_grad()
def code_log_prob(
    flow: Flow, codes: Tensor, *, draws: int = 64, seed: int = 0, batch_size: int = 1000
) -> tuple[Tensor, Tensor]:
    """log P of codes [n, length] in nats and its standard error, float64 [n].

    For a bound: log 1/K sum_k p(x + u_k) / q(u_k | x) of K = `draws` draws of the noise, whose expectation is a lower
    bound that rises to log P with K; its error is that of the mean, by the delta method. Exact likelihoods need no
    draws.
    """
    if flow.likelihood == "exact":
        found = flow.log_prob(codes, batch_size=batch_size).double().cpu()
        return found, torch.zeros_like(found)
    generator = torch.Generator(flow.device).manual_seed(seed)
    means, errors = [], []
    for rows in codes.split(max(1, batch_size // draws)):
        repeated = rows.expand(draws, *rows.shape)
        each = flow.log_prob(repeated, batch_size=batch_size, generator=generator).double().cpu()
        mean = each.logsumexp(0) - math.log(draws)
        means.append(mean)
        ratios = (each - mean).exp()
        errors.append(ratios.std(0) / draws**0.5 if draws > 1 else torch.full_like(mean, math.nan))
    return torch.cat(means), torch.cat(errors)


@torch.no_grad()
def sampled_ranks(
    flow: Flow, samples: int = 10_000, *, draws: int = 64, seed: int = 0, batch_size: int = 1000
) -> Ranks:
    """The model's own draws with their log-probabilities, from which every rank is estimated."""
    generator = torch.Generator(flow.device).manual_seed(seed)
    codes = flow.sample(samples, generator=generator, batch_size=batch_size)
    codes = codes[well_formed(codes)]
    if not len(codes):
        raise InputError(
            f"none of {samples} samples of this model is the code of a string: it needs more training"
        )
    found = code_log_prob(flow, codes, draws=draws, seed=seed + 1, batch_size=batch_size)[0]
    return Ranks(found.sort(descending=True).values, samples)


def strength(
    flow: Flow,
    strings: Sequence[str],
    *,
    alphabet: str | None = None,
    ranks: Ranks | None = None,
    samples: int = 10_000,
    draws: int = 64,
    seed: int = 0,
    level: float = 0.95,
    batch_size: int = 1000,
) -> Strength:
    """Bits and Monte-Carlo rank of strings under a flow over their codes.

    alphabet: of the flow, if it does not know it. ranks: of an earlier call of `sampled_ranks`, for many calls; else
    made of `samples` draws of the flow. draws: of the noise, for likelihoods that are a bound. level: of the confidence
    interval. A rank says how far down a list of all strings, the likeliest first, the string stands; who guesses by
    another list may be faster.

    Raises DataError for a flow that knows no alphabet, InputError for a conditional one and for an option that does not
    fit.
    """
    check_flow(flow)
    for name, value, lowest in (("samples", samples, 1), ("draws", draws, 1), ("seed", seed, 0)):
        check_whole(name, value, lowest)
    check_whole("batch_size", batch_size, 1)
    known = Strings.of(flow) if alphabet is None else Strings(alphabet, flow.event_shape[0])
    flow.eval()
    if ranks is None:
        ranks = sampled_ranks(flow, samples, draws=draws, seed=seed, batch_size=batch_size)
    reasons = tuple(known.why_not(string) for string in strings)
    inside = torch.tensor([reason is None for reason in reasons], dtype=torch.bool)
    values = torch.full((5, len(strings)), math.inf, dtype=torch.float64)
    values[1] = 0.0
    if bool(inside.any()):
        codes = known.encode(s for s, r in zip(strings, reasons, strict=True) if r is None)
        log_p, error = code_log_prob(
            flow, codes.to(flow.device), draws=draws, seed=seed + 2, batch_size=batch_size
        )
        rank, low, high = ranks(log_p, level=level)
        log2 = math.log(2)
        values[:, inside] = torch.stack([-log_p / log2, error / log2, rank, low, high])
    bits, error, rank, low, high = values.unbind(0)
    exact = flow.likelihood == "exact"
    kind = "exact" if exact else f"importance-weighted bound, K = {draws}"
    return Strength(bits, error, rank, low, high, reasons, kind, ranks.samples, ranks.ill_formed)
