"""Velocity fields f(x, t, context) of continuous flows, with their directional derivatives in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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

    def prepare(self) -> Any:
        """What the field computes of its parameters alone, once for a solve; the methods take it last if not None."""
        return None

    def with_tangents(
        self, x: Tensor, t: Tensor, tangents: Tensor, context: Context = None, *prepared: Any
    ) -> tuple[Tensor, Tensor]:
        """f and J v for each of K directions v [K, batch or 1, *event], [K, batch, *event]."""
        tangents = tangents.expand(len(tangents), *x.shape)

        def along(v: Tensor) -> tuple[Tensor, Tensor]:
            value, slope, *_ = torch.func.jvp(lambda x: self(x, t, context, *prepared), (x,), (v,))
            return value, slope

        values, found = torch.func.vmap(along)(tangents)
        return values[0], found

    def with_trace(
        self, x: Tensor, t: Tensor, context: Context = None, *prepared: Any
    ) -> tuple[Tensor, Tensor]:
        """f and tr df/dx, [batch]: one directional derivative for each entry of the event."""
        value, columns = self.jacobian(x, t, context, *prepared)
        return value, columns.diagonal(dim1=0, dim2=2).sum(-1)

    def jacobian(
        self, x: Tensor, t: Tensor, context: Context = None, *prepared: Any
    ) -> tuple[Tensor, Tensor]:
        """f and df/dx by columns, [D, batch, D]."""
        value, columns = self.with_tangents(x, t, basis(x), context, *prepared)
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


def _sigmoid(a: Tensor) -> tuple[Tensor, Tensor]:
    s = a.sigmoid()
    return s, s * (1 - s)


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


class _Weights(NamedTuple):
    """Of every layer its weight and bias, the weight of the shift, and the activation with and without derivative."""

    layers: list[tuple[Tensor, Tensor]]
    shift: Tensor
    value: Callable[[Tensor], Tensor]
    smooth: Callable[[Tensor], tuple[Tensor, Tensor]]


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

    @property
    def weights(self) -> _Weights:
        layers: Any = self.layers
        return _Weights(
            [(layer.weight, layer.bias) for layer in layers],
            self.shift.weight,
            _VALUE[self.activation],
            _SMOOTH[self.activation],
        )

    def _map(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """A layer, of v [..., batch, *features]."""
        raise NotImplementedError

    def _time(
        self, x: Tensor, t: Tensor, context: Context, shift: Tensor
    ) -> list[tuple[Tensor | None, Tensor]]:
        """Gate and shift of every layer, [1 or batch, width] and broadcastable against the features."""
        given = t.to(x.dtype).reshape(-1, 1)
        if self.context_shape is not None:
            c = torch.cat(flat_context(context, self.context_shape), dim=1)
            given = torch.cat((given.expand(len(c), 1), c), dim=1)
        shifts = self._spread(F.linear(given, shift), x)
        if self.gate is None:
            return [(None, part) for part in shifts]
        return list(zip(self._spread(self.gate(given).sigmoid(), x), shifts, strict=True))

    def _spread(self, values: Tensor, x: Tensor) -> Sequence[Tensor]:
        parts: Sequence[Tensor] = values.split(self.widths, 1)
        if x.ndim == 2:
            return parts
        return [v.reshape(*v.shape, *(1,) * (x.ndim - 2)) for v in parts]

    def forward(
        self, x: Tensor, t: Tensor, context: Context = None, prepared: _Weights | None = None
    ) -> Tensor:
        weights = self.weights if prepared is None else prepared
        h = x
        time = self._time(x, t, context, weights.shift)
        for i, ((gate, shift), own) in enumerate(zip(time, weights.layers, strict=True)):
            a = self._map(h, *own)
            a = a + shift if gate is None else torch.addcmul(shift, a, gate)
            h = a if i == len(time) - 1 else weights.value(a)
        return h

    def with_tangents(
        self,
        x: Tensor,
        t: Tensor,
        tangents: Tensor,
        context: Context = None,
        prepared: _Weights | None = None,
    ) -> tuple[Tensor, Tensor]:
        weights = self.weights if prepared is None else prepared
        value, tangents, gate = self._until_last(x, t, tangents, context, weights)
        tangents = self._map(tangents, weights.layers[-1][0])
        if gate is not None:
            tangents = tangents * gate
        return value, tangents.expand(len(tangents), *x.shape)

    def _until_last(
        self, x: Tensor, t: Tensor, tangents: Tensor, context: Context, weights: _Weights
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """f, the tangents that enter the last layer, and the gate of that layer."""
        h = x
        time = self._time(x, t, context, weights.shift)
        for (gate, shift), (weight, bias) in zip(time[:-1], weights.layers[:-1], strict=True):
            a = self._map(h, weight, bias)
            a = a + shift if gate is None else torch.addcmul(shift, a, gate)
            h, slope = weights.smooth(a)
            tangents = self._map(tangents, weight) * (slope if gate is None else slope * gate)
        gate, shift = time[-1]
        a = self._map(h, *weights.layers[-1])
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

    def prepare(self) -> _Weights | None:
        """With tanh, the weights of the same map with s = sigmoid(2 a) in place of tanh a = 2 s - 1."""
        if self.activation != "tanh":
            return None
        own = self.weights
        layers = [own.layers[0], *((2 * w, b - w.sum(1)) for w, b in own.layers[1:])]
        hidden = sum(self.hidden)
        shift = torch.cat((2 * own.shift[:hidden], own.shift[hidden:]))
        layers = [*((2 * w, 2 * b) for w, b in layers[:-1]), layers[-1]]
        return _Weights(layers, shift, torch.sigmoid, _sigmoid)

    def _map(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(v, weight, bias)

    def forward(
        self, x: Tensor, t: Tensor, context: Context = None, prepared: _Weights | None = None
    ) -> Tensor:
        return super().forward(x.flatten(1), t, context, prepared).reshape(x.shape)

    def with_tangents(
        self,
        x: Tensor,
        t: Tensor,
        tangents: Tensor,
        context: Context = None,
        prepared: _Weights | None = None,
    ) -> tuple[Tensor, Tensor]:
        flat, directions = x.flatten(1), tangents.flatten(2)
        value, found = super().with_tangents(flat, t, directions, context, prepared)
        return value.reshape(x.shape), found.reshape(len(found), *x.shape)

    def with_trace(
        self, x: Tensor, t: Tensor, context: Context = None, prepared: _Weights | None = None
    ) -> tuple[Tensor, Tensor]:
        flat = x.flatten(1)
        weights = self.weights if prepared is None else prepared
        value, tangents, gate = self._until_last(flat, t, basis(flat), context, weights)
        # Of the last layer, only the diagonal.
        weight = weights.layers[-1][0]
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

    def _map(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        out = F.conv2d(v.flatten(0, -4), weight, bias, padding=self.kernel // 2)
        return out.reshape(*v.shape[:-3], *out.shape[1:])

    def config(self) -> dict[str, Any]:
        return super().config() | {"channels": self.channels, "kernel": self.kernel}
