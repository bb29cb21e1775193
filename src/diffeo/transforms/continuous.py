"""Continuous flows: z = x + integral of f(x, t) dt, ladj = integral of tr df/dx dt, solved to a stated tolerance.

Chen, Rubanova, Bettencourt, Duvenaud. Neural ordinary differential equations. 2018, arXiv:1806.07366.
Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud. FFJORD. 2018, arXiv:1810.01367.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..nets.fields import ConcatSquash, Field
from ..noise import draw
from ..odes import Dynamics, Solver, solve, solve_adjoint
from ..parts import Shape, register
from ..properties import Properties
from .base import Context, Noise, Transform, rows_of

Trace = Literal["exact", "hutchinson"]
Probe = Literal["rademacher", "gaussian"]


@register
class Continuous(Transform):
    """z = x(T) of dx/dt = f(x, t, context), x(0) = x: data at time 0, latents at T.

    field: a Field, or a callable that makes one from (event_shape, context_shape). time: T; with learn_time, its first
    value. solver, steps, rtol, atol: see `diffeo.odes.Solver`; the tolerance is part of `properties.bias`. trace:
    `exact`, a directional derivative for each entry, or `hutchinson`, e . (df/dx) e, an unbiased estimate with one
    random vector e for a solve, from `probe`: signs or N(0, 1). adjoint: backward solves
    backwards in time in place of storing the steps, with gradients to the tolerance; by default it differentiates the
    steps that were taken.
    kinetic, jacobian: weights of the mean squares of f and of the Jacobian, integrated over time, in the training loss
    (Finlay et al., RNODE, 2020, arXiv:2002.02798).

    The solve runs in the dtype of x, also under autocast. Without noise, `forward` of `hutchinson` is exact; its
    inverse has no ladj: NaN.

    Raises ConfigError or ShapeError for settings that do not fit; ConvergenceError where a solve misses the tolerance.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        field: Field | Callable[[Shape, Any], Field] = ConcatSquash,
        *,
        time: float = 1.0,
        learn_time: bool = False,
        solver: str = "dopri5",
        steps: int | None = None,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        trace: Trace = "exact",
        probe: Probe = "rademacher",
        adjoint: bool = False,
        kinetic: float = 0.0,
        jacobian: float = 0.0,
        context_shape: Any = None,
    ) -> None:
        super().__init__(event_shape, context_shape=context_shape)
        self.field = _made(field, self.event_shape, self.context_shape, self.name)
        self.context_shape = self.field.context_shape
        if not (time > 0 and math.isfinite(time)):
            raise ConfigError(f"time must be above zero, got {time}")
        if trace not in get_args(Trace):
            raise ConfigError(f"trace must be one of {', '.join(get_args(Trace))}, got {trace!r}")
        if probe not in get_args(Probe):
            raise ConfigError(f"probe must be one of {', '.join(get_args(Probe))}, got {probe!r}")
        if not (kinetic >= 0 and jacobian >= 0):
            raise ConfigError(
                f"kinetic and jacobian must be zero or more, got {kinetic} and {jacobian}"
            )
        self.time = time
        self.learn_time = learn_time
        # T = root^2, as in the released code.
        self.root = nn.Parameter(torch.tensor(math.sqrt(time))) if learn_time else None
        self.solver = Solver(solver, steps, rtol, atol)
        self.trace: Trace = trace
        self.probe: Probe = probe
        self.adjoint = adjoint
        self.kinetic = kinetic
        self.jacobian = jacobian
        self.properties = Properties(
            kind="exact" if trace == "exact" else "estimate",
            bias=str(self.solver),
            forward="iterative",
            inverse="iterative",
        )

    # -- the map ------------------------------------------------------------------------------------------------------

    def forward(
        self, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        z, sums, _ = self._solve(x, context, noise, _LADJ)
        return z, sums[:, 0]

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        if self.stochastic:
            return self.decode(z, context), z.new_full((len(z),), math.nan)
        x, sums, _ = self._solve(z, context, None, _LADJ, backwards=True)
        return x, sums[:, 0]

    def decode(self, z: Tensor, context: Context = None) -> Tensor:
        return self._solve(z, context, None, _NOTHING, backwards=True)[0]

    @property
    def regularized(self) -> bool:
        """Whether training adds the penalties."""
        return self.kinetic > 0 or self.jacobian > 0

    def penalized(
        self, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """z, ladj and kinetic int |f|^2 dt / D + jacobian int |df/dx|_F^2 dt / D for D entries, [batch].

        With `hutchinson`, |(df/dx) e|^2 stands for the squared norm, which is its expectation.
        """
        z, sums, _ = self._solve(x, context, noise, _PENALTIES)
        weights = sums.new_tensor([self.kinetic, self.jacobian])
        return z, sums[:, 0], (sums[:, 1:] * weights).sum(1) / max(1, math.prod(self.event_shape))

    def counted(
        self, x: Tensor, context: Context = None, *, backwards: bool = False
    ) -> tuple[Tensor, Tensor, int]:
        """The other end (of a latent: backwards), the exact ladj, and how often the batch evaluated the field."""
        what = _NOTHING if self.stochastic else _LADJ
        z, sums, count = self._solve(x, context, None, what, backwards=backwards)
        return z, sums[:, 0] if what else x.new_full((len(x),), math.nan), count

    def path(self, x: Tensor, times: Sequence[float], context: Context = None) -> Tensor:
        """x(t) from x(0) = x at increasing shares of T in [0, 1], [times, batch, *event]."""
        found, last = [], 0.0
        for t in times:
            x = self._solve(x, context, None, _NOTHING, span=(last, t))[0]
            found.append(x)
            last = t
        return torch.stack(found)

    def _solve(
        self,
        x: Tensor,
        context: Context,
        noise: Noise,
        what: int,
        *,
        backwards: bool = False,
        span: tuple[float, float] = (0.0, 1.0),
    ) -> tuple[Tensor, Tensor, int]:
        """The other end, `what` integrals [batch, what], and the evaluations of the field; in shares of T."""
        start, end = reversed(span) if backwards else span
        if start == end:
            return x, x.new_zeros(len(x), what), 0
        count = [0]
        e = noise if self.stochastic and isinstance(noise, Tensor) else None
        adjoint = self.adjoint and torch.is_grad_enabled()
        finite = None
        if self.solver.adaptive:
            # A row that is not finite has no step size: it is solved as zeros, and is NaN.
            finite = _finite(x, context)
            x, context = _where_finite(x, finite), _where_finite(context, finite)
        # The adjoint differentiates each evaluation by itself.
        f = _Motion(self, context, e, what, count, None if adjoint else self.field.prepare())
        entries = math.prod(self.event_shape)
        y = torch.cat((x.reshape(len(x), entries), x.new_zeros(len(x), what)), 1)
        with _full_precision(x):
            if adjoint:
                inputs = [*self.parameters(), *_tensors(context)]
                y = solve_adjoint(
                    f, y, start, end, self.solver, entries=entries, name=self.name, inputs=inputs
                )
            else:
                y = solve(f, y, start, end, self.solver, entries=entries, name=self.name)
        if finite is not None:
            y = torch.where(finite[:, None], y, torch.full_like(y, math.nan))
        return y[:, :entries].reshape(x.shape), y[:, entries:], count[0]

    def _values(
        self, x: Tensor, t: Tensor, context: Context, e: Tensor | None, what: int, prepared: Any
    ) -> list[Tensor]:
        """f, its divergence, and the squares of f and of the Jacobian: the first 1 + what of them."""
        more = () if prepared is None else (prepared,)
        if what == _NOTHING:
            return [self.field(x, t, context, *more)]
        if e is not None:
            value, along = self.field.with_tangents(x, t, e[None], context, *more)
            along = along[0]
            trace = (along * e).flatten(1).sum(1)
            square = along.flatten(1).square().sum(1)
        elif what == _LADJ:
            value, trace = self.field.with_trace(x, t, context, *more)
            return [value, trace]
        else:
            value, columns = self.field.jacobian(x, t, context, *more)
            trace = columns.diagonal(dim1=0, dim2=2).sum(-1)
            square = columns.square().sum((0, 2))
        if what == _LADJ:
            return [value, trace]
        return [value, trace, value.flatten(1).square().sum(1), square]

    # -- noise --------------------------------------------------------------------------------------------------------

    @property
    def stochastic(self) -> bool:
        return self.trace == "hutchinson"

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        center: bool = False,
        like: Tensor | None = None,
    ) -> Noise:
        if not self.stochastic:
            return None
        like = next(self.field.parameters()) if like is None else like
        shape = (n, *self.event_shape)
        if center:
            return like.new_ones(shape)
        if self.probe == "gaussian":
            return draw(shape, like, generator)
        signs = draw(shape, like, generator, normal=False) < 0.5
        return signs.to(like.dtype) * 2 - 1

    def estimate_bias(self) -> float | None:
        """A thousand tolerances, as a rule of thumb; of fixed steps nothing is known."""
        return 1e3 * (self.solver.rtol + self.solver.atol) if self.solver.adaptive else None

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "field": self.field,
            "time": self.time,
            "learn_time": self.learn_time,
            "solver": self.solver.name,
            "steps": self.solver.steps,
            "rtol": self.solver.rtol,
            "atol": self.solver.atol,
            "trace": self.trace,
            "probe": self.probe,
            "adjoint": self.adjoint,
            "kinetic": self.kinetic,
            "jacobian": self.jacobian,
            "context_shape": self.context_shape,
        }


