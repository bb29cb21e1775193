"""What a part promises: declared once, propagated through chains, shown beside every number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["exact", "estimate", "bound"]
Measure = Literal["lebesgue", "counting", "mixed", "manifold"]
Direction = Literal["analytic", "sequential", "iterative", "none"]

_KINDS: tuple[Kind, ...] = ("exact", "estimate", "bound")
_DIRECTIONS: tuple[Direction, ...] = ("analytic", "sequential", "iterative", "none")


@dataclass(frozen=True)
class Domain:
    """A set of scalars [low, high]: the whole line, a half line, an interval, a circle, or the integers in it."""

    low: float = -math.inf
    high: float = math.inf
    periodic: bool = False
    integer: bool = False

    def within(self, other: Domain) -> bool:
        """Whether every value of this domain is one of `other`."""
        return (
            self.low >= other.low
            and self.high <= other.high
            and (self.integer or not other.integer)
            and (self.periodic or not other.periodic)
        )

    def __str__(self) -> str:
        if self.integer:
            return f"the integers {self.low:g} to {self.high:g}"
        if self == REAL:
            return "the real line"
        return f"{'the circle ' if self.periodic else ''}[{self.low:g}, {self.high:g}]"


REAL = Domain()
POSITIVE = Domain(low=0.0)
UNIT = Domain(0.0, 1.0)


@dataclass(frozen=True)
class Properties:
    """Declared promises of a transform.

    kind: `exact`, `estimate` (stochastic) or `bound`; with it the bias (`none`, or the stated truncation or tolerance)
    and the measure of the data side. domain and codomain are None for a map that keeps whatever domain it is given
    (a permutation). lipschitz and inverse_lipschitz are upper bounds where known. couples_batch: in training mode the
    output for one example depends on the others. overestimates: an estimate whose expectation can be above the truth,
    so that together with a bound it makes an estimate.
    """

    kind: Kind = "exact"
    bias: str = "none"
    measure: Measure = "lebesgue"
    domain: Domain | None = REAL
    codomain: Domain | None = REAL
    constant_ladj: bool = False
    volume_preserving: bool = False
    lipschitz: float | None = None
    inverse_lipschitz: float | None = None
    forward: Direction = "analytic"
    inverse: Direction = "analytic"
    couples_batch: bool = False
    overestimates: bool = False

    def then(self, other: Properties) -> Properties:
        """The properties of `other` applied after this."""
        biases = [p.bias for p in (self, other) if p.bias != "none"]
        overestimates = self.overestimates or other.overestimates
        kind = max(self.kind, other.kind, key=_KINDS.index)
        return Properties(
            kind="estimate" if overestimates else kind,
            bias="; ".join(dict.fromkeys(biases)) or "none",
            measure=self.measure if self.measure != "lebesgue" else other.measure,
            domain=self.domain if self.domain is not None else other.domain,
            codomain=other.codomain if other.codomain is not None else self.codomain,
            constant_ladj=self.constant_ladj and other.constant_ladj,
            volume_preserving=self.volume_preserving and other.volume_preserving,
            lipschitz=product(self.lipschitz, other.lipschitz),
            inverse_lipschitz=product(self.inverse_lipschitz, other.inverse_lipschitz),
            forward=max(self.forward, other.forward, key=_DIRECTIONS.index),
            inverse=max(self.inverse, other.inverse, key=_DIRECTIONS.index),
            couples_batch=self.couples_batch or other.couples_batch,
            overestimates=overestimates,
        )

    def inverted(self) -> Properties:
        """The properties of the inverse map."""
        return replace(
            self,
            domain=self.codomain,
            codomain=self.domain,
            lipschitz=self.inverse_lipschitz,
            inverse_lipschitz=self.lipschitz,
            forward=self.inverse,
            inverse=self.forward,
        )


KEEPS = Properties(
    domain=None,
    codomain=None,
    constant_ladj=True,
    volume_preserving=True,
    lipschitz=1.0,
    inverse_lipschitz=1.0,
)
"""A rearrangement of the entries: any domain, no change of volume."""


def product(a: float | None, b: float | None) -> float | None:
    """The Lipschitz constant of a composition; None where one is unknown."""
    return None if a is None or b is None else a * b
