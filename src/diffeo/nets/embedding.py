"""Embeddings: networks that turn a context (a set, a picture, a series, several of them) into a few numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import ContextShape, Shape, as_context_shape, register
from .base import Conditioner, Context, activation
from .mlp import MLP
from .pyramid import Pyramid


class _Encoder(Conditioner):
    """[x, features of the context] through an MLP to out_shape; with an empty in_shape, an embedding of the context.

    A tensor context is the data; a dict has it under `values`, and weights under `mask`: 1 where an element counts, 0
    where it is padding.
    """

    axes = 1

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any,
        *,
        width: int,
        head: Sequence[int],
        activation: str,
    ) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        name = type(self).__name__
        if width < 1:
            raise ConfigError(f"{name} needs a width of 1 or more, got {width}")
        self.masked = isinstance(self.context_shape, dict)
        shapes = self.context_shape if isinstance(self.context_shape, dict) else {}
        if self.masked and set(shapes) != {"values", "mask"}:
            raise ConfigError(
                f"{name} takes a context with keys values and mask, got {list(shapes)}"
            )
        shape = shapes["values"] if isinstance(self.context_shape, dict) else self.context_shape
        if shape is None or len(shape) != self.axes:
            raise ShapeError(f"{name} takes {self.expects} as its context, got {shape}")
        if self.masked and shapes["mask"] != shape[: self.axes - 1]:
            raise ShapeError(f"{name} needs a mask of shape {shape[:-1]}, got {shapes['mask']}")
        self.data_shape: Shape = shape
        self.width = width
        self.activation = activation
        self.head = MLP(
            self.in_shape, self.out_shape, (width,), hidden=tuple(head), activation=activation,
            zero_init=False,
        )  # fmt: skip

    expects = "a tensor"

    def encode(self, values: Tensor, mask: Tensor | None) -> Tensor:
        """[batch, width]."""
        raise ConfigError(f"{type(self).__name__} has no encode")

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        if context is None or isinstance(context, dict) != self.masked:
            given = "none" if context is None else type(context).__name__
            raise ConfigError(
                f"{type(self).__name__} takes a context {self.context_shape}, got {given}"
            )
        mask = None
        if isinstance(context, dict):
            values = context["values"]
            mask = context["mask"].to(values.dtype)
        else:
            values = context
        features = self.encode(values, mask)
        out: Tensor = self.head(x.to(features.dtype), features)
        return out

    def config(self) -> dict[str, Any]:
        return super().config() | {
            "width": self.width,
            "head": self.head.hidden,
            "activation": self.activation,
        }


def _mean(h: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over axis 1 of h [batch, n, features], of what counts."""
    if mask is None:
        return h.mean(1)
    weight = mask[..., None]
    return (weight * h).sum(1) / weight.sum(1).clamp(min=1)


@register
class DeepSet(_Encoder):
    """A set [N, features] to rho(mean_i phi(x_i), n): the order of the elements does not matter.

    context_shape: (N, features), or {"values": (N, features), "mask": (N,)} for sets of different size, padded to N; n
    is then log(1 + the sum of the mask). width, hidden: of phi. head: hidden widths of rho. Zaheer et al., Deep sets,
    2017, arXiv:1703.06114.
    """

    axes = 2
    expects = "a set (N, features)"

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 64,
        hidden: Sequence[int] = (64,),
        head: Sequence[int] = (64,),
        activation: str = "relu",
    ) -> None:
        super().__init__(
            in_shape, out_shape, context_shape, width=width, head=head, activation=activation
        )
        self.hidden: Shape = tuple(hidden)
        self.element = MLP(
            self.data_shape[1:],
            (width,),
            hidden=self.hidden,
            activation=activation,
            zero_init=False,
        )
        self.size = nn.Linear(1, width, bias=False)

    def encode(self, values: Tensor, mask: Tensor | None) -> Tensor:
        n, size = values.shape[:2]
        h = self.element(values.flatten(0, 1)).reshape(n, size, self.width)
        if mask is None:
            count = values.new_full((n, 1), math.log1p(size))
        else:
            count = mask.sum(1, keepdim=True).clamp(min=0).log1p()
        out: Tensor = _mean(h, mask) + self.size(count)
        return out

    def config(self) -> dict[str, Any]:
        return super().config() | {"hidden": self.hidden}


