"""Columns of a table, one at a time: values to real numbers of about N(0, 1) by the map, or the noise, of their kind.

Where a value is a level (integer, ordinal, categorical, date), each latent z = Phi^-1(a + w u) takes a share [a, a + w)
of (0, 1), u uniform; the shares are relative frequencies, so independent columns come out as N(0, 1), and
log P(k) >= E_u log p(z) + sum log w - log N(z). A category is a binary code, one latent a digit, its shares given the
digits before, so codes without a category have none: argmax flows with binary factors (Hoogeboom et al., 2021,
arXiv:2102.05379), thresholds by frequency (the distributional transform, Rueschendorf, 2009).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..columns import Column

MOST_TABLE_LEVELS = 256
"""Ordered levels up to which each has its own share; above that a bin and the place in it."""
BINS = 64
EDGE = 1e-6
"""Values on a bound count as this share of the interval inside it."""
_LOG_ROOT = 0.5 * math.log(2 * math.pi)
_LARGEST = 80.0  # exp of more overflows in float32


class Coding(nn.Module):
    """Values [n] of one column to latents [n, size] with noise u in [0, 1), and back."""

    size = 1
    noisy = True

    def encode(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, ladj [n], and whether the values are in the support."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values, and ladj of the inverse, 0 where it is no bijection."""
        raise NotImplementedError

    def fit(self, x: Tensor) -> None:
        """Set the statistics from values that are there."""


