"""Distribution: a base over latents, with an exact log-density and a sampler; Parametric: one with parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..nets import NetFactory, make_net
from ..noise import draw
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

    @property
    def name(self) -> str:
        """How errors call this base."""
        return f"{type(self).__name__}{self.event_shape}"

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
        return draw((n, *self.event_shape), self.like, generator)

    def _rand(self, n: int, generator: torch.Generator | None) -> Tensor:
        return draw((n, *self.event_shape), self.like, generator, normal=False)

    def _open_rand(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Uniform on (0, 1), half a step away from both ends at least: rand may give 0."""
        u = self._rand(n, generator)
        tiny = torch.finfo(u.dtype).eps / 2
        return u.clamp(tiny, 1 - tiny)

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape}


class Parametric(Distribution):
    """A distribution with named parameters: learned, fixed, or their start plus a network's output of the context.

    start: name to first value. learned: whether they are parameters or buffers. net: a module, or a callable
    `(in_shape, out_shape, context_shape) -> module`, called with an empty in_shape; its output, a vector, holds what is
    added to the parameters, one after another in the order of `start`, so a network that is zero at first changes
    nothing.

    Raises ConfigError for a net without a context_shape, or the other way round.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        start: Mapping[str, Tensor],
        *,
        learned: bool = True,
        net: nn.Module | NetFactory | None = None,
        context_shape: Any = None,
    ) -> None:
        super().__init__(event_shape, context_shape)
        if (net is None) != (self.context_shape is None):
            raise ConfigError(
                f"{self.name} needs both a net and a context_shape to depend on a context, or neither"
            )
        self.learned = learned
        self.names = tuple(start)
        for name, value in start.items():
            if learned and net is None:
                setattr(self, name, nn.Parameter(value.clone()))
            else:
                self.register_buffer(name, value.clone())
        self.net: nn.Module | None = None
        if net is not None:
            size = sum(value.numel() for value in start.values())
            self.net = make_net(net, (0,), (size,), self.context_shape, owner=self.name)

    def values(self, n: int, context: Context) -> list[Tensor]:
        """The parameters, each [1 or n, *its shape]."""
        own: list[Tensor] = [getattr(self, name) for name in self.names]
        if self.net is None:
            return [value[None] for value in own]
        out: Tensor = self.net(self.like.new_empty((n, 0)), context).flatten(1)
        pieces = out.to(self.like.dtype).split([value.numel() for value in own], dim=1)
        return [
            value + piece.reshape(n, *value.shape) for value, piece in zip(own, pieces, strict=True)
        ]

    def config(self) -> dict[str, Any]:
        # The numbers themselves are in the weights.
        return {
            "event_shape": self.event_shape,
            "learned": self.learned,
            "net": self.net,
            "context_shape": self.context_shape,
        }


def as_event(value: Any, shape: Shape, name: str) -> Tensor:
    """A number or nested sequence as a tensor of the event's shape. Raises ConfigError where it does not broadcast."""
    tensor = torch.as_tensor(value, dtype=torch.get_default_dtype())
    try:
        return tensor.expand(shape)
    except RuntimeError as error:
        raise ConfigError(
            f"{name} got a parameter of shape {tuple(tensor.shape)}, which does not fit its event"
        ) from error


def positive(value: Tensor, name: str, above: float = 0.0) -> Tensor:
    """log(value - above). Raises ConfigError where a value is not above it."""
    if not value.is_meta and not bool((value > above).all()):
        raise ConfigError(f"{name} must be above {above:g}, got {value.flatten().tolist()}")
    return (value - above).log()
