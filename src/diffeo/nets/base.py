"""Conditioner: any network that turns the visible part of an event, and a context, into parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..parts import ContextShape, Part, Shape, as_context_shape, as_shape, register

NetFactory = Callable[[Shape, Shape, ContextShape], nn.Module]
Context = Tensor | dict[str, Tensor] | None

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}


def activation(name: str) -> nn.Module:
    """A new activation module. Raises ConfigError for an unknown name."""
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


class Conditioner(Part):
    """A network `net(x, context)` from [batch, *in_shape] to [batch, *out_shape].

    couples_batch: in training mode the output for one example depends on the others.
    """

    couples_batch = False

    def __init__(
        self, in_shape: Sequence[int], out_shape: Sequence[int], context_shape: Any = None
    ) -> None:
        super().__init__()
        self.in_shape: Shape = as_shape(in_shape, "in_shape")
        self.out_shape: Shape = as_shape(out_shape, "out_shape")
        self.context_shape: ContextShape = as_context_shape(context_shape)

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        raise ConfigError(f"{type(self).__name__} has no forward")

    def config(self) -> dict[str, Any]:
        return {
            "in_shape": self.in_shape,
            "out_shape": self.out_shape,
            "context_shape": self.context_shape,
        }


@register
class Constant(Conditioner):
    """Learned parameters that do not depend on the input, zero at first."""

    def __init__(
        self, in_shape: Sequence[int], out_shape: Sequence[int], context_shape: Any = None
    ) -> None:
        super().__init__(in_shape, out_shape)
        self.value = nn.Parameter(torch.zeros(self.out_shape))

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        return self.value.expand(x.shape[0], *self.out_shape)


class _Plain(nn.Module):
    """Gives a plain module, which takes one tensor, the call of a conditioner."""

    def __init__(self, module: nn.Module, out_shape: Shape, context_shape: ContextShape) -> None:
        super().__init__()
        self.module = module
        self.out_shape = out_shape
        self.context_shape = context_shape
        norms = nn.modules.batchnorm._BatchNorm
        self.couples_batch = any(isinstance(m, norms) for m in module.modules())

    @property
    def described_as(self) -> nn.Module:
        """What a configuration holds in place of this wrapper."""
        return self.module

    def forward(self, x: Tensor, context: Context = None) -> Tensor:
        out: Tensor = self.module(x) if self.context_shape is None else self.module(x, context)
        return out


def make_net(
    net: nn.Module | NetFactory,
    in_shape: Shape,
    out_shape: Shape,
    context_shape: ContextShape,
    *,
    owner: str,
) -> nn.Module:
    """The network of a layer, given or made, checked to turn in_shape into out_shape.

    A plain module (`torch.nn.Sequential`) is tried once on the meta device. Raises ShapeError naming the owner.
    """
    module = net if isinstance(net, nn.Module) else net(in_shape, out_shape, context_shape)
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{owner} needs a network, or a callable that makes one, got {module!r}")
    if isinstance(module, Conditioner):
        if (module.in_shape, math.prod(module.out_shape)) != (in_shape, math.prod(out_shape)):
            raise ShapeError(
                f"{owner} needs a network from {in_shape} to {out_shape}, but {type(module).__name__} goes from "
                f"{module.in_shape} to {module.out_shape}"
            )
        if module.context_shape is not None and module.context_shape != context_shape:
            raise ShapeError(
                f"{owner} has context {context_shape}, but {type(module).__name__} takes {module.context_shape}"
            )
        return module
    if isinstance(module, _Plain):
        return module
    _probe(module, in_shape, out_shape, context_shape, owner)
    return _Plain(module, out_shape, context_shape)


def _probe(
    module: nn.Module, in_shape: Shape, out_shape: Shape, context_shape: ContextShape, owner: str
) -> None:
    trial = copy.deepcopy(module).to("meta").eval()
    inputs: list[Any] = [torch.empty((2, *in_shape), device="meta")]
    if isinstance(context_shape, dict):
        inputs.append({k: torch.empty((2, *s), device="meta") for k, s in context_shape.items()})
    elif context_shape is not None:
        inputs.append(torch.empty((2, *context_shape), device="meta"))
    dtype = next((p.dtype for p in trial.parameters()), None)
    if dtype is not None:
        trial = trial.to(torch.get_default_dtype())
    try:
        out = trial(*inputs)
    except Exception as error:
        raise ShapeError(f"{owner} cannot call its network on {in_shape}: {error}") from error
    if not isinstance(out, Tensor) or out.shape[0] != 2 or out[0].numel() != math.prod(out_shape):
        given = tuple(out.shape[1:]) if isinstance(out, Tensor) else type(out).__name__
        raise ShapeError(
            f"{owner} needs a network from {in_shape} to {out_shape}, but it gives {given}"
        )
