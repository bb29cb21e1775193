"""Pyro: a flow as a distribution in a model or in a guide, and a guide whose posterior is a flow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer.autoguide import AutoContinuous, init_to_median
from torch import Tensor
from torch.distributions import biject_to

from .. import view, zoo
from ..errors import ConfigError, InputError
from ..flow import Flow
from ..parts import Shape

__all__ = ["FlowDistribution", "FlowGuide"]

_INITIAL_POINTS = 1000


class FlowDistribution(view.FlowDistribution, TorchDistributionMixin):  # type: ignore[misc, override]
    """`flow.at(context)` with what `pyro.sample` needs: plates, `to_event`, `mask`, and a call that draws.

    The parameters are learned once the flow is registered: `pyro.module("flow", flow)`.
    """


class _OnePass(FlowDistribution):
    """Gives the log-density of its last draw, once, from the pass that drew it."""

    _last: tuple[Tensor, Tensor] | None = None

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        self._last = self.flow.rsample_and_log_prob(
            sample_shape, self.context, batch_shape=self.batch_shape
        )
        return self._last[0]

    def log_prob(self, value: Tensor) -> Tensor:
        last, self._last = self._last, None
        if last is not None and last[0] is value:
            return last[1]
        return super().log_prob(value)


class FlowGuide(AutoContinuous):
    """q(all latent sites of a model) = a flow over their unconstrained values, for SVI and importance sampling.

    model: a Pyro model with continuous latent sites, in plates or not. build: a callable `event_shape -> Flow`, such as
    `partial(zoo.build, "realnvp")`; neural splines if None. Layers that are fitted to data, such as Standardize, start
    as if the posterior were normal, around init_loc_fn's point and with deviation init_scale; let it be of the order of
    the posterior's, or above: splines bend within a few of it. One pass of the flow draws and scores, so one with a
    fast inverse alone, such as `iaf`, trains as fast as others.

    Raises ConfigError, at the first call, for a latent site in a subsampled plate, and for a flow of another shape or
    without gradients of its samples.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        build: Callable[[Shape], Flow] | None = None,
        *,
        init_loc_fn: Callable[..., Any] = init_to_median,
        init_scale: float = 1.0,
    ) -> None:
        if not init_scale > 0:
            raise InputError(f"init_scale must be positive, got {init_scale}")
        super().__init__(model, init_loc_fn=init_loc_fn)  # type: ignore[no-untyped-call]
        self._build = zoo.nsf_coupling if build is None else build
        self._init_scale = init_scale

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)  # type: ignore[no-untyped-call]
        for name, site in self._sites():
            for frame in site["cond_indep_stack"]:
                if frame.full_size is not None and frame.full_size != frame.size:
                    raise ConfigError(
                        f"the latent site {name!r} is in the subsampled plate {frame.name!r}: a FlowGuide is over all "
                        "latent values at once; subsample observed sites only"
                    )
        loc: Tensor = self._init_loc()  # type: ignore[no-untyped-call]
        flow = self._build((self.latent_dim,))
        if not isinstance(flow, Flow) or flow.event_shape != (self.latent_dim,):
            what = f"a Flow of {flow.event_shape}" if isinstance(flow, Flow) else repr(flow)
            raise ConfigError(f"build must make a Flow of shape ({self.latent_dim},), got {what}")
        if not view.FlowDistribution(flow).has_rsample:
            raise ConfigError("a guide needs samples with gradients, which this flow has not")
        flow = flow.to(device=loc.device, dtype=loc.dtype).eval()
        noise = torch.randn(_INITIAL_POINTS, *loc.shape, dtype=loc.dtype, device=loc.device)
        flow.initialize(loc + self._init_scale * noise)
        self.flow = flow

    def get_posterior(self, *args: Any, **kwargs: Any) -> FlowDistribution:
        """The distribution of the unconstrained values of all sites, one after another."""
        return FlowDistribution(self.flow)

    def sample_latent(self, *args: Any, **kwargs: Any) -> Tensor:
        """Unconstrained values [*plates around, latent_dim], as an auxiliary site."""
        name = f"_{self._pyro_name}_latent"
        latent: Tensor = pyro.sample(name, _OnePass(self.flow), infer={"is_auxiliary": True})
        return latent

    @torch.no_grad()
    def draws(self, n: int, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """n posterior draws of every latent site, [n, *its shape]; args: of the model, if it was never run."""
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        latent = self.flow.sample((n,))
        out, start = {}, 0
        for name, site in self._sites():
            shape = self._unconstrained_shapes[name]
            size = math.prod(shape)
            values = latent[:, start : start + size].reshape(n, *shape)
            out[name] = biject_to(site["fn"].support)(values)
            start += size
        return out

    def _sites(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The latent sites of the model's first run, by name."""
        assert self.prototype_trace is not None
        yield from self.prototype_trace.iter_stochastic_nodes()
