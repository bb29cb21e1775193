"""TypedColumns: the columns of a table as real numbers, each by the map, or the dequantization, of its kind."""

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
from .codings import Coding, Levels, coding_of, latents_of


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
        codings = [coding_of(c) for c in columns]
        flags = [Levels(2, ordered=True) if c.flagged else None for c in columns]
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

    def _pairs(self) -> list[tuple[Column, Coding]]:
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
                assert isinstance(flag, Levels)
                gone = x[:, e + 1] == 1
                filled, less = latents_of(torch.zeros_like(own), torch.ones_like(own), own)
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
