"""check_flow: the transform of a flow, and everything that its users call."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..flow import Flow
from ..transforms import Transform
from .behaviour import BEHAVIOUR_CHECKS
from .bijection import BIJECTION_CHECKS
from .case import Args, Case, Outputs, cast
from .execution import COPY_CHECKS, RUN_CHECKS
from .flow_checks import PUBLIC_CHECKS
from .randomize import draw_context, draw_event, randomize
from .report import Check, Report, run
from .transforms import (
    check_declared_properties,
    check_integers,
    check_noise,
    transform_case,
)


class _Embedded(Transform):
    """A transform that sees the embedding of its context, as in the flow."""

    def __init__(self, flow: Flow) -> None:
        super().__init__(
            flow.event_shape, latent_shape=flow.latent_shape, context_shape=flow.context_shape
        )
        self.transform = flow.transform
        self.embedding = flow.embedding
        self.properties = flow.properties

    def _embed(self, context: Any) -> Any:
        return context if self.embedding is None else self.embedding(context)

    def forward(self, x: Tensor, context: Any = None, noise: Any = None) -> tuple[Tensor, Tensor]:
        more = (noise,) if self.stochastic else ()
        z, ladj = self.transform(x, self._embed(context), *more)
        return z, ladj

    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(z, self._embed(context))

    def initialize(self, x: Tensor, context: Any = None) -> Tensor:
        return self.transform.initialize(x, self._embed(context))

    @property
    def stochastic(self) -> bool:
        return self.transform.stochastic

    def draw(self, n: int, **options: Any) -> Any:
        return self.transform.draw(n, **options)

    @property
    def levels(self) -> Any:
        return self.transform.levels


def check_flow(
    flow: Flow,
    x: Tensor | None = None,
    context: Any = None,
    *,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    backend: str = "aot_eager",
    seed: int = 0,
    scale: float = 1.0,
    batch: int = 3,
    randomized: bool = True,
) -> Report:
    """Test a flow against the contract; see `FLOW_CHECKS` for the names of the checks.

    The mathematics is that of `flow.continuous`, which is exact for integer data; the rest is of the flow itself. Works
    on float64 copies with random parameters (as they are with randomized=False), and leaves the flow as it is. x: rows
    of events, integers for integer data. Events of one or two entries are also integrated and sampled.

    Raises CheckFailed, which lists every failed check by name with its numbers.

    >>> import diffeo
    >>> flow = diffeo.zoo.build("nice", (2,), size="tiny")
    >>> check_flow(flow, checks=["jacobian", "log_prob_identity"]).passed
    ('jacobian', 'log_prob_identity')
    """
    module = copy.deepcopy(flow).double().eval()
    if randomized:
        randomize(module, seed, scale)
    if x is None:
        x = draw_event(module.properties.domain, module.event_shape, batch, seed)
    x = cast(x.detach(), torch.float64)
    if context is None:
        context = draw_context(module.context_shape, len(x), seed)
    context = cast(context, torch.float64)
    noise = None
    if module.transform.stochastic:
        g = torch.Generator().manual_seed(seed)
        noise = module.transform.draw(len(x), generator=g, like=module.base.like)
    inner = _Embedded(module.continuous)
    real = None if module.dequantized else x
    inner_case = transform_case(inner, real, context, backend, seed, batch=len(x), randomized=False)
    flow_case = Case(
        name="Flow",
        module=module,
        args=(x, context, noise),
        apply=_log_prob,
        stochastic=module.transform.stochastic,
        backend=backend,
        seed=seed,
        inexact=inner_case.inexact,
        randomized=randomized,
    )
    discrete_case = inner_case
    if module.dequantized:
        first = next(iter(module.transform))  # type: ignore[call-overload]
        discrete_case = transform_case(first, x, seed=seed, randomized=False)
    suites: list[tuple[dict[str, Check], Any]] = [
        (_MATHS, inner_case),
        (_DISCRETE, discrete_case),
        (PUBLIC_CHECKS, flow_case),
        (_RUNS, flow_case),
    ]
    name = flow.provenance.get("name") or f"Flow on {flow.transform.name}"
    return run(str(name), suites, checks, skip)


def _log_prob(module: nn.Module, args: Args) -> Outputs:
    x, context, noise = args
    return (module(x, context, noise=noise),)


_OF_THE_FLOW = (
    "initialization",
    "context_used",
)  # a context may reach the density by the base alone
_MATHS: dict[str, Check] = {
    **BIJECTION_CHECKS,
    **{k: v for k, v in BEHAVIOUR_CHECKS.items() if k not in _OF_THE_FLOW},
    "declared_properties": check_declared_properties,
}
_DISCRETE: dict[str, Check] = {"noise": check_noise, "integers": check_integers}
_RUNS: dict[str, Check] = {
    **{k: BEHAVIOUR_CHECKS[k] for k in _OF_THE_FLOW},
    **COPY_CHECKS,
    **RUN_CHECKS,
}
FLOW_CHECKS: dict[str, Check] = {**_MATHS, **_DISCRETE, **PUBLIC_CHECKS, **_RUNS}
