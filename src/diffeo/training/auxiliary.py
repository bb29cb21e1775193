"""A loss that a layer adds to training, such as Glow's classifier of labels; no likelihood contains it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..errors import ConfigError
from ..flow import Flow
from ..objectives import penalized
from ..transforms import Continuous

Losses = Callable[[Tensor, Any, Any], tuple[Tensor, Tensor]]


def auxiliary(flow: Flow) -> Losses | None:
    """A function of (x, context, noise): -log p and the extra loss, [batch] each, in nats; None for ordinary flows.

    A layer that whitens the coarsest level of the latent has such a loss if it has a method `auxiliary(eps, context)`,
    [batch], in bits that count as much as bits per dimension of the data. Continuous layers have their penalties.

    Raises ConfigError for a flow that embeds its context, which then is no label.
    """
    if any(isinstance(m, Continuous) and m.regularized for m in flow.transform.modules()):
        return penalized(flow)
    layers = [m for m in flow.transform.modules() if hasattr(m, "auxiliary")]
    if not layers:
        return None
    if flow.embedding is not None:
        raise ConfigError(
            "the classifier needs the labels themselves as context, and this flow embeds them: build it with "
            "classifier=0, or without an embedding"
        )
    layer: Any = layers[-1]
    level = flow.levels[-1]
    nats = flow.event_size * math.log(2)

    def losses(x: Tensor, context: Any, noise: Any) -> tuple[Tensor, Tensor]:
        _, rows, context = flow._rows(x, context)
        z, ladj = flow._forward(rows, context, noise)
        eps = z[:, level.slice].reshape(-1, *level.shape)
        nll = -(flow.base.log_prob(z, context) + ladj)
        return nll, nats * layer.auxiliary(eps, context)

    return losses
