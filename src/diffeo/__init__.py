"""diffeo: flow-based generative models for PyTorch.

An exact likelihood, an exact latent and a sampler from one invertible map.

>>> import diffeo
>>> flow = diffeo.zoo.build("realnvp", (2,), size="tiny")
>>> flow.sample((3,)).shape
torch.Size([3, 2])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import distributions, errors, families, nets, transforms, zoo
from .errors import DiffeoError
from .flow import Flow
from .parts import register
from .saving import load

if TYPE_CHECKING:
    from . import data, testing
    from .auditing import audit
    from .training import fit

__version__ = "0.1.0"

# What needs more than torch is loaded when it is first used.
_LAZY = ("applications", "data", "integrations", "report", "testing", "training")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return import_module(f".{name}", __name__)
    if name == "fit":
        return import_module(".training", __name__).fit
    if name == "audit":
        return import_module(".auditing", __name__).audit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DiffeoError",
    "Flow",
    "__version__",
    "audit",
    "data",
    "distributions",
    "errors",
    "families",
    "fit",
    "load",
    "nets",
    "register",
    "testing",
    "transforms",
    "zoo",
]
