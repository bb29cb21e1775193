"""Family: a scalar monotone map with parameters, its inverse, and its log-derivative."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import ConfigError, DirectionError
from ..parts import Part, register
from ..properties import Properties


class Family(Part):
    """y = f(x; params), strictly monotone in x, elementwise; params is [*x.shape, num_params].

    Both directions return the value and the elementwise log-derivative of the direction computed.
    """

    num_params: int = 0
    # constant_ladj: the log-derivative depends on the params only, not on x.
    properties: Properties = Properties()

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """y and log dy/dx."""
        raise DirectionError(f"{type(self).__name__} has no forward direction")

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and log dx/dy."""
        raise DirectionError(f"{type(self).__name__} has no inverse direction")

    def config(self) -> dict[str, Any]:
        return {}


@register
class Inverted(Family):
    """y = f^-1(x; params): a family run the other way, for example z = (x - mu) / sigma from an affine one."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        if not isinstance(family, Family):
            raise ConfigError(f"Inverted takes a Family, got {family!r}")
        self.family = family
        self.num_params = family.num_params
        self.properties = family.properties.inverted()

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self.family.inverse(x, params)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x, ladj = self.family(y, params)
        return x, ladj

    def config(self) -> dict[str, Any]:
        return {"family": self.family}
