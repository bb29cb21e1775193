"""What every layer of a model sees: a forward pass with hooks, through all nesting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..families import Affine, Family, Inverted
from ..testing.case import rows as take
from ..transforms import Transform

CLAMPED = 0.98


@dataclass
class Call:
    """One call of a transform in a forward pass: its input x, further arguments, and what it gave.

    log_scale: the largest |log-derivative| of its families, elementwise. clamped, tails: shares of the entries that its
    families have at the bound of their log-scale, and beyond the interval that they are made for; None without.
    """

    path: str
    transform: Transform
    x: Tensor
    rest: tuple[Any, ...]
    z: Tensor = field(init=False)
    ladj: Tensor = field(init=False)
    children: list[Call] = field(default_factory=list)
    log_scale: float | None = None
    clamped: float | None = None
    tails: float | None = None

    @property
    def name(self) -> str:
        """The type, as it is known in formulas."""
        inner = getattr(self.transform, "transform", None) or getattr(
            self.transform, "family", None
        )
        own = type(self.transform).__name__
        return own if inner is None else f"{own} {_unwrapped(inner)}"

    @property
    def moves_only(self) -> bool:
        """Whether it does no more than move values between its children: outputs and what the children took are
        together the same numbers as inputs and what the children gave."""
        if not self.children:
            return False
        out = torch.cat([t.flatten(1) for t in (self.z, *(c.x for c in self.children))], 1)
        into = torch.cat([t.flatten(1) for t in (self.x, *(c.z for c in self.children))], 1)
        return out.shape == into.shape and torch.equal(
            out.nan_to_num(nan=math.inf).sort(1).values,
            into.nan_to_num(nan=math.inf).sort(1).values,
        )

    def forward(self, x: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The transform on x, whose rows belong to the rows `index` of this call."""
        rest = self.rest if index is None else take(self.rest, index)
        z, ladj = self.transform(x, *rest)
        return z, ladj

    def map(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """The output alone; of an estimated ladj, which may have no second derivatives, nothing is computed."""
        rest = self.rest if index is None else take(self.rest, index)
        if self.transform.properties.kind == "estimate" and self.transform.stochastic:
            rest = (rest[0] if rest else None, self.transform.draw(len(x), center=True, like=x))
        z: Tensor = self.transform(x, *rest)[0]
        return z

    def inverse(self, z: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The inverse, in the same way."""
        rest = self.rest if index is None else take(self.rest, index)
        return self.transform.inverse(z, *rest[:1])

    def leaves(self) -> Iterator[Call]:
        """The layers that do the work, in their order; a container that only moves values is none."""
        for child in self.children:
            yield from child.leaves()
        if not self.moves_only:
            yield self

    def containers(self) -> Iterator[Call]:
        """What only moves values, the innermost first."""
        for child in self.children:
            yield from child.containers()
        if self.moves_only:
            yield self


def record(
    root: Transform, names: dict[int, str], x: Tensor, context: Any = None, noise: Any = None
) -> Call:
    """The tree of calls of one forward pass, without gradients. names: id of a module to its path."""
    top: list[Call] = []
    stack: list[Call] = []
    inside: list[Family] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert isinstance(module, Transform)
        given = (*args, *kwargs.values())
        call = Call(names.get(id(module), "transform"), module, given[0], given[1:])
        (stack[-1].children if stack else top).append(call)
        stack.append(call)

    def leave(module: nn.Module, args: tuple[Any, ...], out: tuple[Tensor, Tensor]) -> None:
        call = stack.pop()
        call.z, call.ladj = out

    def begin(module: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(module, Family)
        inside.append(module)

    def end(module: nn.Module, args: tuple[Any, ...], out: tuple[Tensor, Tensor]) -> None:
        inside.pop()
        if stack and not inside:  # of families within families, the outermost
            assert isinstance(module, Family)
            _note_family(stack[-1], module, args, out[1])

    handles = []
    for module in root.modules():
        if isinstance(module, Transform):
            handles += [
                module.register_forward_pre_hook(enter, with_kwargs=True),
                module.register_forward_hook(leave),
            ]
        elif isinstance(module, Family):
            handles += [
                module.register_forward_pre_hook(begin),
                module.register_forward_hook(end),
            ]
    try:
        with torch.no_grad():
            root(x, context, noise) if root.stochastic else root(x, context)
    finally:
        for handle in handles:
            handle.remove()
    return top[0]


def _note_family(call: Call, family: Family, args: tuple[Any, ...], ladj: Tensor) -> None:
    partition = getattr(call.transform, "partition", None)
    masked = None if partition is None else partition.mask()

    def keep(t: Tensor) -> Tensor:
        return t if masked is None else t[:, ~masked]

    size = keep(ladj).abs()
    if not size.numel():
        return
    call.log_scale = max(call.log_scale or 0.0, largest(size))
    bound = log_scale_bound(family)
    if bound is not None:
        call.clamped = (size > CLAMPED * bound).double().mean().item() if bound > 1 else 0.0
    tails = getattr(family, "tails", None)
    if callable(tails):
        call.tails = keep(tails(*args)).double().mean().item()


def log_scale_bound(family: Family) -> float | None:
    """The largest |log-derivative| that an affine family can give, None if there is none."""
    inner = _innermost(family)
    if isinstance(inner, Affine) and inner.scale == "clamp":
        return inner.bound
    if isinstance(inner, Affine) and inner.scale == "tanh":
        return abs(inner.magnitude.item())
    return None


def largest(values: Tensor) -> float:
    """max |v|, 0 of nothing; infinite where there is a NaN."""
    if not values.numel():
        return 0.0
    return values.abs().nan_to_num(nan=math.inf, posinf=math.inf).max().item()


def _innermost(module: nn.Module) -> nn.Module:
    while isinstance(module, Inverted):
        module = module.family
    return module


def _unwrapped(module: nn.Module) -> str:
    return type(_innermost(module)).__name__