_NOTHING, _LADJ, _PENALTIES = 0, 1, 3


class _Motion(Dynamics):
    """The derivatives of x, flattened, and of `what` integrals, with respect to the share of T that has passed."""

    def __init__(
        self,
        layer: Continuous,
        context: Context,
        e: Tensor | None,
        what: int,
        count: list[int],
        prepared: Any,
        rows: Tensor | None = None,
    ) -> None:
        self.layer, self.context, self.e, self.what, self.count = layer, context, e, what, count
        self.prepared, self.rows = prepared, rows

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        self.count[0] += 1
        layer, context, e = self.layer, self.context, self.e
        if self.rows is not None:
            # Not in `take`: every call has a graph of its own to the context.
            context = rows_of(context, self.rows)
            e = None if e is None else e[self.rows]
        x = y[:, : y.shape[1] - self.what].reshape(len(y), *layer.event_shape)
        time: Any = layer.time if layer.root is None else layer.root.square()
        if layer.root is None and time == 1.0:
            values = layer._values(x, t, context, e, self.what, self.prepared)
        else:
            found = layer._values(x, t * time, context, e, self.what, self.prepared)
            values = [v * time for v in found]
        value = values[0].reshape(len(y), y.shape[1] - self.what)
        return torch.cat([value, *(v[:, None] for v in values[1:])], 1) if self.what else value

    def take(self, rows: Tensor) -> _Motion:
        if self.context is None and self.e is None:
            return self
        rows = rows if self.rows is None else self.rows[rows]
        return _Motion(self.layer, self.context, self.e, self.what, self.count, self.prepared, rows)


