"""What training minimizes besides -log p: flow matching, and the penalties of regularized continuous flows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .errors import ConfigError
from .flow import Flow
from .noise import draw
from .transforms import Continuous
from .transforms.reversible import Apply

Objective = Literal["maximum_likelihood", "flow_matching"]
Path = Literal["linear", "variance_preserving"]
Coupling = Literal["independent", "optimal"]
Loss = Callable[[Tensor, Any, Any], Tensor]


def flow_matching(flow: Flow, *, path: Path = "linear", coupling: Coupling = "independent") -> Loss:
    """A function of (x, context, noise): |f(x_t, t) - dx_t/dt|^2 / D at a random t, [batch].

    x_t goes from data x_0 (after the layers before the continuous one) to noise x_1 of the base: path `linear`,
    (1 - t) x_0 + t x_1, which is the optimal-transport path of Lipman et al. with sigma_min 0; `variance_preserving`,
    cos(pi t / 2) x_0 + sin(pi t / 2) x_1. coupling: `independent`, or `optimal`: noise is assigned to the examples of a
    batch so that sum |x_0 - x_1|^2 is least, among those with the same context: noise that could choose the context
    would depend on it, and that of a sample does not. The minimum over f is E[dx_t/dt | x_t, t], whose flow takes data
    to the base. t is stratified over the batch. Layers before get no gradient.
    Lipman et al., 2022, arXiv:2210.02747; Tong et al., 2023, arXiv:2302.00482; Liu et al., 2022, arXiv:2209.03003.

    Raises ConfigError for a flow without exactly one continuous layer, or with one that learns its time.
    """
    if path not in get_args(Path):
        raise ConfigError(f"path must be one of {', '.join(get_args(Path))}, got {path!r}")
    if coupling not in get_args(Coupling):
        raise ConfigError(
            f"coupling must be one of {', '.join(get_args(Coupling))}, got {coupling!r}"
        )
    layers = [m for m in flow.transform.modules() if isinstance(m, Continuous)]
    if len(layers) != 1 or layers[0].learn_time:
        raise ConfigError(
            f"flow matching trains one continuous layer with a fixed time, and this flow has {len(layers)}"
            f"{', whose time is learned' if len(layers) == 1 else ''}: build it as zoo.flow_matching, or train it by "
            "maximum_likelihood"
        )
    layer = layers[0]

    def loss(x: Tensor, context: Any, noise: Any) -> Tensor:
        _, rows, context = flow._rows(x, context)
        steps = flow.transform.steps(noise)
        at = next(i for i, s in enumerate(steps) if s.transform is layer)
        with torch.no_grad():
            state: tuple[Tensor, ...] = (rows,)
            for step in steps[:at]:
                state, _ = step.play(state, context)
            end: tuple[Tensor, ...] = (flow.base.sample(len(rows), context),)
            for step in reversed(steps[at + 1 :]):
                end = step.undo(end, context)
        data, target = state[0], end[0]
        if coupling == "optimal":
            target = target[assigned(data, target, context)]
        n = len(data)
        t = (torch.arange(n, device=data.device) + draw((n,), data, normal=False)) / max(n, 1)
        t = t[torch.randperm(n, device=data.device)]
        share = t.reshape(n, *(1 for _ in data.shape[1:]))
        if path == "linear":
            between, velocity = torch.lerp(data, target, share), target - data
        else:
            cos, sin = (share * (math.pi / 2)).cos(), (share * (math.pi / 2)).sin()
            between = cos * data + sin * target
            velocity = (cos * target - sin * data) * (math.pi / 2)
        found = layer.time * layer.field(between, t * layer.time, context)
        each: Tensor = (found - velocity).square().flatten(1).mean(1)
        return each

    return loss


@torch.no_grad()
def assigned(data: Tensor, noise: Tensor, context: Any = None) -> Tensor:
    """For each row of data the row of noise, [batch], in the assignment with the least sum of squared distances.

    context: rows keep to the noise of rows whose context is the same.
    """
    from scipy.optimize import linear_sum_assignment

    cost = torch.cdist(data.flatten(1), noise.flatten(1)).square()
    if context is not None:
        given = context.values() if isinstance(context, dict) else [context]
        rows = torch.cat([c.flatten(1).double() for c in given], 1)
        _, group = rows.unique(dim=0, return_inverse=True)
        # More than any assignment that keeps to the groups costs.
        cost = cost + (group[:, None] != group) * (1 + cost.amax(1).sum())
    _, columns = linear_sum_assignment(cost.double().cpu().numpy())
    return torch.as_tensor(columns, device=noise.device)


def penalized(flow: Flow) -> Callable[[Tensor, Any, Any], tuple[Tensor, Tensor]]:
    """A function of (x, context, noise): -log p, and the penalties of continuous layers, [batch] each, in nats.

    A penalty of 1 counts as much as one bit per dimension of the data, as in Finlay et al., 2020, arXiv:2002.02798.
    """
    nats = flow.event_size * math.log(2)

    def losses(x: Tensor, context: Any, noise: Any) -> tuple[Tensor, Tensor]:
        _, rows, context = flow._rows(x, context)
        state: tuple[Tensor, ...] = (rows,)
        total = extra = torch.zeros(len(rows), dtype=flow.dtype, device=rows.device)
        for step in flow.transform.steps(noise):
            if isinstance(step, Apply) and isinstance(step.transform, Continuous):
                z, ladj, penalty = step.transform.penalized(state[0], context, step.noise)
                state, extra = (z, *state[1:]), extra + penalty
            else:
                state, found = step.play(state, context)
                ladj = total.new_zeros(()) if found is None else found
            total = total + ladj
        return -(flow.base.log_prob(state[0], context) + total), nats * extra

    return losses