@register
class SeriesEmbedding(_Encoder):
    """A series [T, channels] through causal dilated convolutions, h <- h + act(conv(h)), then its mean and its end.

    context_shape: (T, channels), or {"values": (T, channels), "mask": (T,)} for series of different length, padded at
    the end. width: channels inside. layers: convolutions of width `kernel`, with dilations 1, 2, 4, ... van den Oord et
    al., WaveNet, 2016, arXiv:1609.03499.
    """

    axes = 2
    expects = "a series (T, channels)"

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 32,
        layers: int = 4,
        kernel: int = 3,
        head: Sequence[int] = (64,),
        activation: str = "relu",
    ) -> None:
        super().__init__(
            in_shape, out_shape, context_shape, width=width, head=head, activation=activation
        )
        if layers < 1 or kernel < 1:
            raise ConfigError(
                f"SeriesEmbedding needs layers and kernel of 1 or more, got {layers} and {kernel}"
            )
        self.kernel = kernel
        self.first = nn.Conv1d(self.data_shape[1], width, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, kernel, dilation=2**i) for i in range(layers)
        )
        self.nonlinearity = _activation(activation)
        self.end = nn.Linear(width, width)

    def encode(self, values: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            values = values * mask[..., None]
        h = self.first(values.mT)
        for i, layer in enumerate(self.layers):
            past = F.pad(h, ((self.kernel - 1) * 2**i, 0))
            h = h + self.nonlinearity(layer(past))
        h = h.mT
        last = h[:, -1]
        if mask is not None:
            # The last element that counts: mask[t] (1 - mask[t + 1]).
            after = F.pad(mask[:, 1:], (0, 1))
            last = ((mask * (1 - after))[..., None] * h).sum(1)
        out: Tensor = _mean(h, mask) + self.end(last)
        return out

    def config(self) -> dict[str, Any]:
        return super().config() | {"layers": len(self.layers), "kernel": self.kernel}


@register
class ImageEmbedding(_Encoder):
    """A picture [C, H, W] through 3x3 convolutions that halve it, then the mean over its pixels.

    context_shape: (C, H, W). width: feature maps of the last convolution; those before have half as many each. layers:
    convolutions of stride 2, each followed by an activation.
    """

    axes = 3
    expects = "a picture (channels, height, width)"

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        context_shape: Any = None,
        *,
        width: int = 64,
        layers: int = 3,
        head: Sequence[int] = (64,),
        activation: str = "relu",
    ) -> None:
        if isinstance(context_shape, Mapping):
            raise ShapeError(f"ImageEmbedding takes {self.expects}, got a dict")
        super().__init__(
            in_shape, out_shape, context_shape, width=width, head=head, activation=activation
        )
        if layers < 1:
            raise ConfigError(f"ImageEmbedding needs a layer or more, got {layers}")
        widths = [max(1, width // 2 ** (layers - 1 - i)) for i in range(layers)]
        modules: list[nn.Module] = []
        for before, after in zip([self.data_shape[0], *widths], widths, strict=False):
            modules += [nn.Conv2d(before, after, 3, stride=2, padding=1), _activation(activation)]
        self.convolutions = nn.Sequential(*modules)

    def encode(self, values: Tensor, mask: Tensor | None) -> Tensor:
        h: Tensor = self.convolutions(values)
        return h.mean((2, 3))

    def config(self) -> dict[str, Any]:
        return super().config() | {"layers": len(self.convolutions) // 2}


@register
class Join(Conditioner):
    """Embeddings of several contexts side by side, as one vector: [e_1(c_1), e_2(c_2), ...].

    embeddings: name of a context to a Conditioner of it alone, or of the dict of contexts that it declares. A context
    that goes in as it is has an `MLP` without hidden layers, or `Join` of its own.
    """

    def __init__(self, embeddings: Mapping[str, Conditioner]) -> None:
        shapes: dict[str, Shape] = {}
        for name, net in embeddings.items():
            if (
                not isinstance(net, Conditioner)
                or net.context_shape is None
                or net.in_shape != (0,)
            ):
                raise ConfigError(
                    f"Join takes Conditioners with in_shape (0,) and a context_shape; {name!r} is {net!r}"
                )
            found = net.context_shape
            shapes |= found if isinstance(found, dict) else {name: found}
        if not shapes:
            raise ConfigError("Join needs an embedding or more")
        size = sum(math.prod(net.out_shape) for net in embeddings.values())
        super().__init__((0,), (size,), shapes)
        self.embeddings = nn.ModuleDict(embeddings)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        assert isinstance(context, dict)
        out = []
        for name, net in self.embeddings.items():
            shape = net.context_shape
            own = {k: context[k] for k in shape} if isinstance(shape, dict) else context[name]
            out.append(net(x, own).flatten(1))
        return torch.cat(out, dim=1)

    def config(self) -> dict[str, Any]:
        return {"embeddings": dict(self.embeddings)}


class FromContext(nn.Module):
    """Gives a Conditioner of a context alone the call of an embedding, `module(context)`."""

    def __init__(self, net: Conditioner) -> None:
        super().__init__()
        self.net = net
        self.context_shape = net.context_shape
        self.out_shape = net.out_shape
        self.couples_batch = net.couples_batch

    @property
    def described_as(self) -> nn.Module:
        """What a configuration holds in place of this wrapper."""
        return self.net

    def forward(self, context: Context) -> Tensor:
        some = next(iter(context.values())) if isinstance(context, dict) else context
        assert some is not None
        out: Tensor = self.net(some.new_empty((some.shape[0], 0)), context)
        return out.reshape(some.shape[0], *self.out_shape)


def resolve_context(
    given: Any, embedding: nn.Module | None, inner: ContextShape
) -> tuple[ContextShape, nn.Module | None]:
    """The context shape of a flow whose parts take `inner`, and its embedding as a module of the context alone.

    Raises ConfigError for a context that no part reads, ShapeError where the shapes do not meet.
    """
    outer = as_context_shape(given)
    if outer is None and isinstance(embedding, Conditioner | FromContext | Pyramid):
        outer = embedding.context_shape
    if outer is None and embedding is not None:
        raise ConfigError("a Flow with an embedding needs the context_shape that it embeds")
    if outer is None:
        return inner, None
    if inner is None:
        raise ConfigError(
            f"no part of this flow reads a context, so it cannot depend on one of shape {outer}: give its parts a "
            "context_shape"
        )
    if embedding is None and inner != outer:
        raise ShapeError(f"the parts take a context {inner}, the flow {outer}")
    if not isinstance(embedding, Conditioner | Pyramid):
        return outer, embedding
    if (
        isinstance(embedding, Conditioner)
        and embedding.context_shape is not None
        and embedding.in_shape != (0,)
    ):
        raise ShapeError(
            f"an embedding reads the context only: give {type(embedding).__name__} in_shape (0,), not "
            f"{embedding.in_shape}"
        )
    reads: ContextShape = embedding.context_shape or getattr(embedding, "in_shape", None)
    if (reads, embedding.out_shape) != (outer, inner):
        raise ShapeError(
            f"the embedding {type(embedding).__name__} goes from {reads} to {embedding.out_shape}, but the flow's "
            f"context is {outer} and its parts take {inner}"
        )
    if isinstance(embedding, Pyramid) or embedding.context_shape is None:
        return outer, embedding
    return outer, FromContext(embedding)


_activation = activation
