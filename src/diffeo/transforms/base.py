"""Transform, Chain and Inverse: invertible maps between data and latents that carry their log-likelihood term."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ConvergenceError, DirectionError, DomainError, ShapeError
from ..parts import ContextShape, Part, Shape, as_context_shape, as_shape, register
from ..properties import Properties
from ..properties import product as _product
from .reversible import Apply, Step, generator_kept

Context = Tensor | dict[str, Tensor] | None
Noise = Tensor | tuple["Noise", ...] | None
Bounds = tuple[float | None, float | None]
TransformLike = "Transform | Callable[[Shape], Transform]"


def rows_of(context: Context, index: Tensor) -> Context:
    """The context of some examples of a batch, by their indices [n]."""
    if isinstance(context, dict):
        return {k: v.index_select(0, index) for k, v in context.items()}
    return None if context is None else context.index_select(0, index)


@dataclass(frozen=True)
class Level:
    """One level of a multi-scale latent: its slice of the flat latent vector, and the shape it has there."""

    slice: slice
    shape: Shape


class Transform(Part):
    """A map between data x and latent z that returns value and log-likelihood contribution together.

    `z, ladj = transform(x, context)` and `x, ladj = transform.inverse(z, context)`: x is [batch, *event_shape], z is
    [batch, *latent_shape], ladj is [batch], in nats, for the direction computed.
    """

    properties: Properties = Properties()

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        latent_shape: Sequence[int] | None = None,
        context_shape: Any = None,
    ) -> None:
        super().__init__()
        self.event_shape: Shape = as_shape(event_shape)
        self.latent_shape: Shape = (
            self.event_shape if latent_shape is None else as_shape(latent_shape, "latent_shape")
        )
        self.context_shape: ContextShape = as_context_shape(context_shape)

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Data to latent: z, ladj."""
        raise DirectionError(f"{self.name} has no forward direction")

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """Latent to data: x, ladj."""
        raise DirectionError(f"{self.name} has no inverse direction")

    def decode(self, z: Tensor, context: Context = None) -> Tensor:
        """The x of `inverse` alone: for a transform whose ladj would cost something."""
        return self.inverse(z, context)[0]

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        """Set data-dependent state from a batch, once; returns what the next layer sees."""
        z: Tensor = self(x, context)[0]
        return z

    @torch.no_grad()
    def initialize_inverse(self, z: Tensor, context: Context = None) -> Tensor:
        """The same for a transform that is used the other way: set the state from latents, return their data."""
        return self.decode(z, context)

    @property
    def name(self) -> str:
        """How errors call this layer."""
        return f"{type(self).__name__}{self.event_shape}"

    @property
    def stochastic(self) -> bool:
        """Whether forward takes noise as a third argument."""
        return False

    @property
    def dequantizes(self) -> bool:
        """Whether that noise makes real numbers of discrete data, so that the flow behind it is one over these."""
        return False

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        center: bool = False,
        like: Tensor | None = None,
    ) -> Noise:
        """Noise for n examples, drawn under `generator` (or its centre); None for a deterministic map."""
        return None

    def steps(self, noise: Noise = None) -> list[Step]:
        """What this transform does, one step after the other, for a backward pass that recomputes activations."""
        return [Apply(self, noise)]

    def recompute(
        self, z: Tensor, context: Context = None
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """From an output z alone: leaves, z and ladj with the graph of forward; called with gradients on.

        The last leaf is x. Where there are several, the gradient of x is the sum of theirs.
        """
        # Both passes draw the same dropout masks.
        with torch.no_grad(), generator_kept(z.device):
            x = self.decode(z, context)
        x = x.detach().requires_grad_()
        z, ladj = self(x, context)
        return (x,), z, ladj

    def lipschitz_bounds(self) -> Bounds:
        """Upper bounds on the Lipschitz constants of map and inverse, now, for any one context; None where unknown."""
        return self.properties.lipschitz, self.properties.inverse_lipschitz

    def estimate_bias(self) -> float | None:
        """Of a drawn ladj: at most how many nats its mean over some dozen draws misses for other reasons than noise."""
        return None

    @property
    def levels(self) -> tuple[Level, ...]:
        """Levels of a multi-scale latent, fine to coarse."""
        return (Level(slice(0, math.prod(self.latent_shape)), self.latent_shape),)

    def _named(
        self, work: Callable[..., tuple[Tensor, Tensor]], *inputs: Any
    ) -> tuple[Tensor, Tensor]:
        """work(*inputs), for example a family's map; a ConvergenceError in it says that this layer is the one."""
        try:
            return work(*inputs)
        except ConvergenceError as error:
            raise ConvergenceError(f"{self.name}: {error}") from None

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape}


