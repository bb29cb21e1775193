"""Multi-scale as a bijection: at each split one half leaves, whitened by a Gaussian of the half that goes on.

A multi-scale model maps an image to one vector of standard-normal latents, and `levels` says which slice is what. The
Gaussian N(mu(h), sigma(h)) of the half that leaves is a coupling, eps = (x_out - mu(h)) / sigma(h), before the split.
Dinh et al., Real NVP, 2016, arXiv:1605.08803; Kingma & Dhariwal, Glow, 2018, arXiv:1807.03039.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DomainError, ShapeError
from ..families import Affine, Inverted
from ..nets import Constant, NetFactory
from ..parts import Shape, as_shape, register
from .base import Bounds, Chain, Context, Level, Noise, Transform
from .coupling import Coupling
from .partitions import Halves, Partition
from .reversible import Rearrange, State, Step


@register
class Split(Transform):
    """z = [x_out, rest(x_kept)] as one flat vector; ladj is that of `rest`.

    partition: x_kept is its visible part, x_out its changed part. rest: a transform of x_kept, or a callable that makes
    one from the shape. The latent holds the fine level first.

    Raises ShapeError where `rest` does not take the kept part, and for partitions that keep the whole shape;
    DomainError where `rest` changes the domain.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        rest: Transform | Callable[[Shape], Transform],
        partition: Partition | Callable[[Shape], Partition] = Halves,
    ) -> None:
        shape = as_shape(event_shape)
        if not isinstance(partition, Partition):
            partition = partition(shape)
        kept = partition.visible_shape
        if partition.event_shape != shape or partition.mask() is not None:
            raise ShapeError(
                f"Split{shape} needs a partition that divides its shape, got {type(partition).__name__}"
                f" for {partition.event_shape}"
            )
        if not isinstance(rest, Transform):
            rest = rest(kept)
        if rest.event_shape != kept:
            raise ShapeError(f"Split{shape} keeps {kept}, but {rest.name} takes {rest.event_shape}")
        self_out = math.prod(partition.changed_shape)
        super().__init__(
            shape,
            latent_shape=(self_out + math.prod(rest.latent_shape),),
            context_shape=rest.context_shape,
        )
        self.partition = partition
        self.rest = rest
        promised = rest.properties
        if promised.domain != promised.codomain:
            raise DomainError(
                f"Split{shape} cannot use {rest.name}: it maps {promised.domain} to {promised.codomain}, and the half "
                "that leaves would stay where it is"
            )
        self.properties = replace(
            promised,
            lipschitz=_at_least_one(promised.lipschitz),
            inverse_lipschitz=_at_least_one(promised.inverse_lipschitz),
        )

    def lipschitz_bounds(self) -> Bounds:
        first, second = self.rest.lipschitz_bounds()
        return _at_least_one(first), _at_least_one(second)

    def _join(self, out: Tensor, z: Tensor) -> Tensor:
        return torch.cat((out.flatten(1), z.flatten(1)), dim=1)

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The half that left and the latents of the rest."""
        out_size = math.prod(self.partition.changed_shape)
        out = z[:, :out_size].reshape(z.shape[0], *self.partition.changed_shape)
        return out, z[:, out_size:].reshape(z.shape[0], *self.rest.latent_shape)

    def forward(
        self, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        kept, out = self.partition.split(x)
        z, ladj = (
            self.rest(kept, context, noise) if self.rest.stochastic else self.rest(kept, context)
        )
        return self._join(out, z), ladj

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        out, inner = self._parts(z)
        kept, ladj = self.rest.inverse(inner, context)
        # A partition that divides its shape rebuilds the event from its two parts alone.
        return self.partition.merge(out, kept, out), ladj

    def decode(self, z: Tensor, context: Context = None) -> Tensor:
        out, inner = self._parts(z)
        return self.partition.merge(out, self.rest.decode(inner, context), out)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        kept, out = self.partition.split(x)
        return self._join(out, self.rest.initialize(kept, context))

    @torch.no_grad()
    def initialize_inverse(self, z: Tensor, context: Context = None) -> Tensor:
        out, inner = self._parts(z)
        return self.partition.merge(out, self.rest.initialize_inverse(inner, context), out)

    def steps(self, noise: Noise = None) -> list[Step]:
        def leave(state: State) -> State:
            kept, out = self.partition.split(state[0])
            return (kept, *state[1:], out)

        def come_back(state: State) -> State:
            kept, *others, out = state
            return (self.partition.merge(out, kept, out), *others)

        def join(state: State) -> State:
            z, *others, out = state
            return (self._join(out, z), *others)

        def part(state: State) -> State:
            out, inner = self._parts(state[0])
            return (inner, *state[1:], out)

        return [Rearrange(leave, come_back), *self.rest.steps(noise), Rearrange(join, part)]

    @property
    def stochastic(self) -> bool:
        return self.rest.stochastic

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        center: bool = False,
        like: Tensor | None = None,
    ) -> Noise:
        return self.rest.draw(n, generator=generator, center=center, like=like)

    @property
    def levels(self) -> tuple[Level, ...]:
        size = math.prod(self.partition.changed_shape)
        coarser = (
            Level(slice(level.slice.start + size, level.slice.stop + size), level.shape)
            for level in self.rest.levels
        )
        return (Level(slice(0, size), self.partition.changed_shape), *coarser)

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "rest": self.rest, "partition": self.partition}


def _at_least_one(bound: float | None) -> float | None:
    """The bound beside the identity."""
    return None if bound is None else max(1.0, bound)


def split_whitened(
    event_shape: Sequence[int],
    rest: Transform | Callable[[Shape], Transform],
    prior: Literal["fixed", "learned"] | nn.Module | NetFactory = "fixed",
    partition: Callable[[Shape], Partition] = Halves,
    *,
    context_shape: Any = None,
) -> Transform:
    """A split whose leaving half is modelled by N(mu, sigma): `fixed` N(0, 1), `learned`, or a network of what stays.

    eps = (x_out - mu) / sigma goes into the latent; the log-likelihood gains -sum log sigma.
    """
    shape = as_shape(event_shape)
    split = Split(shape, rest, partition)
    if prior == "fixed":
        return split
    if isinstance(prior, str) and prior != "learned":
        raise ConfigError(f"prior must be fixed, learned or a network, got {prior!r}")
    net = Constant if prior == "learned" else prior
    whiten = Coupling(
        shape,
        Inverted(Affine("clamp")),
        net,
        partition,
        context_shape=None if prior == "learned" else context_shape,
    )
    return Chain(shape, [whiten, split])
