"""Masked autoregressive flows, built alike in every library that has them.

maf: affine maps, networks of two hidden layers. nsf: rational-quadratic splines, networks of one residual block (zuko:
three plain hidden layers, as deep). naf, umnn: maps without a closed inverse; zuko's are networks of their own kind,
with its defaults, and so comparable in what they do, not in size. nflows and normflows have one masked layer more in
their networks, which their constructors do not leave out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import diffeo

from .size import Contestant, Size

BOUND = 3.0
Build = Callable[[Size], Contestant]


def ours(name: str, **options: Any) -> Build:
    def build(size: Size) -> Contestant:
        wide: dict[str, Any] = {"hidden": (size.width, size.width)}
        if name == "nsf_autoregressive":
            wide = {"width": size.width, "blocks": 1, "bins": size.bins, "bound": BOUND}
        flow = diffeo.zoo.build(
            name, (size.features,), layers=size.layers, standardize=False, **wide, **options
        )
        return Contestant(flow, flow, lambda: flow.sample((size.batch,)))

    return build


def _affine(library: Any, size: Size) -> nn.Module:
    layer: nn.Module = library.MaskedAffineAutoregressiveTransform(
        size.features, size.width, num_blocks=2, use_residual_blocks=False
    )
    return layer


def _spline(library: Any, size: Size) -> nn.Module:
    layer: nn.Module = library.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        size.features,
        size.width,
        num_bins=size.bins,
        tails="linear",
        tail_bound=BOUND,
        num_blocks=1,
    )
    return layer


def nflows(layer: Callable[[Any, Size], nn.Module]) -> Build:
    def build(size: Size) -> Contestant:
        import nflows.transforms.autoregressive as library
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.transforms.base import CompositeTransform
        from nflows.transforms.permutations import ReversePermutation

        layers: list[nn.Module] = []
        for _ in range(size.layers):
            layers += [layer(library, size), ReversePermutation(size.features)]
        flow = Flow(CompositeTransform(layers), StandardNormal([size.features]))
        return Contestant(flow, flow.log_prob, lambda: flow.sample(size.batch))

    return build


def normflows(size: Size) -> Contestant:
    import normflows as library

    layers: list[nn.Module] = []
    for _ in range(size.layers):
        if size.bins:
            layer = library.flows.AutoregressiveRationalQuadraticSpline(
                size.features, 1, size.width, num_bins=size.bins, tail_bound=BOUND
            )
        else:
            made = library.flows.MaskedAffineAutoregressive(
                size.features, size.width, num_blocks=2, use_residual_blocks=False
            )
            layer = library.flows.Reverse(made)  # as it comes, sampling is the fast direction
        layers += [layer, library.flows.Permute(size.features, mode="swap")]
    flow = library.NormalizingFlow(library.distributions.DiagGaussian(size.features), layers)
    return Contestant(flow, flow.log_prob, lambda: flow.sample(size.batch)[0])


def zuko(name: str) -> Build:
    def build(size: Size) -> Contestant:
        validate = torch.distributions.Distribution._validate_args
        import zuko as library

        # zuko switches this off for all of torch when it is imported.
        torch.distributions.Distribution.set_default_validate_args(validate)
        depth = 3 if size.bins else 2
        options: dict[str, Any] = {"bins": size.bins} if size.bins else {}
        flow = getattr(library.flows, name)(
            size.features,
            transforms=size.layers,
            hidden_features=(size.width,) * depth,
            **options,
        )

        def log_prob(x: Tensor) -> Tensor:
            value: Tensor = flow().log_prob(x)
            return value

        return Contestant(flow, log_prob, lambda: flow().sample((size.batch,)))

    return build


# By kind, then by the library's name.
KINDS: dict[str, dict[str, Build]] = {
    "maf": {
        "diffeo": ours("maf", batch_norm=False),
        "nflows": nflows(_affine),
        "normflows": normflows,
        "zuko": zuko("MAF"),
    },
    "nsf": {
        "diffeo": ours("nsf_autoregressive", mixing="none"),
        "nflows": nflows(_spline),
        "normflows": normflows,
        "zuko": zuko("NSF"),
    },
    "naf": {"diffeo": ours("naf", units=16), "zuko": zuko("NAF")},
    "umnn": {"diffeo": ours("umnn"), "zuko": zuko("UNAF")},
}
