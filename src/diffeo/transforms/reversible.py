"""Depth without memory: backward recomputes activations from the outputs, through the inverse.

A transform unrolls into steps on a state: the running value, and the halves that splits have put aside. A run of steps
that are inverted exactly stores its last state only; its backward goes from the last step to the first, each time
x = f^-1(z), then the gradients of f at x. Gomez et al., The reversible residual network, 2017, arXiv:1707.04585.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DirectionError

if TYPE_CHECKING:
    from .base import Context, Noise, Transform

Memory = Literal["plain", "checkpoint", "reversible"]
Storage = Literal["reversible", "checkpoint", "plain"]
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Autocast:
    """The autocast state of a forward pass, for its recomputation."""

    device: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def now(cls, device: str) -> Autocast:
        return cls(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))

    def on(self) -> torch.autocast:
        # Weights cast without gradients must not be found in the cache by what needs them.
        return torch.autocast(
            self.device, dtype=self.dtype, enabled=self.enabled, cache_enabled=False
        )


@dataclass(frozen=True)
class Given:
    """What forward ran with: the context, its tensors leaves of their own, and the autocast state."""

    context: Context
    autocast: Autocast


@dataclass(frozen=True)
class Apply:
    """The step of one transform: it maps the running value."""

    transform: Transform
    noise: Noise = None

    @property
    def storage(self) -> Storage:
        """What to keep for backward, by what the transform declares.

        `reversible` takes an exact map with an analytic inverse. The others keep their input and run forward again,
        except those whose forward depends on the batch and updates statistics, which must run once.
        """
        declared = self.transform.properties
        if declared.couples_batch:
            return "plain"
        exact = declared.kind == "exact" and declared.inverse == "analytic"
        return "reversible" if exact and not self.transform.stochastic else "checkpoint"

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.transform.parameters())

    def play(self, state: State, context: Context) -> tuple[State, Tensor | None]:
        """The state after this step, and its ladj."""
        more = (self.noise,) if self.transform.stochastic and self.noise is not None else ()
        z, ladj = self.transform(state[0], context, *more)
        return (z, *state[1:]), ladj

    def undo(self, state: State, context: Context) -> State:
        """The state before this step."""
        return (self.transform.decode(state[0], context), *state[1:])

    def pull(
        self, state: State, grads: State, ladj_grad: Tensor, wrt: list[Tensor], given: Given
    ) -> tuple[State, State, list[Tensor | None]]:
        """The state before this step, the gradients there, and those to `wrt`, the others that it depends on."""
        # Only what forward ran under autocast: backward runs in the dtypes that it finds.
        with torch.enable_grad(), given.autocast.on():
            leaves, z, ladj = self.transform.recompute(state[0], given.context)
        pairs = [(o, g) for o, g in ((z, grads[0]), (ladj, ladj_grad)) if o.requires_grad]
        outputs, gradients = zip(*pairs, strict=True)
        found = torch.autograd.grad(outputs, [*leaves, *wrt], gradients, allow_unused=True)
        of_leaves = [g for g in found[: len(leaves)] if g is not None]
        grad = sum(of_leaves[1:], start=of_leaves[0])
        before = (leaves[-1].detach(), *state[1:])
        return before, (grad, *grads[1:]), list(found[len(leaves) :])


@dataclass(frozen=True)
class Rearrange:
    """A step that only moves entries within the state; `back` undoes it, for values and for gradients."""

    do: Callable[[State], State]
    back: Callable[[State], State]
    transform: None = None
    storage: Storage = "reversible"

    @property
    def parameters(self) -> list[nn.Parameter]:
        return []

    def play(self, state: State, context: Context) -> tuple[State, Tensor | None]:
        return self.do(state), None

    def undo(self, state: State, context: Context) -> State:
        return self.back(state)

    def pull(
        self, state: State, grads: State, ladj_grad: Tensor, wrt: list[Tensor], given: Given
    ) -> tuple[State, State, list[Tensor | None]]:
        return self.back(state), self.back(grads), [None] * len(wrt)


Step = Apply | Rearrange


def run(
    memory: str, transform: Transform, x: Tensor, context: Context = None, noise: Noise = None
) -> tuple[Tensor, Tensor]:
    """z and ladj of a transform, with what `memory` says of the activations that backward needs.

    `plain` stores them; `reversible` recomputes those of one layer after the other from the output, through the
    inverse, and where a layer declares no analytic one, from its input; `checkpoint`: from its input, everywhere.
    Gradients are those of ordinary backpropagation, with `reversible` up to the error of the inverse, and its second
    derivatives raise DirectionError. Raises ConfigError for another memory.
    """
    if memory not in get_args(Memory):
        raise ConfigError(f"memory must be one of {', '.join(get_args(Memory))}, got {memory!r}")
    # Without gradients there is nothing to store, and a compiler decides itself what it keeps.
    if memory == "plain" or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        if transform.stochastic:
            z, ladj = transform(x, context, noise)
        else:
            z, ladj = transform(x, context)
        return z, ladj
    state: State = (x,)
    total: Tensor | None = None
    for storage, steps in runs(transform, noise):
        if memory == "checkpoint" and storage == "reversible":
            storage = "checkpoint"
        state, ladj = _STORE[storage](steps, state, context)
        total = _add(total, ladj)
    return state[0], x.new_zeros(x.shape[0]) if total is None else total


def runs(transform: Transform, noise: Noise = None) -> list[tuple[Storage, list[Step]]]:
    """The steps of a transform; neighbours that are stored in the same way are one run."""
    grouped = groupby(transform.steps(noise), key=lambda step: step.storage)
    return [(storage, list(steps)) for storage, steps in grouped]


def _add(total: Tensor | None, ladj: Tensor | None) -> Tensor | None:
    return ladj if total is None else total if ladj is None else total + ladj


def _plain(steps: Sequence[Step], state: State, context: Context) -> tuple[State, Tensor | None]:
    total: Tensor | None = None
    for step in steps:
        state, ladj = step.play(state, context)
        total = _add(total, ladj)
    return state, total


def _checkpointed(
    steps: Sequence[Step], state: State, context: Context
) -> tuple[State, Tensor | None]:
    from torch.utils.checkpoint import checkpoint

    total: Tensor | None = None
    for step in steps:
        parameters = step.parameters
        if any(t.requires_grad for t in (*state, *parameters, *_tensors(context))):
            again = partial(_replay, step, parameters)
            state, ladj = checkpoint(again, state, context, use_reentrant=False)
        else:
            state, ladj = step.play(state, context)
        total = _add(total, ladj)
    return state, total


def _replay(
    step: Step, parameters: Sequence[Tensor], state: State, context: Context
) -> tuple[State, Tensor | None]:
    _check_same(parameters, step.parameters)
    return step.play(state, context)


def _check_same(before: Sequence[Tensor], now: Sequence[Tensor]) -> None:
    """Raise DirectionError unless the parameters at hand are those of forward, or those detached."""
    for a, b in zip(before, now, strict=True):
        if a is not b and (a.requires_grad or a.data_ptr() != b.data_ptr()):
            raise DirectionError(
                "backward cannot recompute with parameters that only forward had, as under "
                "torch.func.functional_call: use memory = 'plain' there"
            )


def trained(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Those that want a gradient."""
    return [p for p in parameters if p.requires_grad]


