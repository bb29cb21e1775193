"""Fixed points x = g(x), example by example, to a stated tolerance: Picard, Anderson, Broyden; implicit gradients.

Gradients: Bai, Kolter, Koltun, Deep equilibrium models, 2019, arXiv:1909.01377.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .accelerations import ACCELERATIONS
from .errors import ConfigError, ConvergenceError
from .tracing import may_look, operator, uncompiled

Map = Callable[[Tensor], Tensor]
"""x [batch, *event] -> [batch, *event], example by example; what it closes over (parameters, inputs) gets gradients."""

Method = Literal["picard", "anderson", "broyden"]

ROUNDINGS = 32
"""The default tolerance, in units of the dtype's rounding: 4e-6 in float32, 7e-15 in float64."""

MAX_STEPS = 5000
"""Evaluations of g before the search gives up."""

_PATIENCE = (
    300  # evaluations without a new least residual: no contraction, or the rounding of g is reached
)
_LOOK = 16  # of x <- g(x) alone, that is looked at after so many evaluations
_FALL = 0.99  # an accelerated step must bring the least residual so far down to this share of it
_REJECTIONS = 20  # of accelerated steps of one example, after which it goes on by x <- g(x) alone


@dataclass(frozen=True)
class Solution:
    """x [batch, *event] with x = g(x); residual: root mean square of its last step; steps: evaluations, both [batch].

    x is g of the last point, and the residual is its distance from that point: its own is smaller by the contraction.
    """

    x: Tensor
    residual: Tensor
    steps: Tensor

    def error_bound(self, lipschitz: float) -> Tensor:
        """Root mean square distance of x from the fixed point, at most: L residual / (1 - L), [batch].

        lipschitz: L, a constant of g in the 2-norm, below 1. Raises ConfigError for another.
        """
        _check_contraction(lipschitz)
        return lipschitz * self.residual / (1 - lipschitz)


_found: ContextVar[list[tuple[str, Solution]] | None] = ContextVar("found", default=None)


@contextmanager
def recording() -> Iterator[list[tuple[str, Solution]]]:
    """Collects (name, Solution) of every search inside, in their order: what a model's iterations cost.

    >>> with recording() as found:
    ...     _ = solve(lambda x: 0.5 * x + 1, torch.zeros(3, 2), name="line")
    >>> name, solution = found[0]
    >>> name, int(solution.steps.max()) > 1
    ('line', True)
    """
    found: list[tuple[str, Solution]] = []
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)


def default_tolerance(dtype: torch.dtype) -> float:
    """ROUNDINGS units of rounding."""
    return ROUNDINGS * torch.finfo(dtype).eps


@uncompiled
@torch.no_grad()
def solve(
    g: Map,
    x0: Tensor,
    *,
    name: str = "a fixed point",
    tolerance: float | None = None,
    max_steps: int = MAX_STEPS,
    method: Method = "picard",
) -> Solution:
    """x = g(x) for every example of the batch, from x0 [batch, *event]; no gradients.

    An example is done when the root mean square of g(x) - x is at most `tolerance` times max(1, root mean square of x):
    g(x) is its result, and its own, whatever else is in the batch. `picard` is x <- g(x). `anderson`
    and `broyden` accelerate it, from the last few evaluations of the same example; a step that does not lower the
    residual is undone and replaced by x <- g(x), and after 20 of these nothing else is tried: where g is a contraction
    in any norm, all three converge. Rows of x0 that are not finite come back as they are.

    name: of the layer, for the error. max_steps: evaluations of g, which runs in full precision also under autocast.
    Raises ConvergenceError, with the worst residual and the count, if some examples have no fixed point to tolerance;
    ConfigError for an unknown method.
    """
    if torch.is_autocast_enabled(x0.device.type):
        g = _in_full(g)
    if method not in ACCELERATIONS:
        raise ConfigError(f"method must be one of {', '.join(ACCELERATIONS)}, got {method!r}")
    tolerance = default_tolerance(x0.dtype) if tolerance is None else tolerance
    shape, x0 = x0.shape, x0.detach().flatten(1)
    size = x0.shape[1]

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
        value = g(x.reshape(shape)).detach().reshape(x.shape)
        return value, _norm(value - x)

    x = x0
    value, residual = evaluate(x)
    finite = torch.linalg.vector_norm(x, math.inf, dim=1) < math.inf
    done = _converged(x, residual, tolerance) | ~finite
    at_rest = torch.zeros_like(done, dtype=torch.long)  # evaluations of what was done
    best, since, rejected = residual, torch.zeros_like(at_rest), torch.zeros_like(at_rest)
    plain = torch.ones_like(done)
    made = ACCELERATIONS[method]
    acceleration = None if made is None else made(x, value)
    look = _LOOK if acceleration is None else 1
    count, still = 1, int(done.sum())
    while count < max_steps and still < len(done):
        if acceleration is None:
            # Of what is done, x and its value come again.
            x = torch.where(done[:, None], x, value) if still else value
            value, residual = evaluate(x)
        else:
            fast = acceleration.step(x, value)
            plain = plain | (rejected >= _REJECTIONS) | ~fast.isfinite().all(1)
            tried = torch.where(plain[:, None], value, fast)
            tried = torch.where(done[:, None], x, tried)
            found, r = evaluate(tried)
            acceleration.learn(x, value, tried, found)
            good = plain | (r <= _FALL * best)
            rejected = rejected + (~good & ~done)
            take = good & ~done
            x, value = (torch.where(take[:, None], a, b) for a, b in ((tried, x), (found, value)))
            residual = torch.where(take, r, residual)
            plain = ~good
        at_rest += done
        done = done | _converged(x, residual, tolerance)
        count, still = count + 1, int(done.sum())
        if count % look == 0:
            since = torch.where(done | (residual < best), 0, since + look)
            best = torch.fmin(best, residual)
            if bool((done | (since > _PATIENCE)).all()):
                break
    steps, residual = count - at_rest, residual / size**0.5
    if not bool(done.all()):
        _raise(name, residual, done, tolerance, count)
    found = torch.where(finite[:, None], value, x)
    return _recorded(name, Solution(found.reshape(shape), residual, steps))


