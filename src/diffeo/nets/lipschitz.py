"""Networks with a known Lipschitz constant, for x + g(x): dense, convolutional, and densely connected.

`net.lipschitz` is the constant that the layers are kept at, whose norms follow the weights (see `_follow`);
`net.lipschitz_bound` computes one for the present weights from exact norms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import REFRESH_TOLERANCE, TRAINING_TOLERANCE, Shape, refresh, register
from ..tracing import eager
from .base import Conditioner, Context
from .lipschitz_layers import (
    ACTIVATIONS,
    Concatenated,
    LipschitzLayer,
    LipSwish,
    Prepared,
    flattened,
    growth,
    linearized,
    product,
    pull,
    push,
    rebuilt,
)
from .lipschitz_operators import Exponents, LipschitzConv2d, LipschitzLinear, Operator
from .mlp import context_size, flat_context

__all__ = ["LipschitzConvNet", "LipschitzDenseNet", "LipschitzMLP", "LipschitzNet", "refresh"]

Norms = float | Literal["learned"] | Sequence[float]


class LipschitzNet(Conditioner):
    """g(x, context) with |g(a) - g(b)| <= lipschitz |a - b| for every context: a sequence of layers.

    A context moves what the first linear map gives, by a learned linear function of it. A subclass gives the layers,
    the channels that this map gives, and the p of the norm, if it is not 2.
    """

    flat = False
    constants: nn.Module

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any,
        layers: Sequence[LipschitzLayer],
        channels: int,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        self.layers = nn.ModuleList(layers)
        size = context_size(self.context_shape)
        self.join = nn.Linear(size, channels) if size else None
        self.norm: float | None = 2.0
        self.fixed: Any = None
        self.operators = [m for m in self.modules() if isinstance(m, Operator)]
        # LipSwish between two linear maps, silu(b x) / (1.1 b), leaves its scales to them.
        self.folded = [
            i
            for i, (a, b, c) in enumerate(
                zip(layers, layers[1:], layers[2:], strict=False), start=1
            )
            if isinstance(a, Operator) and type(b) is LipSwish and isinstance(c, Operator)
        ]

    def _measure(self, given: Norms, learned: Exponents | None, spaces: list[Any]) -> None:
        """The norms of the spaces between the layers."""
        self.norm_given = given
        # Operators know their spaces by reference, so that the exponents are parameters of the network alone.
        self.exponents = learned
        first = spaces[0]
        self.norm = first if isinstance(first, float) else None

    @property
    def lipschitz(self) -> float:
        """The constant that the layers are kept at."""
        return product(layer.lipschitz for layer in self.layers)

    @property
    def lipschitz_bound(self) -> float:
        """An upper bound at the present weights, from exact norms: those of dense SVD or of all frequencies."""
        return product(layer.certified() for layer in self.layers)  # type: ignore[operator]

    def prepare(self, context: Context = None) -> list[Prepared]:
        """What the network computes of its weights and of the context: once, for many calls with the same ones."""
        if self.fixed is not None:
            return cast(list[Prepared], rebuilt(self.fixed, list(self.constants.buffers())))
        self._follow()
        shift = None
        if self.join is not None:
            flat = torch.cat(flat_context(context, self.context_shape), dim=1)
            # An embedding under autocast gives fewer digits than the map beside it has.
            with torch.autocast(flat.device.type, enabled=False):
                shift = self.join(flat.to(self.join.weight.dtype))
        out: list[Prepared] = []
        slope: Tensor | None = None
        for i, layer in enumerate(self.layers):
            if i in self.folded:
                out.append(None)
            elif isinstance(layer, Operator):
                before = slope
                slope = self.layers[i + 1].prepare() if i + 1 in self.folded else None  # type: ignore[operator]
                out.append(layer.prepare(shift, before, slope))
            else:
                out.append(layer.prepare(shift))  # type: ignore[operator]
            if not isinstance(layer, tuple(ACTIVATIONS.values())):
                shift = None
        return out

    def _follow(self) -> None:
        """Norms of weights that changed since they were found, unless this is compiled, exported or mapped."""
        if not eager():
            return
        tolerance = TRAINING_TOLERANCE if self.training else REFRESH_TOLERANCE
        if any(operator.stale(tolerance) for operator in self.operators):
            refresh(self, tolerance)

    @torch.no_grad()
    def frozen(self) -> LipschitzNet:
        """With what it computes of its weights as constants, unless it takes a context."""
        if self.join is None:
            leaves: list[Tensor] = []
            self.fixed = flattened(self.prepare(), leaves)
            self.constants = nn.Module()
            for i, leaf in enumerate(leaves):
                self.constants.register_buffer(str(i), leaf)
        return self

    def forward(
        self, x: Tensor, context: Context = None, prepared: list[Prepared] | None = None
    ) -> Tensor:
        h = x.flatten(1) if self.flat else x
        own = self.prepare(context) if prepared is None else prepared
        for layer, p in zip(self.layers, own, strict=True):
            h = layer(h, p)
        return h.reshape(len(x), *self.out_shape)

    def at(self, context: Context = None) -> Callable[[Tensor], Tensor]:
        """g(., context), for many points."""
        own = self.prepare(context)
        calls: list[Callable[..., Tensor]] = [layer.forward for layer in self.layers]

        def g(x: Tensor) -> Tensor:
            h = x.flatten(1) if self.flat else x
            for call, p in zip(calls, own, strict=True):
                h = call(h, p)
            return h.reshape(len(x), *self.out_shape)

        return g

    def linearize(
        self, x: Tensor, prepared: list[Prepared]
    ) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """g(x), and its Jacobian J at x as two functions: t -> J t and w -> J^T w.

        t: [batch, vectors, *in_shape]. w: [n, vectors, *out_shape], of the first n examples.
        """
        h, slopes = linearized(self.layers, x.flatten(1) if self.flat else x, prepared)

        def pushed(t: Tensor) -> Tensor:
            t = t.flatten(2) if self.flat else t
            return push(self.layers, t, slopes, prepared).reshape(*t.shape[:2], *self.out_shape)

        def pulled(w: Tensor) -> Tensor:
            w = w.flatten(2) if self.flat else w
            return pull(self.layers, w, slopes, prepared).reshape(*w.shape[:2], *self.in_shape)

        return h.reshape(len(x), *self.out_shape), pushed, pulled


@register
class LipschitzMLP(LipschitzNet):
    """[act,] W, act, W, ..., act, W on the entries of an event, every W of norm at most `coeff`.

    hidden: widths. activation: elu, sin, lipswish or clipswish. preactivation: whether it begins with one. norm: p of
    the norms of all spaces between the layers, with ||W|| = max ||W x||_p / ||x||_p; `learned`, where each has its own
    p in (1, 5), the first and last the same; or one number for each space, of which there are `len(hidden) + 2`.
    """

    flat = True

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "lipswish",
        coeff: float = 0.9,
        preactivation: bool = False,
        norm: Norms = 2.0,
    ) -> None:
        more, learned, spaces = _spaces(norm, len(hidden) + 2, activation)
        layers: list[LipschitzLayer] = []
        width = math.prod(in_shape)
        for i, n in enumerate((*hidden, math.prod(out_shape))):
            if i or preactivation:
                layers.append(ACTIVATIONS[activation]())
                width *= more
            layers.append(LipschitzLinear(width, n, coeff, *spaces[i : i + 2]))
            width = n
        super().__init__(in_shape, out_shape, context_shape, layers, (*hidden, width)[0])
        self.hidden: Shape = tuple(hidden)
        self.activation = activation
        self.coeff = coeff
        self.preactivation = preactivation
        self._measure(norm, learned, spaces)

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "hidden": self.hidden,
            "activation": self.activation,
            "coeff": self.coeff,
            "preactivation": self.preactivation,
            "norm": self.norm_given,
        }


@register
class LipschitzConvNet(LipschitzNet):
    """[act,] conv, act, conv, ..., conv on images [C, H, W], the norm of every convolution at most `coeff`.

    width: inner feature maps. kernels: one for each convolution. activation, preactivation, norm: as in LipschitzMLP,
    of all entries of an image.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 32,
        kernels: Sequence[int] = (3, 1, 3),
        activation: str = "lipswish",
        coeff: float = 0.9,
        preactivation: bool = False,
        norm: Norms = 2.0,
    ) -> None:
        channels, *size = _images(in_shape, out_shape, type(self).__name__)
        if not kernels:
            raise ConfigError(f"{type(self).__name__} needs one kernel or more")
        more, learned, spaces = _spaces(norm, len(kernels) + 1, activation)
        widths = (width,) * (len(kernels) - 1) + (out_shape[0],)
        layers: list[LipschitzLayer] = []
        for i, (n, kernel) in enumerate(zip(widths, kernels, strict=True)):
            if i or preactivation:
                layers.append(ACTIVATIONS[activation]())
                channels *= more
            layers.append(LipschitzConv2d((channels, *size), n, kernel, coeff, *spaces[i : i + 2]))
            channels = n
        super().__init__(in_shape, out_shape, context_shape, layers, widths[0])
        self.width = width
        self.kernels: Shape = tuple(kernels)
        self.activation = activation
        self.coeff = coeff
        self.preactivation = preactivation
        self._measure(norm, learned, spaces)

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "kernels": self.kernels,
            "activation": self.activation,
            "coeff": self.coeff,
            "preactivation": self.preactivation,
            "norm": self.norm_given,
        }


