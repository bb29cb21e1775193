"""The training loss through torch.compile, where that pays and works."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import zoo
from ..errors import ConfigError
from ..evaluation import LOG2
from ..flow import Flow
from ..objectives import Loss, Objective, flow_matching
from ..tracing import RIGHT
from ..transforms import Continuous
from .auxiliary import auxiliary
from .settings import TrainingSettings

_COUNT = itertools.count()
LossFunction = Callable[[Tensor, Any, Tensor | None, Any, float], Tensor]

# Measured for vectors: compiling takes half a minute (affine) to three (splines) of one core, saves a third to a half
# of a step, and is repaid after 4,600 steps. Convolutional flows take over six minutes, and a CPU spends their steps in
# convolutions, which stay as they are.
WORTH_STEPS, WORTH_MINUTES = 10_000, 20.0


def loss_function(flow: Flow, settings: TrainingSettings) -> LossFunction:
    """-share * sum of w log p(x | context): one process's part of the mean over the global batch.

    Of a flow with an extra loss, [2]: that number, and the same of the extra loss. Under another objective, its loss
    takes the place of -log p.
    """
    matching = matching_loss(flow, settings)
    extra = None if matching is not None else auxiliary(flow)

    def loss(x: Tensor, context: Any, weights: Tensor | None, noise: Any, share: float) -> Tensor:
        if matching is not None:
            each = matching(x, context, noise)
            return share * (each if weights is None else weights * each).sum()
        if extra is not None:
            rows = torch.stack(extra(x, context, noise))
            return share * (rows if weights is None else weights * rows).sum(1)
        log_prob: Tensor = flow(x, context, noise=noise)
        total = (log_prob if weights is None else weights * log_prob).sum()
        return -share * total

    # A code object of its own: torch.compile limits the number of graphs for each.
    loss.__code__ = loss.__code__.replace(co_name=f"loss_{next(_COUNT)}")
    return loss


def matching_loss(flow: Flow, settings: TrainingSettings) -> Loss | None:
    """The loss of flow matching, where that is the objective: of the settings, or of the model's card."""
    if objective(flow, settings) == "maximum_likelihood":
        usual = TrainingSettings()
        for name in ("path", "coupling"):
            if getattr(settings, name) != getattr(usual, name):
                raise ConfigError(
                    f"{name} is of flow matching, and this run is by maximum_likelihood: leave it out, or set "
                    "objective='flow_matching'"
                )
        return None
    return flow_matching(flow, path=settings.path, coupling=settings.coupling)


def objective(flow: Flow, settings: TrainingSettings) -> Objective:
    """What these settings train this flow by."""
    if settings.objective is not None:
        return settings.objective
    name = flow.provenance.get("name")
    return zoo.card(name).objective if name in zoo.names() else "maximum_likelihood"


def unit(flow: Flow, settings: TrainingSettings) -> tuple[str, float]:
    """The unit in which losses are shown, and what a loss is multiplied by."""
    if objective(flow, settings) != "maximum_likelihood":
        return "mean square", 1.0
    return ("bits/dim", 1 / (LOG2 * flow.event_size)) if flow.discrete else ("nats", 1.0)


def wanted(settings: TrainingSettings, steps: int | None, flow: Flow) -> bool:
    """Whether to compile; `auto`: if at least 10,000 steps are planned, or 20 minutes where no steps are.

    On a CPU, `auto` compiles flows of vectors only.
    """
    if settings.compile != "auto":
        return settings.compile == "on"
    if not _has_graph(flow, settings):
        return False
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if len(flow.event_shape) > 1 and (settings.device == "cpu" or not gpu):
        return False
    if steps is None:
        return (settings.minutes or 0) >= WORTH_MINUTES
    return steps >= WORTH_STEPS


def _has_graph(flow: Flow, settings: TrainingSettings) -> bool:
    """Neither steps whose number depends on values, nor an assignment outside torch."""
    if objective(flow, settings) == "flow_matching":
        return settings.coupling == "independent"
    layers = (m for m in flow.transform.modules() if isinstance(m, Continuous))
    return not any(layer.solver.adaptive for layer in layers)


class CompiledLoss:
    """The compiled loss; where the compiler fails, one warning, and the plain one from then on.

    The flow is not wrapped: its state_dict has the same keys.
    """

    def __init__(self, flow: Flow, settings: TrainingSettings) -> None:
        self.flow = flow
        self.plain = loss_function(flow, settings)
        self._run: LossFunction = torch.compile(
            self.plain, fullgraph=True, dynamic=False, options=dict(RIGHT)
        )
        self._tried: set[Any] = set()

    def __call__(
        self, x: Tensor, context: Any, weights: Tensor | None, noise: Any, share: float
    ) -> Tensor:
        # The last batch of an epoch has another size, and another graph.
        kind = (x.shape, share, torch.is_autocast_enabled(x.device.type))
        if self._run is not self.plain and kind not in self._tried:
            self._try(x, context, weights, noise, share)
            self._tried.add(kind)
        return self._run(x, context, weights, noise, share)

    def _try(self, *args: Any) -> None:
        """Forward and backward once, which compiles both; leaves parameters, buffers and generators as they were."""
        buffers = [b.clone() for b in self.flow.buffers()]
        parameters = [p for p in self.flow.parameters() if p.requires_grad]
        try:
            with torch.random.fork_rng():
                torch.autograd.grad(self._run(*args).sum(), parameters, allow_unused=True)
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            warnings.warn(
                f"training goes on without compilation, which failed: {reason[0]}", stacklevel=2
            )
            self._run = self.plain
        finally:
            with torch.no_grad():
                for b, value in zip(self.flow.buffers(), buffers, strict=True):
                    b.copy_(value)