def _check_contraction(lipschitz: float) -> None:
    if not 0 <= lipschitz < 1:
        raise ConfigError(f"lipschitz must be at least 0 and below 1, got {lipschitz}")


def _recorded(name: str, solution: Solution) -> Solution:
    if (record := _found.get()) is not None:
        record.append((name, solution))
    return solution


def fixed_point(
    g: Map,
    x0: Tensor,
    *,
    name: str = "a fixed point",
    tolerance: float | None = None,
    max_steps: int = MAX_STEPS,
    method: Method = "picard",
    lipschitz: float | None = None,
) -> Tensor:
    """The x of `solve`, with the gradients of the implicit function x(everything that g closes over), to second order.

    Backward solves u = v + (dg/dx)^T u for the incoming gradient v, to the same tolerance relative to v, by the same
    method; it calls g again, which must give the same values (no dropout of its own). x0 gets no gradient.
    lipschitz: a constant of g below 1. With it torch.export and torch.func, which cannot look at values, take as many
    steps x <- g(x) as it asks for and go backward through them, and torch.compile takes `picard` into its graph where
    no gradients are recorded: it must be able to trace g whole, which closes over no two views of one tensor. Other
    searches are left out of graphs. Raises ConfigError for a constant outside [0, 1).

    >>> a = torch.tensor([[3.0]], requires_grad=True)
    >>> x = fixed_point(lambda x: 0.5 * x + a, torch.zeros(1, 1))
    >>> bool((x - 6).abs() < 1e-4), torch.autograd.grad(x, a)[0]
    (True, tensor([[2.0000]]))
    """
    if lipschitz is not None:
        _check_contraction(lipschitz)
        if not may_look():
            return _unrolled(g, x0, lipschitz, tolerance)
        plain = method == "picard" and not torch.is_grad_enabled()
        if plain and torch.compiler.is_compiling():
            return _looped(g, x0, name, tolerance, max_steps)
    return _searched(g, x0, name, tolerance=tolerance, max_steps=max_steps, method=method)


def _unrolled(g: Map, x: Tensor, lipschitz: float, tolerance: float | None) -> Tensor:
    tolerance = default_tolerance(x.dtype) if tolerance is None else tolerance
    steps = 1 if lipschitz <= tolerance else math.ceil(math.log(tolerance) / math.log(lipschitz))
    g = _in_full(g)
    for _ in range(steps):
        x = g(x)
    return x


