"""Scaled: a context in comparable units, before any network sees it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, InputError
from ..parts import register
from .base import Conditioner, Context

_KNOTS = 64


@register
class Scaled(Conditioner):
    """An embedding: the context by statistics that `fit` takes from a batch of it, then `net`, if there is one.

    A vector [d] becomes 2 d numbers: each entry as (c - mean) / std, and as the normal score of its rank in the batch,
    Phi^-1(rank), by 64 quantiles with lines between them; so that counts, and tails over several orders of magnitude,
    stay visible. Any other context becomes (c - mean) / std with one mean and one deviation for all entries, in its
    own shape. Then `net`, a Conditioner of that with in_shape (0,). Values are moved by no gradient and saved.

    Raises ConfigError for a context that is not one tensor, or a net that reads another shape.
    """

    def __init__(self, context_shape: Any, net: Conditioner | None = None) -> None:
        if not isinstance(context_shape, list | tuple):
            raise ConfigError(
                f"Scaled takes the shape of one context tensor, got {context_shape!r}"
            )
        shape = tuple(context_shape)
        self.vector = len(shape) == 1
        seen = (2 * shape[0],) if self.vector else shape
        if net is not None and (net.in_shape != (0,) or net.context_shape != seen):
            raise ConfigError(
                f"a net after Scaled{shape} needs in_shape (0,) and context_shape {seen}, got {net.in_shape} and "
                f"{net.context_shape}"
            )
        super().__init__((0,), seen if net is None else net.out_shape, shape)
        self.net = net
        statistics = shape if self.vector else ()
        self.mean: Tensor
        self.std: Tensor
        self.knots: Tensor
        self.scores: Tensor
        self.register_buffer("mean", torch.zeros(statistics))
        self.register_buffer("std", torch.ones(statistics))
        if self.vector:
            even = torch.special.ndtri((torch.arange(_KNOTS) + 0.5) / _KNOTS).expand(*shape, -1)
            self.register_buffer("knots", even.clone())
            self.register_buffer("scores", even.clone())

    @torch.no_grad()
    def fit(self, context: Tensor) -> None:
        """Take the statistics of a batch [n, *context_shape]. Raises InputError if it is empty or not finite."""
        if not len(context) or not bool(context.isfinite().all()):
            raise InputError(f"cannot scale by {len(context)} contexts, or by values not finite")
        rows = context.double() if self.vector else context.double().reshape(-1)
        std = rows.std(0, correction=0)
        self.mean.copy_(rows.mean(0))
        self.std.copy_(torch.where(std > 0, std, 1.0))
        if self.vector:
            share = (torch.arange(_KNOTS).double() + 0.5) / _KNOTS
            knots = rows.quantile(share, dim=0).T.to(self.knots)
            scores = torch.special.ndtri(share).expand_as(knots)
            # Equal knots share the mean of their scores, so that what lies between is continuous.
            same = (knots[:, :, None] == knots[:, None, :]).double()
            self.knots.copy_(knots)
            self.scores.copy_((same * scores[:, None, :]).sum(-1) / same.sum(-1))

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        if not isinstance(context, Tensor):
            raise ConfigError(
                f"Scaled takes one context tensor of shape {self.context_shape}, got "
                f"{type(context).__name__}"
            )
        out = (context - self.mean) / self.std
        if self.vector:
            out = torch.cat((out, self._normal_scores(context)), dim=1)
        return out if self.net is None else self.net(x, out)

    def _normal_scores(self, context: Tensor) -> Tensor:
        value = context[..., None]
        below = ((value >= self.knots).sum(-1, keepdim=True) - 1).clamp(0, _KNOTS - 2)
        knots, scores = (t.expand(*context.shape, _KNOTS) for t in (self.knots, self.scores))
        q, s = knots.gather(-1, below), scores.gather(-1, below)
        width = knots.gather(-1, below + 1) - q
        share = ((value - q) / torch.where(width > 0, width, 1.0)).clamp(0, 1)
        return (s + share * (scores.gather(-1, below + 1) - s)).squeeze(-1)

    def config(self) -> dict[str, Any]:
        return {"context_shape": self.context_shape, "net": self.net}
