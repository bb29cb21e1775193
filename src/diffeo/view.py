"""A flow at a context, seen as a torch distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .flow import Flow
from .properties import Domain
from .transforms.base import Context


class FlowDistribution(Distribution):
    """`flow.at(context)`: batch shape from the context, event shape from the flow.

    A view: it holds the flow itself, and every call embeds each row of the context once, however much the batch shape
    was expanded. mean, variance and entropy raise NotImplementedError, as torch's own do where there is no formula.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - the name torch reads

    def __init__(
        self,
        flow: Flow,
        context: Context = None,
        batch_shape: Sequence[int] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.flow = flow
        self.context = context
        if batch_shape is None:
            # Not by the embedding: the shape is known before it.
            batch_shape = _batch(flow, context)
        super().__init__(
            torch.Size(batch_shape), torch.Size(flow.event_shape), validate_args=validate_args
        )

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return not self.flow.dequantized and self.flow.base.reparameterized

    @property
    def support(self) -> Any:
        """The constraint that samples meet, on whole events."""
        # A transform that keeps whatever domain it is given has that of the base.
        domain = self.flow.properties.domain or self.flow.base.domain
        return constraints.independent(_constraint(domain), len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> FlowDistribution:
        """The same distribution with a larger batch shape, which the present one broadcasts to."""
        shape = torch.Size(batch_shape)
        torch.empty(self.batch_shape, device="meta").expand(shape)
        new: FlowDistribution = self._get_checked_instance(FlowDistribution, _instance)  # type: ignore[no-untyped-call]
        new.flow, new.context = self.flow, self.context
        super(FlowDistribution, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value | context), broadcast over the batch shape."""
        if self._validate_args:
            self._validate_sample(value)
        out = self.flow.log_prob(value, self.context)
        return out.expand(torch.broadcast_shapes(out.shape, self.batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Samples [*sample_shape, *batch_shape, *event_shape]."""
        return self.flow.sample(sample_shape, self.context, batch_shape=self.batch_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Samples with gradients to the flow's parameters and to the context."""
        return self.flow.rsample_and_log_prob(
            sample_shape, self.context, batch_shape=self.batch_shape
        )[0]


def _batch(flow: Flow, context: Context) -> Sequence[int]:
    if context is None or flow.context_shape is None:
        return flow._embed(context)[0]  # raises where one is there without the other
    return flow._context_rows(context)[0]


def _constraint(domain: Domain) -> Any:
    low, high = math.isfinite(domain.low), math.isfinite(domain.high)
    if domain.integer:
        if low and high:
            return constraints.integer_interval(int(domain.low), int(domain.high))
        if low:
            return constraints._IntegerGreaterThan(int(domain.low))
        return constraints._IntegerLessThan(int(domain.high)) if high else _INTEGER
    if low and high:
        return constraints.interval(domain.low, domain.high)
    if low:
        return constraints.greater_than(domain.low)
    return constraints.less_than(domain.high) if high else constraints.real


class _Integer(constraints.Constraint):
    """Any integer."""

    is_discrete = True

    def check(self, value: Tensor) -> Any:
        return (value % 1 == 0) & (value == value)


_INTEGER = _Integer()
