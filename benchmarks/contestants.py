"""Real NVP on vectors, built alike in every library: affine couplings, MLPs of two hidden layers; all contestants."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

import diffeo

from . import splines
from .size import Contestant, Size, as_context_net, bare_networks, mlp


def bare(size: Size) -> Contestant:
    return bare_networks(size, size.features)


def ours(size: Size) -> Contestant:
    flow = diffeo.zoo.build(
        "realnvp",
        (size.features,),
        layers=size.layers,
        hidden=(size.width, size.width),
        standardize=False,
    )
    return Contestant(flow, flow, lambda: flow.sample((size.batch,)))


def nflows(size: Size) -> Contestant:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AffineCouplingTransform

    masks = [(torch.arange(size.features) + i) % 2 for i in range(size.layers)]
    couplings = CompositeTransform(
        [AffineCouplingTransform(m, as_context_net(size)) for m in masks]
    )
    flow = Flow(couplings, StandardNormal([size.features]))
    return Contestant(flow, flow.log_prob, lambda: flow.sample(size.batch))


def normflows(size: Size) -> Contestant:
    import normflows as library

    half = size.features // 2
    layers: list[nn.Module] = []
    for _ in range(size.layers):
        net = library.nets.MLP([half, size.width, size.width, size.features], init_zeros=True)
        layers += [
            library.flows.AffineCouplingBlock(net, scale_map="exp"),
            library.flows.Permute(size.features, mode="swap"),
        ]
    flow = library.NormalizingFlow(library.distributions.DiagGaussian(size.features), layers)
    return Contestant(flow, flow.log_prob, lambda: flow.sample(size.batch)[0])


def freia(size: Size) -> Contestant:
    import FrEIA.framework as framework
    import FrEIA.modules as modules

    flow = framework.SequenceINN(size.features)
    for _ in range(size.layers):
        # One coupling with a permutation; its scaling of all entries cannot be left out.
        flow.append(
            modules.AllInOneBlock,
            subnet_constructor=lambda i, o: mlp(i, o, size.width),
            reverse_permutation=True,
        )

    def log_prob(x: Tensor) -> Tensor:
        z, ladj = flow(x)
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + ladj

    return Contestant(
        flow, log_prob, lambda: flow(torch.randn(size.batch, size.features), rev=True)[0]
    )


def zuko(size: Size) -> Contestant:
    validate = torch.distributions.Distribution._validate_args
    import zuko as library

    # zuko switches this off for all of torch when it is imported.
    torch.distributions.Distribution.set_default_validate_args(validate)
    flow = library.flows.NICE(
        size.features, transforms=size.layers, hidden_features=(size.width, size.width)
    )
    return Contestant(flow, lambda x: flow().log_prob(x), lambda: flow().sample((size.batch,)))


# By the name under which they are shown, with the module that must be importable.
CONTESTANTS: dict[str, tuple[Callable[[Size], Contestant], str]] = {
    "bare networks": (bare, "torch"),
    "diffeo": (ours, "diffeo"),
    "nflows": (nflows, "nflows"),
    "normflows": (normflows, "normflows"),
    "FrEIA": (freia, "FrEIA"),
    "zuko": (zuko, "zuko"),
}


def installed(size: Size | None = None) -> tuple[str, ...]:
    """Names of the contestants whose library is here, and has the couplings of this size."""
    here = (name for name, (_, module) in CONTESTANTS.items() if find_spec(module))
    return tuple(n for n in here if size is None or not size.bins or n in splines.CONTESTANTS)


def build(name: str, size: Size) -> Contestant:
    """A contestant under a fixed seed."""
    torch.manual_seed(0)
    make = splines.CONTESTANTS[name] if size.bins else CONTESTANTS[name][0]
    return make(size)
