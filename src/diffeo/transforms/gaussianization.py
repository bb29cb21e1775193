"""Marginal Gaussianization: every entry through a mixture's CDF to N(0, 1), the mixture fitted to data at first.

Meng, Song, Song, Ermon. Gaussianization flows. 2020, arXiv:2003.01941.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..families import Composition, Family, GaussianMixtureCDF, LogisticMixtureCDF, LogisticToNormal
from ..moments import moments
from ..nets import NetFactory
from ..parts import register
from .base import Context
from .elementwise import Elementwise


@register
class MarginalGaussianization(Elementwise):
    """z_i = Phi^-1(F_i(x_i)), F_i the CDF of a mixture of `components` kernels: the layer of a Gaussianization flow.

    kernel: `logistic`, as published, or `gaussian`. The mixtures are learned; a net of the context is added to their
    parameters. `initialize` sets the means to quantiles of each entry and the scales to the published bandwidth
    (4 sqrt(pi) / (pi^4 K))^(1/5) times its deviation, so that each entry starts nearly normal.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        components: int = 8,
        kernel: Literal["logistic", "gaussian"] = "logistic",
        net: nn.Module | NetFactory | None = None,
        *,
        context_shape: Any = None,
    ) -> None:
        if kernel not in ("logistic", "gaussian"):
            raise ConfigError(f"kernel must be logistic or gaussian, got {kernel!r}")
        mixture = (LogisticMixtureCDF if kernel == "logistic" else GaussianMixtureCDF)(components)
        family: Family = mixture
        if kernel == "logistic":
            family = Composition([mixture, LogisticToNormal()])
        super().__init__(event_shape, family, net, context_shape=context_shape)
        self.components = components
        self.kernel = kernel
        self._mixture = (mixture,)  # in a tuple, as it is a part of the family already
        self.params = nn.Parameter(torch.zeros(*self.event_shape, family.num_params))
        self.initialized: Tensor
        self.register_buffer("initialized", torch.tensor(False))

    def _params(self, x: Tensor, context: Context) -> Tensor:
        assert self.params is not None
        if self.net is None:
            return self.params
        change: Tensor = self.net(x.new_empty((x.shape[0], 0)), context)
        return self.params + change.reshape(x.shape[0], *self.params.shape).to(x.dtype)

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        """Fit the mixtures to the rows of x, once. Raises InputError for an empty or non-finite batch."""
        if not bool(self.initialized):
            if not len(x) or not bool(x.isfinite().all()):
                raise InputError(
                    f"{self.name} cannot be initialized from {len(x)} rows"
                    + (" that hold NaN or infinite values" if len(x) else "")
                )
            assert self.params is not None
            k = self.components
            places = (torch.arange(k, dtype=torch.float64, device=x.device) + 0.5) / k
            means = x.double().quantile(places, dim=0).movedim(0, -1)
            # Over the ranks of a distributed run, the mean of their quantiles.
            means = moments(means[None], tuple(means.shape))[0]
            variance = moments(x, self.event_shape)[1]
            std = torch.where(variance > 0, variance, torch.ones_like(variance)).sqrt()
            scales = std[..., None] * (4 * torch.pi**-3.5 / k) ** 0.2
            if self.kernel == "gaussian":
                # A logistic has pi / sqrt(3) times the deviation of a Gaussian of its scale.
                scales = scales * torch.pi / 3**0.5
            self.params.copy_(self._mixture[0].params_of(means, scales.expand_as(means)))
            self.initialized.fill_(True)
        return super().initialize(x, context)

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "components": self.components,
            "kernel": self.kernel,
            "net": self.net,
            "context_shape": self.context_shape,
        }