def _made(field: Any, shape: Shape, context_shape: Any, owner: str) -> Field:
    if not isinstance(field, nn.Module):
        field = field(shape, context_shape)
    if not isinstance(field, Field):
        raise ConfigError(
            f"{owner} needs a Field, or a callable that makes one, got {type(field).__name__}"
        )
    if field.event_shape != shape:
        raise ShapeError(f"{owner} needs a field on {shape}, got one on {field.event_shape}")
    if context_shape is not None and field.context_shape not in (None, context_shape):
        raise ShapeError(
            f"{owner} has the context {context_shape}, but its field takes {field.context_shape}"
        )
    return field


def _tensors(context: Context) -> list[Tensor]:
    if context is None:
        return []
    return list(context.values()) if isinstance(context, dict) else [context]


def _finite(x: Tensor, context: Context) -> Tensor:
    """Which rows are finite, in what they are and in what is given of them."""
    found = x.flatten(1).isfinite().all(1)
    for t in _tensors(context):
        found = found & t.flatten(1).isfinite().all(1)
    return found


def _where_finite(given: Any, finite: Tensor) -> Any:
    """A tensor, or some, with zeros in the other rows."""
    if isinstance(given, dict):
        return {k: _where_finite(t, finite) for k, t in given.items()}
    if given is None:
        return None
    return torch.where(finite.reshape(-1, *[1] * (given.ndim - 1)), given, torch.zeros_like(given))


def _full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """No autocast: the error of a step would be that of the rounding."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()
