"""sbi: flows as density estimators of neural posterior (NPE) and neural likelihood estimation (NLE).

`NPE(prior, density_estimator=posterior_estimator("nsf_autoregressive", prior))` trains with sbi's own loop.
`fit_estimator` trains with `diffeo.fit` instead; `NPE(prior).build_posterior(...)` takes what it gives.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from .. import zoo
from ..errors import ConfigError, InputError
from ..flow import Flow
from ..nets import Conditioner, Scaled
from ..transforms import Chain, ToReal
from ..zoo.base import Embedding

Support = Distribution | constraints.Constraint | None
FIT = {"batch_size": 100, "lr": 3e-3, "ema": 0.99, "clip": 5.0, "validate_every": 50}
"""Settings of `fit_estimator` that are not those of `diffeo.fit`."""
SMALL = {"nsf_autoregressive": {"layers": 3, "blocks": 1}}
"""Settings of size `small` that are not those of the zoo: simulations are few."""


def posterior_estimator(
    name: str = "nsf_autoregressive",
    prior: Distribution | None = None,
    *,
    embedding: Embedding | None = None,
    size: str = "small",
    **hyper: Any,
) -> FlowBuilder:
    """What NPE takes as `density_estimator`: a conditional flow q(theta | x), built from the first simulations.

    name, size, hyper: of a model over vectors, as in `diffeo.zoo.build` (but see `SMALL`). prior: its support becomes
    that of the flow, so that nothing leaks out of it; without one the support is the whole space. Parameters and data
    are standardized in the flow. embedding: a network of x, as in `diffeo.zoo.build`; it sees x of a vector [d] as 2 d
    numbers (`Scaled`).

    Raises ConfigError for an unknown model or a support that is no product of intervals, half lines and lines.
    """
    return FlowBuilder("theta", name, prior, embedding, size, hyper)


def likelihood_estimator(
    name: str = "nsf_autoregressive",
    support: Support = None,
    *,
    embedding: Embedding | None = None,
    size: str = "small",
    **hyper: Any,
) -> FlowBuilder:
    """What NLE takes as `density_estimator`: a conditional flow q(x | theta).

    support: of x; a constraint, such as `torch.distributions.constraints.positive`, or a distribution that has it. The
    rest as for `posterior_estimator`, with theta in place of x.
    """
    return FlowBuilder("x", name, support, embedding, size, hyper)


@dataclass(frozen=True)
class FlowBuilder:
    """Called by sbi with a batch of theta and x, makes a `FlowEstimator` of `target` given the other."""

    target: Literal["theta", "x"]
    name: str
    support: Support
    embedding: Embedding | None
    size: str
    hyper: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        zoo.card(self.name)
        _bounds(self.support)

    def pair(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """The estimator's input and its condition."""
        return (theta, x) if self.target == "theta" else (x, theta)

    def __call__(self, theta: Tensor, x: Tensor) -> FlowEstimator:
        """An estimator with the shapes and the statistics of these rows."""
        _register()
        value, condition = self.pair(theta, x)
        event, given = tuple(value.shape[1:]), tuple(condition.shape[1:])
        net = copy.deepcopy(self.embedding)
        if net is not None and not isinstance(net, Conditioner):
            net = net((0,), context_shape=Scaled(given).out_shape)
        scaled = Scaled(given, net)
        scaled.fit(condition)
        hyper = (SMALL.get(self.name, {}) if self.size == "small" else {}) | self.hyper
        model = zoo.build(self.name, event, given, self.size, embedding=scaled, **hyper)
        low, high = _bounds(self.support)
        parts = list(model.transform) if isinstance(model.transform, Chain) else [model.transform]
        chain = Chain(event, [ToReal(event, _tuple(low, event), _tuple(high, event)), *parts])
        flow = Flow(chain, model.base, embedding=model.embedding, context_shape=model.context_shape)
        flow.provenance = model.provenance
        flow.to(value.dtype).initialize(value, condition)
        return FlowEstimator(flow)