def _reversible(
    steps: Sequence[Step], state: State, context: Context
) -> tuple[State, Tensor | None]:
    given = _tensors(context)
    seen = [s.parameters for s in steps]
    start = 0
    if not any(t.requires_grad for t in (*state, *given)):
        # Preprocessing of the data has no gradient to anything, and nothing to recompute.
        start = next((i for i, ps in enumerate(seen) if trained(ps)), len(steps))
    state, before = _plain(steps[:start], state, context)
    if start == len(steps):
        return state, before
    seen = seen[start:]
    parameters = list(dict.fromkeys(p for ps in seen for p in trained(ps)))
    node = _Run(steps[start:], len(state), context, len(given), parameters, seen)
    *after, total = _Recomputed.apply(node, *state, *given, *parameters)  # type: ignore[no-untyped-call]
    return tuple(after), _add(before, total)


_STORE: dict[Storage, Callable[[Sequence[Step], State, Context], tuple[State, Tensor | None]]] = {
    "reversible": _reversible,
    "checkpoint": _checkpointed,
    "plain": _plain,
}


@dataclass(frozen=True)
class _Run:
    """What a node of the graph knows of its run; `seen`: the parameters of each step, trained or not."""

    steps: Sequence[Step]
    states: int
    context: Context
    contexts: int
    parameters: Sequence[nn.Parameter]
    seen: Sequence[Sequence[nn.Parameter]]


