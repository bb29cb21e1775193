"""Parts: modules that can be described by a configuration, and rebuilt from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .errors import ConfigError
from .tracing import uncompiled

Shape = tuple[int, ...]
ContextShape = Shape | dict[str, Shape] | None

_REGISTRY: dict[str, type[nn.Module]] = {}
_Module = TypeVar("_Module", bound=type[nn.Module])


def register(cls: _Module) -> _Module:
    """Class decorator: makes a module with `config()` part of saved models, under its class name.

    Raises ConfigError if another class has the name.
    """
    other = _REGISTRY.get(cls.__name__)
    if other is not None and (other.__module__, other.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise ConfigError(
            f"cannot register {cls.__module__}.{cls.__name__}: {other.__module__} has a part of that name"
        )
    _REGISTRY[cls.__name__] = cls
    return cls


def registered(base: type[nn.Module] = nn.Module) -> tuple[type[nn.Module], ...]:
    """All registered classes derived from `base`, by name."""
    return tuple(c for _, c in sorted(_REGISTRY.items()) if issubclass(c, base))


class Part(nn.Module):
    """A module that carries its own configuration: the keyword arguments that build it again."""

    def config(self) -> dict[str, Any]:
        """Keyword arguments of the constructor: numbers, strings, sequences, dicts and other parts."""
        raise ConfigError(f"{type(self).__name__} has no config(), so it cannot be saved")


REFRESH_TOLERANCE = 1e-5
"""What `refresh` stops at, where numbers are wanted."""

TRAINING_TOLERANCE = 1e-3
"""What it stops at between two steps of training, and the most that refreshed modules allow for."""


class Refreshed(nn.Module):
    """A module whose state follows its weights when told, such as the vectors of a greatest singular value."""

    def refresh(self, tolerance: float = REFRESH_TOLERANCE) -> None:
        """Bring the state up to the present weights; where it is so already, change nothing."""

    def alike(self) -> object:
        """What is equal for modules that `refresh_together` can take."""
        return type(self)

    @staticmethod
    def refresh_together(parts: Sequence[Any], tolerance: float) -> None:
        """`refresh` of modules that are alike."""
        for part in parts:
            part.refresh(tolerance)


@uncompiled
@torch.no_grad()
def refresh(module: nn.Module, tolerance: float = REFRESH_TOLERANCE) -> None:
    """Bring all state that follows weights up to the present ones: after a step, on load, before an inversion.

    tolerance: of a step of an iteration, at most TRAINING_TOLERANCE. Raises ConfigError for another.
    """
    if not 0 < tolerance <= TRAINING_TOLERANCE:
        raise ConfigError(
            f"tolerance must be positive and at most {TRAINING_TOLERANCE}, got {tolerance}"
        )
    groups: dict[object, list[Refreshed]] = {}
    for part in module.modules():
        if isinstance(part, Refreshed):
            groups.setdefault(part.alike(), []).append(part)
    for parts in groups.values():
        parts[0].refresh_together(parts, tolerance)


def describe(value: Any, path: str = "flow") -> Any:
    """Turn a part, or a value in its configuration, into JSON-ready data.

    Raises ConfigError that names the path of the first part that is not registered.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, nn.ModuleList):
        value = list(value)
    if isinstance(value, nn.Module):
        value = getattr(value, "described_as", value)
        name = type(value).__name__
        if _REGISTRY.get(name) is not type(value):
            raise ConfigError(
                f"{path} is a {name}, which is not registered: decorate its class with @diffeo.register and give it "
                "config()"
            )
        config: dict[str, Any] = value.config()  # type: ignore[operator]
        return {"part": name} | {k: describe(v, f"{path}.{k}") for k, v in config.items()}
    if isinstance(value, Mapping):
        return {str(k): describe(v, f"{path}.{k}") for k, v in value.items()}
    if isinstance(value, Sequence):
        return [describe(v, f"{path}[{i}]") for i, v in enumerate(value)]
    raise ConfigError(f"{path} is a {type(value).__name__}, which a configuration cannot hold")


def rebuild(tree: Any) -> Any:
    """The inverse of `describe`. Raises ConfigError for a part that is not registered or cannot be built."""
    if isinstance(tree, list):
        return [rebuild(v) for v in tree]
    if not isinstance(tree, dict):
        return tree
    values = {k: rebuild(v) for k, v in tree.items() if k != "part"}
    if "part" not in tree:
        return values
    cls = _REGISTRY.get(tree["part"])
    if cls is None:
        raise ConfigError(
            f"the saved model uses a part named {tree['part']!r}, which is not registered here: "
            "import the module that defines it first"
        )
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"the saved {tree['part']} cannot be built: {error}") from error


def as_shape(shape: Sequence[int] | int, name: str = "event_shape") -> Shape:
    """A tuple of positive ints. Raises ConfigError otherwise."""
    items = (shape,) if isinstance(shape, int) else tuple(shape)
    if not all(isinstance(n, int) and n >= 0 for n in items):
        raise ConfigError(f"{name} must be a tuple of sizes, got {shape!r}")
    return items


def as_context_shape(shape: Any) -> ContextShape:
    """None, a tuple of sizes, or a dict of them."""
    if shape is None:
        return None
    if isinstance(shape, Mapping):
        return {str(k): as_shape(v, f"context_shape[{k!r}]") for k, v in shape.items()}
    return as_shape(shape, "context_shape")


def sum_event(elementwise: Tensor) -> Tensor:
    """[batch, *event] to [batch]."""
    return elementwise.flatten(1).sum(-1) if elementwise.ndim > 1 else elementwise
