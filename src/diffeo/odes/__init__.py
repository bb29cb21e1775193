"""Solvers of dy/dt = f(t, y) for batches of independent examples: fixed steps, adaptive ones, and their adjoint.

Adaptive steps are of every example's own: its error alone decides them, so an example gives the same numbers whatever
is solved beside it, and meets the tolerance by itself. Other solvers are those of torchdiffeq, whose steps all examples
share; there an error is the largest over the examples, so that each of them meets the tolerance.
"""

from .adjoint import solve_adjoint
from .solve import solve
from .solver import Solver
from .steps import Dynamics

__all__ = ["Dynamics", "Solver", "solve", "solve_adjoint"]
