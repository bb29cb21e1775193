"""Which method solves an ODE, in how many steps or to which tolerance."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: nodes, rows of the matrix, weights, and the weights of its error, if it has any.

    The last row of a method with an error is that of the weights: its last stage is the first of the next step.
    """

    order: int
    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    error: tuple[float, ...] = ()


EULER = Tableau(1, (0.0,), ((),), (1.0,))
MIDPOINT = Tableau(2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0))
RK4 = Tableau(
    4,
    (0.0, 0.5, 0.5, 1.0),
    ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
)
_WEIGHTS = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
# Dormand and Prince. A family of embedded Runge-Kutta formulae. 1980.
DOPRI5 = Tableau(
    5,
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _WEIGHTS,
    ),
    (*_WEIGHTS, 0.0),
    (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)
OWN = {"euler": EULER, "midpoint": MIDPOINT, "rk4": RK4, "dopri5": DOPRI5}
ADAPTIVE = ("dopri8", "bosh3", "fehlberg2", "adaptive_heun")
"""Of torchdiffeq."""


@dataclass(frozen=True)
class Solver:
    """`steps` equal steps of euler, midpoint, rk4 or dopri5; or dopri5, or a solver of torchdiffeq, to tolerance.

    An adaptive step is accepted where the root mean square of error / (atol + rtol |y|) over an example's entries is at
    most 1, and so is that of what is integrated beside them. most: steps before ConvergenceError.

    Raises ConfigError for a solver or a number that does not fit.
    """

    name: str = "dopri5"
    steps: int | None = None
    rtol: float = 1e-5
    atol: float = 1e-5
    most: int = 10_000

    def __post_init__(self) -> None:
        if self.name not in (*OWN, *ADAPTIVE):
            raise ConfigError(
                f"solver must be one of {', '.join((*OWN, *ADAPTIVE))}, got {self.name!r}"
            )
        if self.steps is None and self.name in OWN and not OWN[self.name].error:
            raise ConfigError(f"{self.name} takes equal steps: say how many, as in steps=20")
        if self.steps is not None and (self.steps < 1 or self.name not in OWN):
            raise ConfigError(
                f"steps must be at least 1, and are for {', '.join(OWN)}, got {self.steps} for {self.name}"
            )
        if not (self.rtol >= 0 and self.atol >= 0 and self.rtol + self.atol > 0):
            raise ConfigError(
                f"rtol and atol must be zero or more, one of them more, got {self.rtol} and {self.atol}"
            )

    @property
    def adaptive(self) -> bool:
        return self.steps is None

    def __str__(self) -> str:
        if self.steps is not None:
            return f"{self.name} in {self.steps} steps"
        return f"{self.name} to rtol {self.rtol:g}, atol {self.atol:g}"


__all__ = ["ADAPTIVE", "OWN", "Solver", "Tableau"]
