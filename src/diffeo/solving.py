"""What users ask of a flow's ODE: other solvers for the same weights, evaluations of the field, straightness."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError
from .flow import Flow
from .parts import describe
from .transforms import Continuous
from .transforms.reversible import Apply
from .variants import replaced, variant

_OPTIONS = ("solver", "steps", "rtol", "atol", "trace", "probe", "adjoint")


def with_solver(flow: Flow, **options: Any) -> Flow:
    """A flow that shares the weights of this one, its continuous layers with other `solver`, `steps`, `rtol`, `atol`,
    `trace`, `probe` or `adjoint`, as in `Continuous`.

    `with_solver(flow, solver="euler", steps=4).sample(100)` draws with four evaluations of the field; `rtol=1e-10,
    atol=1e-10` of a flow in float64, or `trace="exact"`, gives a finer likelihood. A solver without steps is adaptive.

    Raises ConfigError for other options, and for a flow without a continuous layer.

    >>> import diffeo
    >>> flow = diffeo.zoo.build("ffjord", (2,), size="tiny")
    >>> with_solver(flow, solver="euler", steps=4).properties.bias
    'euler in 4 steps'
    """
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ConfigError(f"with_solver takes {', '.join(_OPTIONS)}, got {unknown[0]!r}")
    _layers(flow)
    if "solver" in options:
        options = {"steps": None} | options

    def change(part: dict[str, Any]) -> dict[str, Any]:
        return part | options if part["part"] == Continuous.__name__ else part

    return variant(flow, replaced(describe(flow), change))


@torch.no_grad()
def evaluations(flow: Flow, x: Tensor, context: Any = None) -> dict[str, int]:
    """Evaluations of the fields, all continuous layers together, to encode the batch x and to decode it again.

    With adaptive steps it is the number that the batch takes as a whole: that of its slowest examples.
    """
    _, rows, context = flow._rows(x, context)
    noise = flow.transform.draw(len(rows), center=True, like=flow.base.like)
    state: tuple[Tensor, ...] = (rows,)
    found = {"encode": 0, "decode": 0}
    for step in flow.transform.steps(noise):
        before = state[0]
        if isinstance(step, Apply) and isinstance(step.transform, Continuous):
            z, _, n = step.transform.counted(before, context)
            found["encode"] += n
            found["decode"] += step.transform.counted(z, context, backwards=True)[2]
            state = (z, *state[1:])
        else:
            state, _ = step.play(state, context)
    return found


@torch.no_grad()
def straightness(flow: Flow, x: Tensor, context: Any = None, *, points: int = 20) -> Tensor:
    """S = E int_0^1 |(z_1 - z_0) - dz_t/dt|^2 dt / E int_0^1 |dz_t/dt|^2 dt along the paths from the rows of x.

    One number in [0, 1]: 0 for straight paths at constant speed, which one Euler step follows. Measured by the chords
    of `points` equal parts of time, over all continuous layers. Liu et al., 2022, arXiv:2209.03003, have the numerator.

    Raises ConfigError for a flow without a continuous layer.
    """
    _layers(flow)
    _, rows, context = flow._rows(x, context)
    noise = flow.transform.draw(len(rows), center=True, like=flow.base.like)
    state: tuple[Tensor, ...] = (rows,)
    bent = spent = state[0].new_zeros((), dtype=flow.dtype)
    for step in flow.transform.steps(noise):
        if isinstance(step, Apply) and isinstance(step.transform, Continuous):
            times = [(i + 1) / points for i in range(points)]
            path = torch.cat((state[0][None], step.transform.path(state[0], times, context)))
            whole = path[-1] - path[0]
            speed = (path[1:] - path[:-1]) * points
            bent = bent + (whole - speed).square().mean(0).flatten(1).sum(1).mean()
            spent = spent + speed.square().mean(0).flatten(1).sum(1).mean()
            state = (path[-1], *state[1:])
        else:
            state, _ = step.play(state, context)
    return bent / spent.clamp(min=torch.finfo(spent.dtype).tiny)


def _layers(flow: Flow) -> list[Continuous]:
    found = [m for m in flow.transform.modules() if isinstance(m, Continuous)]
    if not found:
        raise ConfigError("this flow has no continuous layer, so there is no ODE to solve")
    return found