class _Recomputed(torch.autograd.Function):
    """(run, *state, *context tensors, *parameters) to (*state, ladj)."""

    @staticmethod
    def forward(ctx: Any, run: _Run, *tensors: Tensor) -> tuple[Tensor, ...]:
        state: State = tensors[: run.states]
        device = state[0].device
        ctx.run = run
        ctx.autocast = Autocast.now(device.type)
        ctx.generators = []
        total: Tensor | None = None
        with ctx.autocast.on():
            generator = get_generator(device)
            for step in run.steps:
                earlier = generator
                state, ladj = step.play(state, run.context)
                generator = get_generator(device)
                # Almost no step draws; one with dropout must draw the same again.
                ctx.generators.append(None if torch.equal(earlier, generator) else earlier)
                total = _add(total, ladj)
        if total is None:
            total = state[0].new_zeros(state[0].shape[0])
        # Parameters are saved so that a change before backward is an error, as in ordinary backpropagation.
        ctx.save_for_backward(*state, *tensors[run.states :])
        return (*state, total)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise DirectionError(
                "memory = 'reversible' gives first derivatives only: use memory = 'plain' with create_graph"
            )
        run: _Run = ctx.run
        # Splits may begin or end within a run, so it can give another number of states than it takes.
        *grads_list, ladj_grad = gradients
        grads: State = tuple(grads_list)
        n = len(grads)
        state: State = ctx.saved_tensors[:n]
        contexts = [
            t.detach().requires_grad_(t.requires_grad)
            for t in ctx.saved_tensors[n : n + run.contexts]
        ]
        given = Given(_with_tensors(run.context, contexts), ctx.autocast)
        wanted = [t for t in contexts if t.requires_grad]
        sums: dict[Tensor, Tensor] = {}
        device = state[0].device
        with generator_kept(device):
            for step, seen, generator in zip(
                reversed(run.steps), reversed(run.seen), reversed(ctx.generators), strict=True
            ):
                now = step.parameters
                _check_same(seen, now)
                if generator is not None:
                    set_generator(device, generator)
                wrt: list[Tensor] = [*wanted, *trained(now)]
                state, grads, found = step.pull(state, grads, ladj_grad, wrt, given)
                for t, g in zip(wrt, found, strict=True):
                    if g is not None:
                        sums[t] = sums[t] + g if t in sums else g
        return (None, *grads, *(sums.get(t) for t in (*contexts, *run.parameters)))


def _tensors(context: Context) -> list[Tensor]:
    if context is None:
        return []
    return list(context.values()) if isinstance(context, dict) else [context]


def _with_tensors(context: Context, tensors: list[Tensor]) -> Context:
    if isinstance(context, dict):
        return dict(zip(context, tensors, strict=True))
    return tensors[0] if tensors else None


def get_generator(device: torch.device) -> Tensor:
    """The state of the generator that layers on a device draw from."""
    if device.type == "cpu":
        return torch.get_rng_state()
    state: Tensor = torch.get_device_module(device).get_rng_state()
    return state


def set_generator(device: torch.device, state: Tensor) -> None:
    """Put back what `get_generator` returned."""
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state)


@contextmanager
def generator_kept(device: torch.device) -> Iterator[None]:
    """Leave the generator of a device as it was before."""
    state = get_generator(device)
    try:
        yield
    finally:
        set_generator(device, state)