class _Real(Coding):
    """z = (g(x) - mean) / std, g the identity, log, or logit of the share of the interval."""

    noisy = False

    def __init__(self, column: Column) -> None:
        super().__init__()
        self.kind = column.kind
        self.low, self.high = column.bounds
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def _map(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inside = x.isfinite()
        if self.kind == "positive":
            inside = inside & (x > 0)
            y = torch.where(inside, x, torch.ones_like(x)).log()
            return y, -y, inside
        if self.kind == "bounded":
            p = (x - self.low) / (self.high - self.low)
            inside = inside & (p >= 0) & (p <= 1)
            p = torch.where(inside, p, torch.full_like(p, 0.5)).clamp(EDGE, 1 - EDGE)
            log_p, log_q = p.log(), torch.log1p(-p)
            return log_p - log_q, -log_p - log_q - math.log(self.high - self.low), inside
        return torch.where(inside, x, torch.zeros_like(x)), torch.zeros_like(x), inside

    def encode(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, ladj, inside = self._map(x)
        return ((y - self.mean) / self.std)[:, None], ladj - self.std.log(), inside

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y = z[:, 0] * self.std + self.mean
        if self.kind == "positive":
            y = y.clamp(-_LARGEST, _LARGEST)
            return y.exp(), y + self.std.log()
        if self.kind == "bounded":
            x = (self.low + (self.high - self.low) * y.sigmoid()).clamp(self.low, self.high)
            log_slope = nn.functional.logsigmoid(y) + nn.functional.logsigmoid(-y)
            return x, log_slope + math.log(self.high - self.low) + self.std.log()
        return y, self.std.log().expand_as(y)

    def fit(self, x: Tensor) -> None:
        y, _, inside = self._map(x)
        y = y[inside].double()
        if len(y):
            self.mean.fill_(float(y.mean()))
        if len(y) > 1 and float(y.std(correction=0)) > 0:
            self.std.fill_(float(y.std(correction=0)))


class _Circle(Coding):
    """z = r (cos a, sin a), a the angle, r Rayleigh: N(0, I) where the angle is uniform."""

    size = 2

    def __init__(self, column: Column) -> None:
        super().__init__()
        self.low, self.high = column.bounds

    def encode(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        period = self.high - self.low
        inside = (x >= self.low) & (x <= self.high)
        share = torch.where(inside, (x - self.low) / period, torch.zeros_like(x))
        square = -2 * torch.log1p(-u[:, 0])
        angle = 2 * math.pi * share
        z = square.sqrt()[:, None] * torch.stack((angle.cos(), angle.sin()), -1)
        return z, square / 2 + math.log(2 * math.pi / period), inside

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        share = torch.atan2(z[:, 1], z[:, 0]) / (2 * math.pi)
        share = torch.where(share < 0, share + 1, share)
        x = self.low + (self.high - self.low) * share
        # A share that rounds to 1 is the place where it starts.
        return torch.where(x < self.high, x, torch.full_like(x, self.low)), z.new_zeros(len(z))


class Levels(Coding):
    """Levels 0 .. K - 1 by shares [size, K] of each digit: one digit in their order, or binary ones."""

    def __init__(self, levels: int, *, ordered: bool) -> None:
        super().__init__()
        self.levels = levels
        self.size = 1 if ordered and levels > 1 else max(0, (levels - 1).bit_length())
        self.ordered = ordered
        self.starts: Tensor
        self.ends: Tensor
        self.register_buffer("starts", torch.zeros(self.size, levels))
        self.register_buffer("ends", torch.ones(self.size, levels))
        self._share(torch.full((levels,), 1 / levels, dtype=torch.float64))

    def _share(self, mass: Tensor) -> None:
        """Starts and ends by the probability of each level."""
        if self.ordered and self.size:
            ends = mass.cumsum(0).clamp(max=1)
            ends[-1] = 1
            self.ends.copy_(ends[None])
            self.starts.copy_(torch.cat((ends.new_zeros(1), ends[:-1]))[None])
            return
        code = torch.arange(self.levels, device=mass.device)
        for digit in range(self.size):
            shift = self.size - 1 - digit
            prefix, bit = code >> (shift + 1), (code >> shift) & 1
            whole, zero = mass.new_zeros(2**self.size), mass.new_zeros(2**self.size)
            whole.index_add_(0, prefix, mass)
            zero.index_add_(0, prefix, mass * (bit == 0))
            # Exactly 1 where no code goes on with a one.
            at = torch.where(zero == whole, torch.ones_like(whole), zero / whole)[prefix]
            self.starts[digit] = torch.where(bit == 1, at, torch.zeros_like(at))
            self.ends[digit] = torch.where(bit == 1, torch.ones_like(at), at)

    def encode(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inside = (x == x.floor()) & (x >= 0) & (x < self.levels)
        level = torch.where(inside, x, torch.zeros_like(x)).long()
        start, end = self.starts[:, level].T, self.ends[:, level].T
        z, ladj = latents_of(start, end - start, u)
        return z, ladj, inside

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        v = _share_of(z)[:, :, None]
        found = ((v >= self.starts) & (v < self.ends)).all(1)
        return found.to(z.dtype).argmax(1).to(z.dtype), z.new_zeros(len(z))

    def fit(self, x: Tensor) -> None:
        known = x[(x >= 0) & (x < self.levels)].long()
        count = torch.bincount(known, minlength=self.levels).double()
        self._share((count + 0.5) / (len(known) + 0.5 * self.levels))


class _Range(Coding):
    """Many ordered levels: the bin, by its share, and the place in it, uniform. Frequent levels have their own bin."""

    size = 2

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.edges: Tensor
        self.ends: Tensor
        edges = torch.linspace(0, levels, BINS + 1, dtype=torch.float64).round()
        self.register_buffer("edges", edges.to(torch.get_default_dtype()))
        self.register_buffer("ends", torch.linspace(0, 1, BINS + 1)[1:].clone())

    def _starts(self) -> Tensor:
        return torch.cat((self.ends.new_zeros(1), self.ends[:-1]))

    def encode(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inside = (x == x.floor()) & (x >= 0) & (x < self.levels)
        level = torch.where(inside, x, torch.zeros_like(x))
        at = (level[:, None] >= self.edges[1:-1]).sum(-1)
        low, length = self.edges[at], self.edges[at + 1] - self.edges[at]
        start = self._starts()[at]
        starts = torch.stack((start, (level - low) / length), -1)
        widths = torch.stack((self.ends[at] - start, 1 / length), -1)
        z, ladj = latents_of(starts, widths, u)
        return z, ladj, inside

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        v = _share_of(z)
        at = (v[:, :1] >= self.ends[:-1]).sum(-1)
        low, length = self.edges[at], self.edges[at + 1] - self.edges[at]
        return low + (v[:, 1] * length).floor().clamp(max=length - 1), z.new_zeros(len(z))

    def fit(self, x: Tensor) -> None:
        known = x[(x >= 0) & (x < self.levels)].long()
        if not len(known):
            return
        values, counts = known.unique(return_counts=True)
        edges, filled, least = [0], 0.0, len(known) / (BINS // 2)
        # A frequent level closes the bin before it and its own, so half of BINS fill up by number.
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if count >= least and value > edges[-1]:
                edges.append(value)
                filled = 0.0
            filled += count
            if filled >= least and value + 1 < self.levels:
                edges.append(value + 1)
                filled = 0.0
        edges = edges[:BINS]
        while len(edges) < BINS:
            # What is left halves the longest bins.
            gaps = [b - a for a, b in zip(edges, [*edges[1:], self.levels], strict=True)]
            i = max(range(len(gaps)), key=gaps.__getitem__)
            edges.insert(i + 1, edges[i] + gaps[i] // 2)
        edges.append(self.levels)
        self.edges.copy_(torch.tensor(edges, dtype=torch.float64))
        at = torch.bucketize(known.double(), self.edges[1:-1].double(), right=True)
        count = torch.bincount(at, minlength=BINS).double()
        ends = ((count + 0.5) / (len(known) + 0.5 * BINS)).cumsum(0)
        ends[-1] = 1
        self.ends.copy_(ends)


def latents_of(start: Tensor, width: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """z = Phi^-1(start + width u), [n, digits], and log w - log N(z) summed, [n]."""
    edge = torch.finfo(u.dtype).eps
    z = torch.special.ndtri((start + width * u.clamp(edge, 1 - edge)).clamp(edge, 1 - edge))
    return z, (width.log() + z.square() / 2 + _LOG_ROOT).sum(-1)


def _share_of(z: Tensor) -> Tensor:
    """Phi(z), below 1."""
    share: Tensor = torch.special.ndtr(z)
    return share.clamp(max=1 - torch.finfo(z.dtype).eps / 2)


def coding_of(column: Column) -> Coding:
    if column.kind == "circular":
        return _Circle(column)
    if column.real:
        return _Real(column)
    if column.kind == "categorical" or column.levels <= MOST_TABLE_LEVELS:
        return Levels(column.levels, ordered=column.kind != "categorical")
    return _Range(column.levels)
