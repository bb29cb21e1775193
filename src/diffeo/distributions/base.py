"""Distribution: a base over latents, with an exact log-density and a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..parts import ContextShape, Part, Shape, as_context_shape, as_shape
from ..properties import REAL, Domain

Context = Tensor | dict[str, Tensor] | None


class Distribution(Part):
    """A density over [batch, *event_shape]: `log_prob(z, context)` is [batch], in nats.

    domain: the support of every entry. reparameterized: whether samples carry gradients to the parameters.
    """

    domain: Domain = REAL
    reparameterized = True

    def __init__(self, event_shape: Sequence[int], context_shape: Any = None) -> None:
        super().__init__()
        self.event_shape: Shape = as_shape(event_shape)
        self.context_shape: ContextShape = as_context_shape(context_shape)
        # Says which dtype and device samples have, for bases without parameters.
        self.like: Tensor
        self.register_buffer("like", torch.zeros(()))

    def forward(self, z: Tensor, context: Context = None) -> Tensor:
        return self.log_prob(z, context)

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        """log p(z), [batch]."""
        raise ConfigError(f"{type(self).__name__} has no log_prob")

    def sample(
        self,
        n: int,
        context: Context = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n samples, [n, *event_shape]; a context has n rows. temperature multiplies the deviation from the mean."""
        return self.place(temperature * self.noise(n, generator), context)

    def noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        """n draws of what temperature multiplies, [n, *event_shape]: a standard Gaussian."""
        return self._randn(n, generator)

    def place(self, noise: Tensor, context: Context) -> Tensor:
        """Samples from noise: the mean plus the deviation times it."""
        return noise

    def _randn(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.randn(
            (n, *self.event_shape),
            dtype=self.like.dtype,
            device=self.like.device,
            generator=generator,
        )

    def _rand(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.rand(
            (n, *self.event_shape),
            dtype=self.like.dtype,
            device=self.like.device,
            generator=generator,
        )

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape}
