"""Shapes and small networks that the entries of the conformance table share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from diffeo import zoo
from diffeo.flow import Flow
from diffeo.nets import MLP, Bottleneck, ConvResNet, ResidualMLP

IMAGE = (3, 4, 6)
SMALL = (3, 2, 4)
CONTEXT = (2,)

mlp = partial(MLP, hidden=(8,))
conv = partial(ConvResNet, width=4, blocks=1)
bottleneck = partial(Bottleneck, width=4)
residual = partial(ResidualMLP, width=8, blocks=1)


def build(name: str, *shape: Any, **hyper: Any) -> Callable[[], Flow]:
    """A model of the zoo at its tiny size."""
    return lambda: zoo.build(name, *shape, size="tiny", **hyper)
