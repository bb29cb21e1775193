"""Velocity fields f(x, t, context) of continuous flows, with their directional derivatives in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import Part, Shape, as_context_shape, as_shape, register
from .base import Context
from .mlp import context_size, flat_context

FieldFactory = Callable[[Shape, Any], "Field"]


class Field(Part):
    """dx/dt = f(x, t, context): x [batch, *event_shape], t a number or [batch], the result as x.

    A subclass defines `forward`, smooth in x (no relu: its divergence jumps, and solvers stall), and `config`. Where it
    knows its derivatives, it also defines `with_tangents` and `with_trace`; here they are by forward-mode autograd.
    """

    def __init__(self, event_shape: Sequence[int], context_shape: Any = None) -> None:
        super().__init__()
        self.event_shape: Shape = as_shape(event_shape)
        self.context_shape = as_context_shape(context_shape)

    def forward(self, x: Tensor, t: Tensor, context: Context = None) -> Tensor:
        raise ConfigError(f"{type(self).__name__} has no forward")

    def with_tangents(
        self, x: Tensor, t: Tensor, tangents: Tensor, context: Context = None
    ) -> tuple[Tensor, Tensor]:
        """f and J v for each of K directions v [K, batch or 1, *event], [K, batch, *event]."""
        tangents = tangents.expand(len(tangents), *x.shape)

        def along(v: Tensor) -> tuple[Tensor, Tensor]:
            value, slope, *_ = torch.func.jvp(lambda x: self(x, t, context), (x,), (v,))
            return value, slope

        values, found = torch.func.vmap(along)(tangents)
        return values[0], found

    def with_trace(self, x: Tensor, t: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """f and tr df/dx, [batch]: one directional derivative for each entry of the event."""
        value, columns = self.jacobian(x, t, context)
        return value, columns.diagonal(dim1=0, dim2=2).sum(-1)

    def jacobian(self, x: Tensor, t: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        """f and df/dx by columns, [D, batch, D]."""
        value, columns = self.with_tangents(x, t, basis(x), context)
        return value, columns.flatten(2)

    def config(self) -> dict[str, Any]:
        return {"event_shape": self.event_shape, "context_shape": self.context_shape}


def basis(x: Tensor) -> Tensor:
    """The unit vectors of an event, [D, 1, *event]."""
    size = math.prod(x.shape[1:])
    return torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:])


# Value and derivative of smooth activations.
def tanh(a: Tensor) -> Tensor:
    """tanh a = 2 sigmoid(2 a) - 1, a third of the time of torch.tanh on a CPU, to the rounding of one."""
    return (a + a).sigmoid() * 2 - 1


def _tanh(a: Tensor) -> tuple[Tensor, Tensor]:
    h = tanh(a)
    return h, 1 - h * h


def _softplus(a: Tensor) -> tuple[Tensor, Tensor]:
    return F.softplus(a), a.sigmoid()


def _silu(a: Tensor) -> tuple[Tensor, Tensor]:
    s = a.sigmoid()
    h = a * s
    return h, s + h * (1 - s)


_SMOOTH: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "tanh": _tanh,
    "softplus": _softplus,
    "silu": _silu,
}
_VALUE: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": tanh,
    "softplus": F.softplus,
    "silu": F.silu,
}


class _ConcatSquash(Field):
    """Layers a = (W h + b) sigmoid(w_g t + b_g) + w_b t, smooth activations between them.

    With a context c, (t, c) takes the place of t. gated=False: without the sigmoid, which for perceptrons is t joined
    to the input of every layer. FFJORD's released code calls these layers concatsquash and concat.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        context_shape: Any,
        layers: Sequence[nn.Module],
        widths: Sequence[int],
        activation: str,
        gated: bool,
    ) -> None:
        super().__init__(event_shape, context_shape)
        if activation not in _SMOOTH:
            raise ConfigError(
                f"activation of a field must be one of {', '.join(_SMOOTH)}, got {activation!r}"
            )
        self.activation = activation
        self.gated = gated
        self.widths = tuple(widths)
        self.layers = nn.ModuleList(layers)
        given = 1 + context_size(self.context_shape)
        self.gate = nn.Linear(given, sum(self.widths)) if gated else None
        self.shift = nn.Linear(given, sum(self.widths), bias=False)

    def _linear(self, i: int, h: Tensor) -> Tensor:
        """Layer i with its bias, h [batch, ...]."""
        out: Tensor = self.layers[i](h)
        return out

    def _map(self, i: int, v: Tensor) -> Tensor:
        """The same without bias, v [K, batch, ...]."""
        raise NotImplementedError

    def _time(self, x: Tensor, t: Tensor, context: Context) -> list[tuple[Tensor | None, Tensor]]:
        """Gate and shift of every layer, [1 or batch, width] and broadcastable against the features."""
        given = t.to(x.dtype).reshape(-1, 1)
        if self.context_shape is not None:
            c = torch.cat(flat_context(context, self.context_shape), dim=1)
            given = torch.cat((given.expand(len(c), 1), c), dim=1)
        shifts = self._spread(self.shift(given), x)
        if self.gate is None:
            return [(None, shift) for shift in shifts]
        return list(zip(self._spread(self.gate(given).sigmoid(), x), shifts, strict=True))

    def _spread(self, values: Tensor, x: Tensor) -> Sequence[Tensor]:
        parts: Sequence[Tensor] = values.split(self.widths, 1)
        if x.ndim == 2:
            return parts
        return [v.reshape(*v.shape, *(1,) * (x.ndim - 2)) for v in parts]

    def forward(self, x: Tensor, t: Tensor, context: Context = None) -> Tensor:
        act, h = _VALUE[self.activation], x
        for i, (gate, shift) in enumerate(self._time(x, t, context)):
            a = self._linear(i, h)
            a = a + shift if gate is None else torch.addcmul(shift, a, gate)
            h = a if i == len(self.widths) - 1 else act(a)
        return h

    def with_tangents(
        self, x: Tensor, t: Tensor, tangents: Tensor, context: Context = None
    ) -> tuple[Tensor, Tensor]:
        value, tangents, gate = self._until_last(x, t, tangents, context)
        tangents = self._map(len(self.widths) - 1, tangents)
        if gate is not None:
            tangents = tangents * gate
        return value, tangents.expand(len(tangents), *x.shape)

    def _until_last(
        self, x: Tensor, t: Tensor, tangents: Tensor, context: Context
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """f, the tangents that enter the last layer, and the gate of that layer."""
        act, h = _SMOOTH[self.activation], x
        time = self._time(x, t, context)
        for i, (gate, shift) in enumerate(time[:-1]):
            a = self._linear(i, h)
            a = a + shift if gate is None else torch.addcmul(shift, a, gate)
            h, slope = act(a)
            tangents = self._map(i, tangents) * (slope if gate is None else slope * gate)
        gate, shift = time[-1]
        a = self._linear(len(time) - 1, h)
        value = a + shift if gate is None else torch.addcmul(shift, a, gate)
        return value, tangents, gate

    def config(self) -> dict[str, Any]:
        return super().config() | {"activation": self.activation, "gated": self.gated}


@register
class ConcatSquash(_ConcatSquash):
    """A perceptron of x, flattened, whose layers are gated and shifted by time (and the context).

    hidden: widths. activation: tanh, softplus or silu. Grathwohl et al., FFJORD, 2018, arXiv:1810.01367.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        context_shape: Any = None,
        *,
        hidden: Sequence[int] = (64, 64, 64),
        activation: str = "tanh",
        gated: bool = True,
    ) -> None:
        size = math.prod(as_shape(event_shape))
        self.hidden = tuple(hidden)
        widths = (*self.hidden, size)
        layers = [nn.Linear(m, n) for m, n in zip((size, *self.hidden), widths, strict=True)]
        super().__init__((size,), context_shape, layers, widths, activation, gated)
        self.event_shape = as_shape(event_shape)

    def _map(self, i: int, v: Tensor) -> Tensor:
        return F.linear(v, self.layers[i].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor, context: Context = None) -> Tensor:
        return super().forward(x.flatten(1), t, context).reshape(x.shape)

    def with_tangents(
        self, x: Tensor, t: Tensor, tangents: Tensor, context: Context = None
    ) -> tuple[Tensor, Tensor]:
        value, found = super().with_tangents(x.flatten(1), t, tangents.flatten(2), context)
        return value.reshape(x.shape), found.reshape(len(found), *x.shape)

    def with_trace(self, x: Tensor, t: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        flat = x.flatten(1)
        value, tangents, gate = self._until_last(flat, t, basis(flat), context)
        # Of the last layer, only the diagonal.
        weight: Any = self.layers[-1].weight
        diagonal = (tangents @ weight[..., None])[..., 0].expand(-1, len(x)).mT
        return value.reshape(x.shape), (diagonal if gate is None else diagonal * gate).sum(-1)

    def config(self) -> dict[str, Any]:
        return super().config() | {"hidden": self.hidden}


@register
class ConcatSquashConv(_ConcatSquash):
    """Convolutions that keep the size of the image, gated and shifted per channel by time (and the context).

    channels: hidden feature maps. kernel: odd. Grathwohl et al., FFJORD, 2018, arXiv:1810.01367.

    Raises ShapeError for events that are no images [channels, height, width].
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        context_shape: Any = None,
        *,
        channels: Sequence[int] = (64, 64, 64),
        kernel: int = 3,
        activation: str = "softplus",
        gated: bool = True,
    ) -> None:
        shape = as_shape(event_shape)
        if len(shape) != 3:
            raise ShapeError(
                f"ConcatSquashConv takes images (channels, height, width), got {shape}"
            )
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(f"kernel must be odd, so that the image keeps its size, got {kernel}")
        self.channels = tuple(channels)
        self.kernel = kernel
        widths = (*self.channels, shape[0])
        layers = [
            nn.Conv2d(m, n, kernel, padding=kernel // 2)
            for m, n in zip((shape[0], *self.channels), widths, strict=True)
        ]
        super().__init__(shape, context_shape, layers, widths, activation, gated)

    def _map(self, i: int, v: Tensor) -> Tensor:
        weight: Any = self.layers[i].weight
        out = F.conv2d(v.flatten(0, 1), weight, padding=self.kernel // 2)
        return out.reshape(*v.shape[:2], *out.shape[1:])

    def config(self) -> dict[str, Any]:
        return super().config() | {"channels": self.channels, "kernel": self.kernel}