class FlowEstimator(nn.Module):
    """A conditional flow with the methods of sbi's ConditionalDensityEstimator, as which it is registered.

    flow: the flow itself, to save, audit or train. Shapes: input [sample, batch, *event] or [batch, *event]; condition
    [batch, *condition], or with a leading sample axis.
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.net = flow
        if flow.context_shape is None or isinstance(flow.context_shape, dict):
            raise ConfigError(
                f"sbi gives an estimator one condition tensor, but this flow takes {flow.context_shape}"
            )
        self.input_shape = torch.Size(flow.event_shape)
        self.condition_shape = torch.Size(flow.context_shape)

    @property
    def flow(self) -> Flow:
        """The flow."""
        flow = self.net
        assert isinstance(flow, Flow)
        return flow

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _register()

    @property
    def embedding_net(self) -> nn.Module | None:
        """The network that every condition goes through once."""
        return self.flow.embedding

    def log_prob(self, input: Tensor, condition: Tensor, **_: Any) -> Tensor:
        """log q(input | condition), [sample, batch]."""
        if input.ndim <= len(self.input_shape) + 1:
            input = input[None]
        return self.flow.log_prob(input, condition)

    def loss(self, input: Tensor, condition: Tensor, **_: Any) -> Tensor:
        """-log q per row, [batch]."""
        return -self.flow.log_prob(input, condition)

    forward = loss

    def sample(self, sample_shape: Sequence[int], condition: Tensor, **_: Any) -> Tensor:
        """Samples [*sample_shape, batch, *event]."""
        return self.flow.sample(sample_shape, condition)

    def sample_and_log_prob(
        self, sample_shape: Sequence[int], condition: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        """Samples and their log q, [*sample_shape, batch], from one pass."""
        return self.flow.rsample_and_log_prob(sample_shape, condition)


def fit_estimator(
    build: FlowBuilder,
    theta: Tensor,
    x: Tensor,
    *,
    validation_fraction: float = 0.1,
    progress: bool = False,
    **settings: Any,
) -> FlowEstimator:
    """Build an estimator and train it with `diffeo.fit`: a schedule, averaged weights, the best by held-out rows.

    build: of `posterior_estimator` or `likelihood_estimator`. theta: [n, *theta_shape], x: [n, *x_shape].
    validation_fraction: share of the rows, drawn under `seed`, that only choose the weights. settings: as for
    `diffeo.fit`; the defaults that differ are in `FIT`.

    Raises InputError for rows that do not pair or are not finite, and what `diffeo.fit` raises.
    """
    from ..training import fit

    n = len(theta)
    held_out = round(n * validation_fraction)
    if len(x) != n or not 0 < held_out < n:
        raise InputError(
            f"fit_estimator needs as many theta as x, and rows on both sides of validation_fraction "
            f"{validation_fraction}; got {n} and {len(x)}"
        )
    bad = ~(theta.flatten(1).isfinite().all(1) & x.flatten(1).isfinite().all(1))
    if bool(bad.any()):
        raise InputError(
            f"{int(bad.sum())} of {n} simulations hold NaN or infinite values: leave them out (a likelihood is then "
            "biased), or give them finite ones"
        )
    generator = torch.Generator().manual_seed(int(settings.get("seed", 0)))
    order = torch.randperm(n, generator=generator)
    left, right = order[held_out:], order[:held_out]
    estimator = build(theta[left], x[left])
    train, validation = (build.pair(theta[rows], x[rows]) for rows in (left, right))
    fit(estimator.flow, train, validation=validation, progress=progress, **(FIT | settings))
    return estimator


def _register() -> None:
    """Let sbi see what FlowEstimator is, without a base class that would need sbi here."""
    try:
        from sbi.neural_nets.estimators import ConditionalDensityEstimator
    except ImportError as error:
        raise ConfigError("sbi is not installed: pip install 'diffeo[sbi]'") from error
    ConditionalDensityEstimator.register(FlowEstimator)


def _bounds(support: Any) -> tuple[Any, Any]:
    """The lower and the upper bounds of a support, as numbers or tensors; infinite where there is none."""
    if isinstance(support, Distribution):
        support = support.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is None or isinstance(support, type(constraints.real)):
        return -math.inf, math.inf
    if isinstance(support, constraints.cat):
        found = [_bounds(one) for one in support.cseq]
        low, high = (
            torch.cat(
                [torch.as_tensor(v).expand(n) for v, n in zip(side, support.lengths, strict=True)]
            )
            for side in zip(*found, strict=True)
        )
        return low, high
    below, above = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    if (below is None and above is None) or support.is_discrete:
        raise ConfigError(
            f"a flow lives on intervals, half lines and lines, not on {support}: leave the prior out, and sbi "
            "rejects what falls outside of it"
        )
    return -math.inf if below is None else below, math.inf if above is None else above


def _tuple(bound: Any, event: tuple[int, ...]) -> list[float | None]:
    values = torch.as_tensor(bound, dtype=torch.float64).expand(event).flatten().tolist()
    return [v if math.isfinite(v) else None for v in values]
