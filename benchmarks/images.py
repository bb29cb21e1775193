"""Glow and single couplings on images, beside the bare convolutions and the peers that are installed.

    python -m benchmarks.images [--tables 0 1] [--repeats 15] [--threads 1] [--no-compile]

Train step, log_prob and sample take turns in one process; medians, and the ratio to the bare convolutions in the same
mode, which is the floor. diffeo also frozen (constants folded), compiled, and with its networks in bfloat16 by
autocast, which helps where the processor has such instructions. Stored in results/images_bench.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import diffeo
from diffeo.families import Affine
from diffeo.nets import GlowConv, ZeroConv
from diffeo.transforms import Chain, Coupling, Flatten, Permutation

from .measuring import ROOT, Calls, calls, compare, options, peak_memory
from .size import Contestant

FLOOR = "bare convolutions"


@dataclass(frozen=True)
class Images:
    """A table: Glow of `depth` steps on each of `scales` scales, or (scales 0) a stack of `depth` couplings."""

    channels: int
    side: int
    batch: int
    width: int
    depth: int
    scales: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.side, self.side)

    def __str__(self) -> str:
        kind = (
            f"Glow, {self.scales} scales of {self.depth} steps"
            if self.scales
            else f"{self.depth} affine couplings"
        )
        return f"{kind}, {self.channels}x{self.side}x{self.side}, batch {self.batch}, width {self.width}"


TABLES = (Images(3, 32, 32, 128, 8, scales=3), Images(12, 16, 32, 128, 8))


def convolutions(inputs: int, outputs: int, width: int) -> nn.Sequential:
    """The network of a coupling, without anything of a flow's."""
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, outputs, 3, padding=1),
    )


def bare(size: Images) -> Contestant:
    """Plain convolutions of the shapes of every network in diffeo's flow, each on noise."""
    nets, inputs = nn.ModuleList(), []
    for net in ours(size).module.modules():
        if isinstance(net, GlowConv | ZeroConv):
            c, h, w = net.in_shape
            out = net.out_channels
            plain = (
                convolutions(c, out, net.width)
                if isinstance(net, GlowConv)
                else nn.Conv2d(c, out, 3, padding=1)
            )
            nets.append(plain.to(memory_format=torch.channels_last))
            inputs.append(torch.randn(size.batch, c, h, w).to(memory_format=torch.channels_last))

    def run(x: Tensor) -> Tensor:
        return torch.stack(
            [net(i).sum((1, 2, 3)) for net, i in zip(nets, inputs, strict=True)]
        ).sum(0)

    return Contestant(nets, run, lambda: run(inputs[0]))


def ours(size: Images, *, frozen: bool = False, bfloat16: bool = False) -> Contestant:
    if size.scales:
        flow = diffeo.zoo.build(
            "glow",
            size.shape,
            levels=None,
            standardize=False,
            scales=size.scales,
            depth=size.depth,
            width=size.width,
        )
    else:
        couple = partial(
            Coupling, family=Affine("sigmoid"), net=partial(GlowConv, width=size.width)
        )
        flow = diffeo.Flow(Chain(size.shape, [*[couple, Permutation] * size.depth, Flatten]))
    flow.initialize(torch.randn(size.batch, *size.shape))
    if frozen:
        flow = flow.frozen()

    def low() -> Any:
        return torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext()

    def log_prob(x: Tensor) -> Tensor:
        with low():
            out: Tensor = flow(x)
            return out

    def sample() -> Tensor:
        with low():
            return flow.sample((size.batch,))

    return Contestant(flow, log_prob, sample)


def normflows(size: Images) -> Contestant:
    import normflows as library

    c, side, scales = size.channels, size.side, size.scales
    bases, merges, flows = [], [], []
    # From the coarsest scale up; all but the coarsest leave half of their channels behind.
    for i in range(scales):
        inner = c * 2 ** (scales + 1 - i)
        steps = [library.flows.GlowBlock(inner, size.width) for _ in range(size.depth)]
        flows.append([*steps, library.flows.Squeeze()])
        pixels = side // 2 ** (scales - i)
        bases.append(library.distributions.GlowBase((inner // 2 if i else inner, pixels, pixels)))
        if i:
            merges.append(library.flows.Merge())
    flow = library.MultiscaleFlow(bases, flows, merges)
    return Contestant(flow, lambda x: flow.log_prob(x, None), lambda: flow.sample(size.batch)[0])


def freia(size: Images) -> Contestant:
    import FrEIA.framework as framework
    import FrEIA.modules as modules

    flow = framework.SequenceINN(*size.shape)
    for _ in range(size.depth):
        # One coupling with a permutation; its scaling of all channels cannot be left out.
        flow.append(
            modules.AllInOneBlock,
            subnet_constructor=lambda i, o: convolutions(i, o, size.width),
            permute_soft=False,
        )

    def log_prob(x: Tensor) -> Tensor:
        z, ladj = flow(x)
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((1, 2, 3)) + ladj

    return Contestant(
        flow, log_prob, lambda: flow(torch.randn(size.batch, *size.shape), rev=True)[0]
    )


def contestants(size: Images) -> dict[str, Callable[[Images], Contestant]]:
    """By the name under which they are shown."""
    peer = {"normflows": normflows} if size.scales else {"FrEIA": freia}
    return {
        FLOOR: bare,
        "diffeo": ours,
        "diffeo, frozen": partial(ours, frozen=True),
        "diffeo, bfloat16": partial(ours, bfloat16=True),
    } | {name: make for name, make in peer.items() if find_spec(name)}


def build(name: str, size: Images) -> Contestant:
    """A contestant under a fixed seed."""
    torch.manual_seed(0)
    return contestants(size)[name](size)


def enter(name: str, size: Images, *, compiled: bool) -> Calls:
    return calls(build(name, size), torch.randn(size.batch, *size.shape), compiled=compiled)


def main() -> None:
    parser = options(__doc__, TABLES)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory", nargs=2, metavar=("NAME", "TABLE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        name, index = arguments.memory
        print(peak_memory(enter(name, TABLES[int(index)], compiled=False)["train step"]))
        return
    compare(
        "benchmarks.images",
        ROOT / "results" / "images_bench.json",
        arguments,
        arguments.tables,
        TABLES,
        floor=FLOOR,
        names=lambda size: list(contestants(size)),
        enter=enter,
        compilable=lambda name: name in (FLOOR, "diffeo", "diffeo, frozen"),
        libraries=[n for n in ("diffeo", "normflows", "FrEIA") if find_spec(n)],
    )


if __name__ == "__main__":
    main()