@register
class LipschitzDenseNet(LipschitzNet):
    """[act,] h <- [a h, b act(W h)], `depth` times, then a last W: a dense block, on vectors or on images.

    growth: channels that each layer adds, an even number with clipswish. learn: whether the weights a and b of a
    concatenation are trained, with a^2 + b^2 = concat_coeff^2; equal otherwise. kernel: of the inner convolutions of
    images; the last one is 1x1. Perugachi-Diaz et al., Invertible DenseNets with concatenated LipSwish, 2021,
    arXiv:2102.02694.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        depth: int = 3,
        growth: int = 16,
        activation: str = "clipswish",
        coeff: float = 0.9,
        concat_coeff: float = 0.98,
        learn: bool = True,
        kernel: int = 3,
        preactivation: bool = False,
    ) -> None:
        more = _growth(activation)
        if depth < 1 or growth < 1 or growth % more:
            raise ConfigError(
                f"a dense block needs depth >= 1 and a growth that {activation} divides, got {depth} and {growth}"
            )
        self.flat = len(in_shape) != 3
        if not self.flat:
            channels, *size = _images(in_shape, out_shape, type(self).__name__)
        else:
            channels, size = math.prod(in_shape), []

        def operator(channels: int, out: int, kernel: int) -> LipschitzLayer:
            if not size:
                return LipschitzLinear(channels, out, coeff)
            return LipschitzConv2d((channels, *size), out, kernel, coeff)

        layers: list[LipschitzLayer] = []
        if preactivation:
            layers.append(ACTIVATIONS[activation]())
            channels *= more
        for _ in range(depth):
            inner = [operator(channels, growth // more, kernel), ACTIVATIONS[activation]()]
            layers.append(Concatenated(inner, concat_coeff, learn=learn))
            channels += growth
        out = out_shape[0] if size else math.prod(out_shape)
        layers.append(operator(channels, out, 1))
        super().__init__(in_shape, out_shape, context_shape, layers, growth // more)
        self.settings = {
            "depth": depth,
            "growth": growth,
            "activation": activation,
            "coeff": coeff,
            "concat_coeff": concat_coeff,
            "learn": learn,
            "kernel": kernel,
            "preactivation": preactivation,
        }

    def config(self) -> dict[str, Any]:
        return super().config() | self.settings


_growth = growth


def _images(in_shape: Sequence[int], out_shape: Sequence[int], owner: str) -> Shape:
    if len(in_shape) != 3 or len(out_shape) != 3 or tuple(in_shape[1:]) != tuple(out_shape[1:]):
        raise ShapeError(
            f"{owner} goes from images [C, H, W] to images of the same size, not from {tuple(in_shape)} to "
            f"{tuple(out_shape)}"
        )
    return tuple(in_shape)


def _spaces(norm: Norms, count: int, activation: str) -> tuple[int, Exponents | None, list[Any]]:
    """By how much an activation multiplies the width, and p of every space: a number, or its place among learned."""
    more = growth(activation)
    if isinstance(norm, str):
        if norm != "learned":
            raise ConfigError(f"norm must be numbers or 'learned', got {norm!r}")
        if more > 1:
            raise ConfigError(f"{activation} has a bound in the 2-norm only: norm must be 2")
        learned = Exponents(count - 1)
        return more, learned, [(learned, i % (count - 1)) for i in range(count)]
    given = [float(norm)] * count if isinstance(norm, int | float) else [float(p) for p in norm]
    if more > 1 and any(p != 2 for p in given):
        raise ConfigError(f"{activation} has a bound in the 2-norm only: norm must be 2")
    if len(given) != count or given[0] != given[-1]:
        raise ConfigError(
            f"norm needs {count} numbers for these layers, the first and the last the same, got {given}"
        )
    return more, None, list(given)