def _looped(g: Map, x0: Tensor, name: str, tolerance: float | None, max_steps: int) -> Tensor:
    """`picard` within a graph of torch.compile."""
    from torch._higher_order_ops import while_loop

    tolerance = default_tolerance(x0.dtype) if tolerance is None else tolerance
    g = _in_full(g)
    each = -1, *[1] * (x0.ndim - 1)
    # What goes round has one layout.
    x0 = x0.clone(memory_format=torch.contiguous_format)
    finite = torch.linalg.vector_norm(x0.flatten(1), math.inf, dim=1) < math.inf

    def more(count: Tensor, *state: Tensor) -> Tensor:
        _, _, residual, _, done = state
        # Of no number there is nothing more to expect.
        return (count < max_steps) & (~done & ~residual.isnan()).any()

    def step(count: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        x, value, _, steps, done = state
        x = torch.where(done.reshape(each), x, value)
        value = g(x).clone(memory_format=torch.contiguous_format)
        residual = _norm((value - x).flatten(1))
        after = done | _converged(x.flatten(1), residual, tolerance)
        return count + 1, x, value, residual, steps + ~done, after

    steps = (~finite).long()
    none = torch.zeros_like(steps, dtype=x0.dtype)
    start = steps.new_zeros(()), x0, x0.clone(), none, steps, ~finite
    _, _, value, residual, steps, done = while_loop(more, step, start)
    found = torch.where(finite.reshape(each), value, x0)
    out: Tensor = torch.ops.diffeo.converged(found, residual, steps, done, name, tolerance)
    return out


def _checked(
    x: Tensor, residual: Tensor, steps: Tensor, done: Tensor, name: str, tolerance: float
) -> Tensor:
    """x, at the end of a search in a graph, where every example is done."""
    residual = residual / math.prod(x.shape[1:]) ** 0.5
    if not bool(done.all()):
        _raise(name, residual, done, tolerance, int(steps.max()))
    return _recorded(name, Solution(x.clone(), residual, steps)).x


# What Python does with values, for graphs of torch.compile.
operator(
    "converged(Tensor x, Tensor residual, Tensor steps, Tensor done, str name, float tolerance) -> Tensor",
    _checked,
)


@uncompiled
def _searched(g: Map, x0: Tensor, name: str, **settings: Any) -> Tensor:
    x = solve(g, x0, name=name, **settings).x
    if not torch.is_grad_enabled():
        return x
    g = _in_full(g)
    root = _Root(g, f"{name}, gradient", settings)
    y = g(_finite(x))
    if not y.requires_grad:
        return x
    # Newton steps x + (I - dg/dx)^-1 (g(x) - x) that change no value: the first has the right gradient, at a constant
    # x; the second has it at an x with a gradient of its own, for the second order.
    first: Tensor = _Newton.apply(x, y, None, root)  # type: ignore[no-untyped-call]
    second: Tensor = _Newton.apply(x, g(_finite(first)), first, root)  # type: ignore[no-untyped-call]
    return second


@dataclass
class _Root:
    """What the two steps share; twice: a backward pass was itself recorded, so that a second one may come."""

    g: Map
    name: str
    settings: dict[str, Any]
    twice: bool = False


class _Newton(torch.autograd.Function):
    """x, as start + (I - dg/dx)^-1 (g(start) - start) with y = g(start); start is None for a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, start: Tensor | None, root: _Root) -> Tensor:
        out = x.view_as(x)
        ctx.root, ctx.constant = root, start is None
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        root, again = ctx.root, torch.is_grad_enabled()
        root.twice |= again and not ctx.constant
        # Of first order, the two gradients by start cancel.
        if ctx.constant and not root.twice:
            return None, None, None, None
        u = _adjoint(root, ctx.saved_tensors[0], v, again)
        return None, u, None if ctx.constant else v - u, None


def _adjoint(root: _Root, x: Tensor, v: Tensor, again: bool) -> Tensor:
    """u = v + (dg/dx)^T u at x; `again`: with the graph of u itself."""
    there = _finite_rows(x)
    with torch.enable_grad():
        x = _finite(x) if again else _finite(x.detach()).requires_grad_()
        y = root.g(x)
    # Relative to v, whose scale is that of the loss.
    entries = math.prod(v.shape[1:])
    scale = (_norm(v.detach().flatten(1)) / entries**0.5).reshape(-1, *[1] * (v.ndim - 1))
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))

    def adjoint(u: Tensor) -> Tensor:
        product = None
        if y.requires_grad:
            (product,) = torch.autograd.grad(
                y,
                x,
                u,
                create_graph=again and torch.is_grad_enabled(),
                retain_graph=True,
                allow_unused=True,
            )
        return v / scale if product is None else v / scale + torch.where(there, product, 0.0)

    find = fixed_point if again else _solved
    return find(adjoint, v.detach() / scale, name=root.name, **root.settings) * scale


def _solved(g: Map, x0: Tensor, **settings: Any) -> Tensor:
    return solve(g, x0, **settings).x


def _in_full(g: Map) -> Map:
    """g without autocast, whose rounding is far above any tolerance."""

    def exact(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return g(x)

    return exact


def _finite_rows(x: Tensor) -> Tensor:
    """Which rows are finite, to be broadcast over x."""
    return x.detach().flatten(1).isfinite().all(1).reshape(-1, *[1] * (x.ndim - 1))


def _finite(x: Tensor) -> Tensor:
    """x with zeros in place of rows that are not finite, which have no gradient and must not reach that of others."""
    return torch.where(_finite_rows(x), x, 0.0)


def _converged(x: Tensor, residual: Tensor, tolerance: float) -> Tensor:
    """Of x and residual, [batch, entries] and [batch]; not where both are infinite."""
    return residual < _norm(x).clamp_(min=x.shape[1] ** 0.5).mul_(tolerance)


def _norm(x: Tensor) -> Tensor:
    out: Tensor = torch.linalg.vector_norm(x, dim=1)
    return out


def _raise(name: str, residual: Tensor, done: Tensor, tolerance: float, steps: int) -> None:
    worst = residual[~done]
    raise ConvergenceError(
        f"{name}: the fixed point of {len(worst)} of {len(done)} examples was not found to {tolerance:.1e} in {steps} "
        f"evaluations, worst residual {float(worst.max()):.3g}: the map is no contraction there (refresh its Lipschitz "
        "constants), or its rounding is above the tolerance"
    )
