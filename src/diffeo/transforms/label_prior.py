"""The class-conditional Gaussian of Glow's last scale, with the classifier that its training may add.

Kingma & Dhariwal, Glow, 2018, arXiv:1807.03039, and its released code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..families import Affine, Inverted
from ..nets import PerChannel
from ..parts import register
from .base import Context
from .elementwise import Elementwise


@register
class LabelPrior(Elementwise):
    """eps = (z - mu(y)) / sigma(y), mu and log sigma per channel linear in the label y, zero at first; |log sigma| < 3.

    event_shape: [C, H, W] of z. context_shape: (classes,), of one-hot labels, or of probabilities. classifier: weight
    of `auxiliary`, which only training asks for.
    Raises ConfigError for a context that is no label, or a negative weight.
    """

    def __init__(
        self, event_shape: Sequence[int], context_shape: Any, classifier: float = 0.01
    ) -> None:
        super().__init__(
            event_shape, Inverted(Affine("clamp")), PerChannel, context_shape=context_shape
        )
        if not isinstance(self.context_shape, tuple) or len(self.context_shape) != 1:
            raise ConfigError(
                f"{self.name} needs a one-hot label (classes,) as context, got {context_shape}"
            )
        if not classifier >= 0:
            raise ConfigError(
                f"{self.name} needs a classifier weight of 0 or more, got {classifier}"
            )
        self.classifier = classifier
        self.head = nn.Linear(self.event_shape[0], self.context_shape[0])
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def logits(self, z: Tensor) -> Tensor:
        """log p(y | z) + constant, [batch, classes], from z [batch, *event_shape] before it is whitened."""
        out: Tensor = self.head(z.mean((2, 3)))
        return out

    def auxiliary(self, eps: Tensor, context: Context) -> Tensor:
        """-classifier * log2 p(y | mean of z over its pixels), [batch]: training adds it to the bits per dimension."""
        assert isinstance(context, Tensor)
        z = self.decode(eps, context)
        cross_entropy = -(context * self.logits(z).log_softmax(1)).sum(1)
        return self.classifier * cross_entropy / math.log(2)

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "context_shape": self.context_shape,
            "classifier": self.classifier,
        }
