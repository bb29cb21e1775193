"""TypedColumns: the columns of a table as real numbers, each by the map, or the dequantization, of its kind.

Where a value is a level (integer, ordinal, categorical, date), each latent z = Phi^-1(a + w u) takes a share [a, a + w)
of (0, 1), u uniform; the shares are relative frequencies, so independent columns come out as N(0, 1), and
log P(k) >= E_u log p(z) + sum log w - log N(z). A category is a binary code, one latent a digit, its shares given the
digits before, so codes without a category have none: argmax flows with binary factors (Hoogeboom et al., 2021,
arXiv:2102.05379), thresholds by frequency (the distributional transform, Rueschendorf, 2009).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..columns import Column, Schema
from ..columns import schema as as_schema
from ..errors import ConfigError
from ..noise import draw
from ..parts import register
from ..properties import Properties
from .base import Context, Noise, Transform

MOST_TABLE_LEVELS = 256
"""Ordered levels up to which each has its own share; above that a bin and the place in it."""
BINS = 64
EDGE = 1e-6
"""Values on a bound count as this share of the interval inside it."""
_LOG_ROOT = 0.5 * math.log(2 * math.pi)
_LARGEST = 80.0  # exp of more overflows in float32


class _Coding(nn.Module):
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


class _Real(_Coding):
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


class _Circle(_Coding):
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


class _Levels(_Coding):
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
        z, ladj = _normal(start, end - start, u)
        return z, ladj, inside

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        v = _share_of(z)[:, :, None]
        found = ((v >= self.starts) & (v < self.ends)).all(1)
        return found.to(z.dtype).argmax(1).to(z.dtype), z.new_zeros(len(z))

    def fit(self, x: Tensor) -> None:
        known = x[(x >= 0) & (x < self.levels)].long()
        count = torch.bincount(known, minlength=self.levels).double()
        self._share((count + 0.5) / (len(known) + 0.5 * self.levels))


class _Range(_Coding):
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
        z, ladj = _normal(starts, widths, u)
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


def _normal(start: Tensor, width: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """z = Phi^-1(start + width u), [n, digits], and log w - log N(z) summed, [n]."""
    edge = torch.finfo(u.dtype).eps
    z = torch.special.ndtri((start + width * u.clamp(edge, 1 - edge)).clamp(edge, 1 - edge))
    return z, (width.log() + z.square() / 2 + _LOG_ROOT).sum(-1)


def _share_of(z: Tensor) -> Tensor:
    """Phi(z), below 1."""
    share: Tensor = torch.special.ndtr(z)
    return share.clamp(max=1 - torch.finfo(z.dtype).eps / 2)


def _coding(column: Column) -> _Coding:
    if column.kind == "circular":
        return _Circle(column)
    if column.real:
        return _Real(column)
    if column.kind == "categorical" or column.levels <= MOST_TABLE_LEVELS:
        return _Levels(column.levels, ordered=column.kind != "categorical")
    return _Range(column.levels)


@register
class TypedColumns(Transform):
    """An event of a table's columns, [n, entries], as real numbers of about N(0, 1), [n, latents].

    schema: its columns that are not given, each one entry (a level counts from 0) and, unless it is a category, a flag
    if cells may be missing (1). Real columns are standardized after a logarithm (positive) or logit (bounded); levels
    are dequantized; a circular column is an angle with a random radius; the latents of a missing value are noise
    N(0, 1). Exact with the real kinds but circular, else a bound. Statistics are those of the batch given to
    `initialize`. Values outside the support have ladj -inf; the inverse gives none.
    """

    def __init__(self, schema: Schema | Mapping[str, Any]) -> None:
        known = as_schema(schema)
        columns = known.events
        codings = [_coding(c) for c in columns]
        flags = [_Levels(2, ordered=True) if c.flagged else None for c in columns]
        size = sum(c.size for c in codings) + sum(c.flagged for c in columns)
        if not size:
            raise ConfigError(
                "every column of the schema has one value only: there is nothing to model"
            )
        super().__init__(known.event_shape, latent_shape=(size,))
        self.schema = known
        self.codings = nn.ModuleList(codings)
        self.flags = nn.ModuleList([f if f is not None else nn.Identity() for f in flags])
        self.initialized: Tensor
        self.register_buffer("initialized", torch.tensor(False))
        self.like: Tensor
        self.register_buffer("like", torch.zeros(()))
        self.noisy = any(c.noisy for c in codings) or any(c.flagged for c in columns)
        mixed = any(not c.real or c.flagged for c in columns)
        straight = all(c.kind == "continuous" for c in columns) and not self.noisy
        self.properties = Properties(
            kind="bound" if self.noisy else "exact",
            measure="mixed" if mixed else "lebesgue",
            constant_ladj=straight,
        )

    @property
    def stochastic(self) -> bool:
        return self.noisy

    @property
    def dequantizes(self) -> bool:
        return self.noisy

    @property
    def slices(self) -> dict[str, tuple[slice, slice]]:
        """By column: its entries of the event, and its latents, the flag's last."""
        found, e, z = {}, 0, 0
        for c, coding in self._pairs():
            width, size = c.width, coding.size + c.flagged
            found[c.name] = (slice(e, e + width), slice(z, z + size))
            e, z = e + width, z + size
        return found

    def _pairs(self) -> list[tuple[Column, _Coding]]:
        return list(zip(self.schema.events, self.codings, strict=True))  # type: ignore[arg-type]

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        center: bool = False,
        like: Tensor | None = None,
    ) -> Noise:
        if not self.noisy:
            return None
        like = self.like if like is None else like
        shape = (n, *self.latent_shape)
        if center:
            return torch.full(shape, 0.5, dtype=like.dtype, device=like.device)
        return draw(shape, like, generator, normal=False)

    def forward(
        self, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        if self.noisy and noise is None:
            noise = self.draw(x.shape[0], like=x)
        u = (
            noise.to(x)
            if isinstance(noise, Tensor)
            else x.new_zeros(x.shape[0], *self.latent_shape)
        )
        parts, total = [], x.new_zeros(x.shape[0])
        e = at = 0
        for (c, coding), flag in zip(self._pairs(), self.flags, strict=True):
            own = u[:, at : at + coding.size]
            z, ladj, inside = coding.encode(x[:, e], own)
            at += coding.size
            if c.flagged:
                assert isinstance(flag, _Levels)
                gone = x[:, e + 1] == 1
                filled, less = _normal(torch.zeros_like(own), torch.ones_like(own), own)
                z = torch.where(gone[:, None], filled, z)
                ladj = torch.where(gone, less, ladj)
                z_flag, more, valid = flag.encode(x[:, e + 1], u[:, at : at + 1])
                inside = (inside | gone) & valid
                z, ladj = torch.cat((z, z_flag), -1), ladj + more
                at += 1
            parts.append(z)
            total = total + torch.where(inside, ladj, torch.full_like(ladj, -math.inf))
            e += c.width
        return torch.cat(parts, -1), total

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        parts, total, at = [], z.new_zeros(z.shape[0]), 0
        for (c, coding), flag in zip(self._pairs(), self.flags, strict=True):
            x, ladj = coding.decode(z[:, at : at + coding.size])
            at += coding.size
            if c.flagged:
                gone = flag.decode(z[:, at : at + 1])[0]  # type: ignore[operator]
                parts += [torch.where(gone == 1, torch.full_like(x, c.filling), x), gone]
                ladj = torch.where(gone == 1, torch.zeros_like(ladj), ladj)
                at += 1
            else:
                parts.append(x)
            total = total + ladj
        return torch.stack(parts, -1), total

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        """Fit shares, means and deviations to x once; a deviation of zero counts as one."""
        if not bool(self.initialized):
            e = 0
            for (c, coding), flag in zip(self._pairs(), self.flags, strict=True):
                there = x[:, e + 1] == 0 if c.flagged else torch.ones(len(x), dtype=torch.bool)
                coding.fit(x[:, e][there.to(x.device)])
                if c.flagged:
                    flag.fit(x[:, e + 1])  # type: ignore[operator]
                e += c.width
            self.initialized.fill_(True)
        return super().initialize(x, context)

    def config(self) -> dict[str, Any]:
        return {"schema": self.schema.plain()}

    def extra_repr(self) -> str:
        return f"{len(self.schema.events)} columns, {self.event_shape} -> {self.latent_shape}"


def typed_columns(flow: nn.Module) -> TypedColumns | None:
    """The layer of a flow that knows its columns, if there is one."""
    return next((m for m in flow.modules() if isinstance(m, TypedColumns)), None)


__all__ = ["TypedColumns", "typed_columns"]
