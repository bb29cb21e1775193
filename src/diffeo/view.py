"""A flow at a context, seen as a torch distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .flow import Flow
from .properties import REAL
from .transforms.base import Context


class FlowDistribution(Distribution):
    """`flow.at(context)`: batch shape from the context, event shape from the flow."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - the name torch reads

    def __init__(
        self, flow: Flow, context: Context = None, batch_shape: Sequence[int] | None = None
    ) -> None:
        self.flow = flow
        self.context = context
        shape = flow._embed(context)[0] if batch_shape is None else tuple(batch_shape)
        super().__init__(torch.Size(shape), torch.Size(flow.event_shape), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return not self.flow.discrete and self.flow.base.reparameterized

    @property
    def support(self) -> Any:
        """The constraint that samples meet."""
        domain = self.flow.properties.domain
        constraint: Any = constraints.real
        if domain is not None and domain.integer:
            constraint = constraints.integer_interval(int(domain.low), int(domain.high))
        elif domain is not None and domain != REAL:
            constraint = constraints.interval(domain.low, domain.high)
        return constraints.independent(constraint, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> FlowDistribution:
        """The same distribution with a larger batch shape."""
        return FlowDistribution(self.flow, self._context(batch_shape), batch_shape)

    def _context(self, batch_shape: Sequence[int]) -> Context:
        shapes = self.flow.context_shape
        if self.context is None or shapes is None:
            return None
        if isinstance(self.context, dict):
            assert isinstance(shapes, dict)
            return {k: v.expand(*batch_shape, *shapes[k]) for k, v in self.context.items()}
        assert isinstance(shapes, tuple)
        return self.context.expand(*batch_shape, *shapes)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value | context), broadcast over the batch shape."""
        out = self.flow.log_prob(value, self.context)
        return out.expand(torch.broadcast_shapes(out.shape, self.batch_shape))

    def _shape(self, sample_shape: Sequence[int]) -> tuple[int, ...]:
        # A context carries the batch shape itself; without one it is drawn.
        return (
            tuple(sample_shape) if self.context is not None else (*sample_shape, *self.batch_shape)
        )

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Samples [*sample_shape, *batch_shape, *event_shape]."""
        return self.flow.sample(self._shape(sample_shape), self.context)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Samples with gradients to the flow's parameters."""
        return self.flow.rsample_and_log_prob(self._shape(sample_shape), self.context)[0]
