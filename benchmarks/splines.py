"""Couplings by rational-quadratic splines, built alike in every library: MLPs of two hidden layers, tails at 3.

FrEIA 0.2 has none. zuko's networks also give numbers for the half that stays, which it does not use.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import diffeo

from .size import Contestant, Size, as_context_net, bare_networks

BOUND = 3.0


def outputs(size: Size) -> int:
    """Of one coupling's network: widths, heights and inner slopes for half of the entries."""
    return size.features // 2 * (3 * size.bins - 1)


def bare(size: Size) -> Contestant:
    return bare_networks(size, outputs(size))


def ours(size: Size) -> Contestant:
    flow = diffeo.zoo.build(
        "nsf_coupling",
        (size.features,),
        layers=size.layers,
        hidden=(size.width, size.width),
        bins=size.bins,
        bound=BOUND,
        mixing="none",
        unconditional=False,
        standardize=False,
    )
    return Contestant(flow, flow, lambda: flow.sample((size.batch,)))


def nflows(size: Size) -> Contestant:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import PiecewiseRationalQuadraticCouplingTransform

    couplings = CompositeTransform(
        [
            PiecewiseRationalQuadraticCouplingTransform(
                (torch.arange(size.features) + i) % 2,
                as_context_net(size),
                num_bins=size.bins,
                tails="linear",
                tail_bound=BOUND,
            )
            for i in range(size.layers)
        ]
    )
    flow = Flow(couplings, StandardNormal([size.features]))
    return Contestant(flow, flow.log_prob, lambda: flow.sample(size.batch))


def normflows(size: Size) -> Contestant:
    import normflows as library
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

    class Coupling(library.flows.Flow):  # type: ignore[misc]
        """The library's own spline layer, with our network in place of its residual one."""

        def __init__(self, i: int) -> None:
            super().__init__()
            self.coupling = PiecewiseRationalQuadraticCoupling(
                (torch.arange(size.features) + i) % 2,
                as_context_net(size),
                num_bins=size.bins,
                tails="linear",
                tail_bound=BOUND,
            )

        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            x, ladj = self.coupling.inverse(z)
            return x, ladj.view(-1)

        def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z, ladj = self.coupling(x)
            return z, ladj.view(-1)

    flow = library.NormalizingFlow(
        library.distributions.DiagGaussian(size.features),
        [Coupling(i) for i in range(size.layers)],
    )
    return Contestant(flow, flow.log_prob, lambda: flow.sample(size.batch)[0])


def zuko(size: Size) -> Contestant:
    validate = torch.distributions.Distribution._validate_args
    import zuko as library

    # zuko switches this off for all of torch when it is imported.
    torch.distributions.Distribution.set_default_validate_args(validate)
    flow = library.flows.NSF(
        size.features,
        transforms=size.layers,
        bins=size.bins,
        passes=2,
        hidden_features=(size.width, size.width),
    )
    return Contestant(flow, lambda x: flow().log_prob(x), lambda: flow().sample((size.batch,)))


# By the names of contestants.CONTESTANTS.
CONTESTANTS: dict[str, Callable[[Size], Contestant]] = {
    "bare networks": bare,
    "diffeo": ours,
    "nflows": nflows,
    "normflows": normflows,
    "zuko": zuko,
}
