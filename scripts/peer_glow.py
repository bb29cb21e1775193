"""A normflows Glow inside a diffeo Flow, so that both libraries' models have one loop, one noise, one evaluation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from diffeo.flow import Flow
from diffeo.properties import Properties
from diffeo.transforms import Chain, Transform
from diffeo.zoo.preprocessing import preprocessing


class PeerGlow(Transform):
    """eps = (f(x) - loc) / scale, f normflows' multi-scale Glow, loc and scale those of its Gaussians.

    x: [batch, C, H, W]; eps: [batch, C H W], the latents of the coarsest scale first. As in the library's own example
    the Gaussians are diagonal, with parameters for every entry.
    """

    properties = Properties()

    def __init__(self, event_shape: Any, *, scales: int, depth: int, width: int) -> None:
        super().__init__(event_shape, latent_shape=(math.prod(event_shape),))
        self.flow = multiscale(self.event_shape, scales, depth, width)
        # normflows' actnorms set themselves on their first batch; this flag says that they have seen it.
        self.initialized: Tensor
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        latents, ladj = self.flow.inverse_and_log_det(x)
        eps = []
        for z, base in zip(latents, self.flow.q0, strict=True):
            eps.append(((z - base.loc) * (-base.log_scale).exp()).flatten(1))
            ladj = ladj - base.log_scale.sum()
        return torch.cat(eps, 1), ladj

    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        pieces = z.split([base.loc.numel() for base in self.flow.q0], 1)
        latents, shift = [], z.new_zeros(())
        for eps, base in zip(pieces, self.flow.q0, strict=True):
            latents.append(eps.reshape(-1, *base.loc.shape[1:]) * base.log_scale.exp() + base.loc)
            shift = shift + base.log_scale.sum()
        x, ladj = self.flow.forward_and_log_det(latents)
        return x, ladj + shift

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Any = None) -> Tensor:
        self.initialized.fill_(True)
        z: Tensor = self(x)[0]
        return z


def multiscale(shape: tuple[int, ...], scales: int, depth: int, width: int) -> Any:
    """normflows' model as its example builds it, from the coarsest scale up."""
    import normflows as library

    c, h, w = shape
    bases, merges, flows = [], [], []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.lu is deprecated")
        for i in range(scales):
            inner, factor = c * 2 ** (scales + 1 - i), 2 ** (scales - i)
            steps = [library.flows.GlowBlock(inner, width) for _ in range(depth)]
            flows.append([*steps, library.flows.Squeeze()])
            latent = (inner // 2 if i else inner, h // factor, w // factor)
            bases.append(library.distributions.DiagGaussian(latent))
            merges += [library.flows.Merge()] if i else []
        return library.MultiscaleFlow(bases, flows, merges, class_cond=False)


def peer_glow(
    shape: tuple[int, ...],
    levels: int,
    *,
    scales: int,
    depth: int,
    width: int,
    seed: int,
    alpha: float | None = None,
) -> Flow:
    """The model over integers: uniform noise, and a logit or the interval [-1/2, 1/2], as our Glow has them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = preprocessing(shape, levels, alpha=alpha, interval=(-0.5, 0.5))
        body = partial(PeerGlow, scales=scales, depth=depth, width=width)
        return Flow(Chain(shape, [*first, body]))


@contextmanager
def adamax() -> Iterator[None]:
    """Train with the optimizer of the library's example: Adamax with an L2 penalty of 1e-5."""
    from diffeo.training.module import MaximumLikelihood

    def optimizer(self: MaximumLikelihood) -> torch.optim.Optimizer:
        return torch.optim.Adamax(self.flow.parameters(), lr=self.settings.lr, weight_decay=1e-5)

    with mock.patch.object(MaximumLikelihood, "configure_optimizers", optimizer):
        yield