@register
class Chain(Transform):
    """z = f_n(... f_2(f_1(x))): the parts in data-to-latent order; ladj is the sum of theirs.

    Each part is a transform, or a callable that makes one from the shape it is given, such as a transform class or a
    `functools.partial` of it: `Chain((3, 8, 8), [Squeeze, ActNorm])`.

    Raises ShapeError or DomainError, naming the layers and both sides, where two parts do not meet.
    """

    def __init__(
        self, event_shape: Sequence[int], parts: Iterable[Transform | Callable[[Shape], Transform]]
    ) -> None:
        shape = as_shape(event_shape)
        built: list[Transform] = []
        properties: Properties | None = None
        for i, part in enumerate(parts):
            if not isinstance(part, Transform):
                part = _build(part, shape, i)
            before = f"layer {i - 1} ({built[-1].name})" if built else "the chain's event_shape"
            if part.event_shape != shape:
                raise ShapeError(
                    f"layer {i} ({part.name}) takes {part.event_shape}, but {before} gives {shape}"
                )
            here = part.properties
            if properties is not None:
                given, wanted = properties.codomain, here.domain
                if given is not None and wanted is not None and not given.within(wanted):
                    raise DomainError(
                        f"layer {i} ({part.name}) takes values in {wanted}, but {before} gives {given}"
                    )
            properties = here if properties is None else properties.then(here)
            built.append(part)
            shape = part.latent_shape
        if not built or properties is None:
            raise ConfigError("a Chain needs at least one part")
        super().__init__(
            event_shape,
            latent_shape=shape,
            context_shape=common_context_shape(*(p.context_shape for p in built)),
        )
        self.parts = nn.ModuleList(built)
        self.properties = properties

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.parts)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.parts)

    def forward(
        self, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        total = None
        for i, part in enumerate(self.parts):
            if part.stochastic and isinstance(noise, tuple):
                x, ladj = part(x, context, noise[i])
            else:
                x, ladj = part(x, context)
            total = ladj if total is None else total + ladj
        assert total is not None
        return x, total

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        total = None
        for part in reversed(list(self)):
            z, ladj = part.inverse(z, context)
            total = ladj if total is None else total + ladj
        assert total is not None
        return z, total

    def decode(self, z: Tensor, context: Context = None) -> Tensor:
        for part in reversed(list(self)):
            z = part.decode(z, context)
        return z

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        for part in self:
            x = part.initialize(x, context)
        return x

    @torch.no_grad()
    def initialize_inverse(self, z: Tensor, context: Context = None) -> Tensor:
        for part in reversed(list(self)):
            z = part.initialize_inverse(z, context)
        return z

    @property
    def stochastic(self) -> bool:
        return any(part.stochastic for part in self)

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        center: bool = False,
        like: Tensor | None = None,
    ) -> Noise:
        if not self.stochastic:
            return None
        return tuple(p.draw(n, generator=generator, center=center, like=like) for p in self)

    def steps(self, noise: Noise = None) -> list[Step]:
        noises = noise if isinstance(noise, tuple) else (None,) * len(self)
        return [step for part, n in zip(self, noises, strict=True) for step in part.steps(n)]

    def lipschitz_bounds(self) -> Bounds:
        bounds = zip(*(part.lipschitz_bounds() for part in self), strict=True)
        first, second = (reduce(_product, own) for own in bounds)
        return first, second

    @property
    def levels(self) -> tuple[Level, ...]:
        return list(self)[-1].levels

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "parts": list(self.parts)}


@register
class Inverse(Transform):
    """z = f^-1(x): a deterministic transform run the other way; ladj of each direction goes with it.

    Raises ConfigError for a stochastic transform, whose inverse has no likelihood of its own.
    """

    def __init__(self, transform: Transform) -> None:
        if transform.stochastic or transform.properties.kind == "bound":
            raise ConfigError(
                f"cannot invert {transform.name}: its likelihood is a bound in one direction only"
            )
        super().__init__(
            transform.latent_shape,
            latent_shape=transform.event_shape,
            context_shape=transform.context_shape,
        )
        self.transform = transform
        self.properties = transform.properties.inverted()

    def forward(self, x: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context)

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        x, ladj = self.transform(z, context)
        return x, ladj

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        return self.transform.initialize_inverse(x, context)

    @torch.no_grad()
    def initialize_inverse(self, z: Tensor, context: Context = None) -> Tensor:
        return self.transform.initialize(z, context)

    def lipschitz_bounds(self) -> Bounds:
        first, second = self.transform.lipschitz_bounds()
        return second, first

    @property
    def name(self) -> str:
        return f"Inverse of {self.transform.name}"

    def config(self) -> dict[str, Any]:
        return {"transform": self.transform}


def extremes(log_slope: Tensor) -> Bounds:
    """Lipschitz constants of an affine map entry by entry, and of its inverse."""
    if not log_slope.numel():
        return 1.0, 1.0
    low, high = log_slope.detach().double().aminmax()
    return float(high.exp()), float((-low).exp())


def common_context_shape(*shapes: ContextShape) -> ContextShape:
    """The one context shape among several parts. Raises ShapeError if two differ."""
    found: ContextShape = None
    for shape in shapes:
        if shape is None:
            continue
        if found is not None and shape != found:
            raise ShapeError(f"two parts take different contexts: {found} and {shape}")
        found = shape
    return found


def _build(factory: Callable[[Shape], Transform], shape: Shape, index: int) -> Transform:
    try:
        part = factory(shape)
    except (ShapeError, DomainError) as error:
        raise type(error)(f"layer {index}: {error}") from error
    if not isinstance(part, Transform):
        raise ConfigError(
            f"layer {index} of a Chain must be a Transform or make one from a shape, got {part!r}"
        )
    return part
