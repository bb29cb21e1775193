"""Residual flows on vectors and images, beside the peer that is installed: as many terms of the series each.

    python -m benchmarks.residual [--tables 0 1] [--repeats 15] [--threads 1] [--no-compile]

Train step, log_prob and inverse take turns in one process; medians, and the ratio to diffeo, eager. All contestants sum
the same fixed number of terms, with one probe, and keep gradients by the Neumann series; a train step of diffeo holds
its refresh of the power iterations, and that of the peer its own. Both have the weights of a model that was trained for
a while, since a block is almost linear at first, and inverses go to the same step. compiled: torch.compile of log_prob,
of the train step and of the inverse. Stored in results/residual_bench.json, with evaluations of g for each inverse.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import diffeo
from diffeo.distributions import StandardNormal
from diffeo.fixed_points import default_tolerance, recording
from diffeo.nets import LipschitzConvNet, LipschitzMLP
from diffeo.parts import TRAINING_TOLERANCE, refresh
from diffeo.transforms import Chain, Flatten, PowerSeries, Residual

from .measuring import ROOT, Calls, calls, compare, keep, options, peak_memory
from .size import Contestant

FLOOR = "diffeo"
FROZEN = "diffeo, frozen"
TRAIN_SECONDS = 20.0
STEP = 4 * default_tolerance(torch.float32)
"""The peer's inverse goes on until no entry moves by more, in parts of 1 + |x|; by default it stops at 3e-3."""


@dataclass(frozen=True)
class Blocks:
    """A table: `depth` blocks on vectors or images, a batch, and the terms of every series."""

    shape: tuple[int, ...]
    batch: int
    depth: int
    terms: int = 5
    width: int = 64
    coeff: float = 0.9

    def __str__(self) -> str:
        kind = "x".join(map(str, self.shape))
        net = (
            f"{self.width}-{self.width}-{self.width}"
            if len(self.shape) == 1
            else f"3x3, 1x1, 3x3 of {self.width}"
        )
        return f"{self.depth} residual blocks of {net} on {kind}, batch {self.batch}, {self.terms} terms"


TABLES = (Blocks((2,), 512, 10), Blocks((1, 28, 28), 32, 2))


def ours(size: Blocks) -> Contestant:
    net: Any
    if len(size.shape) == 1:
        net = partial(LipschitzMLP, hidden=(size.width,) * 3, coeff=size.coeff, preactivation=True)
    else:
        net = partial(LipschitzConvNet, width=size.width, coeff=size.coeff, preactivation=True)
    block = partial(Residual, net=net, estimator=PowerSeries(size.terms))
    last = [Flatten] if len(size.shape) > 1 else []
    chain = Chain(size.shape, [block] * size.depth + last)
    return entered(diffeo.Flow(chain, StandardNormal(chain.latent_shape)), size)


def entered(flow: diffeo.Flow, size: Blocks) -> Contestant:
    noise = flow.transform.draw(size.batch)
    z = torch.randn(size.batch, *flow.latent_shape)

    def log_prob(x: Tensor) -> Tensor:
        out: Tensor = flow(x, noise=noise)
        return out

    return Contestant(flow, log_prob, lambda: flow.decode(z))


def normflows(size: Blocks) -> Contestant:
    import normflows as library

    blocks = []
    for _ in range(size.depth):
        if len(size.shape) == 1:
            layers = [*size.shape, *(size.width,) * 3, *size.shape]
            net = library.nets.LipschitzMLP(layers, init_zeros=False, lipschitz_const=size.coeff)
        else:
            net = library.nets.LipschitzCNN(
                [size.shape[0], size.width, size.width, size.shape[0]],
                [3, 1, 3],
                lipschitz_const=size.coeff,
                init_zeros=False,
            )
        # A series of fixed length, as ours, which it sums in training mode only.
        block = library.flows.Residual(
            net,
            reverse=True,
            reduce_memory=True,
            n_power_series=size.terms,
        )
        blocks.append(block)
    flow = torch.nn.ModuleList(blocks)
    normal = torch.distributions.Normal(0.0, 1.0)

    def log_prob(x: Tensor) -> Tensor:
        total: Any = 0.0
        for block in flow:
            x, ladj = block.inverse(x)
            total = total + ladj.reshape(-1)
        return normal.log_prob(x).flatten(1).sum(1) + total

    z = torch.randn(size.batch, *size.shape)

    def inverse() -> Tensor:
        x = z
        for block in reversed(flow):
            x = block.iresblock._inverse_fixed_point(x, STEP**2, STEP**2)
        return x

    return Contestant(flow, log_prob, inverse)


def contestants() -> dict[str, Callable[[Blocks], Contestant]]:
    """By the name under which they are shown."""
    peers = {"normflows": normflows} if find_spec("normflows") else {}
    return {FLOOR: ours, FROZEN: ours} | peers


def data(size: Blocks) -> Tensor:
    """Points of eight Gaussians, or digits of the right size."""
    if len(size.shape) == 1:
        return diffeo.data.density("8gaussians").sample(
            20_000, generator=torch.Generator().manual_seed(0)
        )
    x = F.interpolate(diffeo.data.load("digits").train.float(), size.shape[1:], mode="bilinear")
    return (x - x.mean()) / x.std() + 0.1 * torch.randn_like(x)


@cache
def trained(size: Blocks, seconds: float) -> list[dict[str, Tensor]]:
    """The parameters of every layer with some, in their order."""
    torch.manual_seed(0)
    flow, x = ours(size).module, data(size)
    assert isinstance(flow, diffeo.Flow)
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        optimizer.zero_grad()
        (-flow(x[torch.randint(len(x), (min(size.batch, 64),))]).mean()).backward()
        optimizer.step()
        refresh(flow, TRAINING_TOLERANCE)
    return _layers(flow)


def _layers(module: torch.nn.Module) -> list[dict[str, Tensor]]:
    """Those of linear maps and activations; of an activation the peer says beta."""
    found = []
    for m in module.modules():
        own = {k.replace("beta", "raw"): v for k, v in m.named_parameters(recurse=False)}
        found.append({k: own[k] for k in ("weight", "bias", "raw") if k in own})
    return [own for own in found if own]


def made(name: str, size: Blocks) -> Contestant:
    """With the trained weights."""
    torch.manual_seed(0)
    contestant = contestants()[name](size)
    pairs = zip(_layers(contestant.module), trained(size, TRAIN_SECONDS), strict=True)
    with torch.no_grad():
        for mine, theirs in pairs:
            for key, value in mine.items():
                value.copy_(theirs[key].reshape(value.shape))
    _refresh(name, contestant, 200)
    if name != FROZEN:
        return contestant
    flow = contestant.module
    assert isinstance(flow, diffeo.Flow)
    return entered(flow.frozen(), size)


def enter(name: str, size: Blocks, *, compiled: bool) -> Calls:
    contestant = made(name, size)
    found = calls(contestant, torch.randn(size.batch, *size.shape), compiled=compiled)
    del found["sample"]
    # Of a model of its own, which no step changes in between.
    inverse = made(name, size).sample
    if compiled:
        inverse = torch.compile(inverse, dynamic=False)
    found["inverse"] = torch.no_grad()(inverse)
    if "train step" not in found:
        return found
    step = found["train step"]

    def whole() -> None:
        step()
        _refresh(name, contestant, 5)

    return found | {"train step": whole}


def _refresh(name: str, contestant: Contestant, steps: int) -> None:
    """Our power iterations, to their tolerance, or so many steps of the peer's, 5 after a training step."""
    if name != "normflows":
        return refresh(contestant.module, TRAINING_TOLERANCE)
    import normflows as library

    library.utils.update_lipschitz(contestant.module, steps)
    return None


def evaluations(size: Blocks) -> float:
    """Of g, for each layer and example of an inverse."""
    contestant = made(FLOOR, size)
    with torch.no_grad(), recording() as found:
        contestant.sample()
    return sum(float(s.steps.double().mean()) for _, s in found) / len(found)


def main() -> None:
    parser = options(__doc__, TABLES)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory", nargs=2, metavar=("NAME", "TABLE"), help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help="small batches, to try the script")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tables = tuple(replace(t, batch=2) for t in TABLES) if arguments.tiny else TABLES
    if arguments.memory:
        name, index = arguments.memory
        print(peak_memory(enter(name, tables[int(index)], compiled=False)["train step"]))
        return
    path = ROOT / "results" / "residual_bench.json"
    document = compare(
        "benchmarks.residual",
        path,
        arguments,
        arguments.tables,
        tables,
        floor=FLOOR,
        names=lambda size: list(contestants()),
        enter=enter,
        compilable=lambda name: name in (FLOOR, FROZEN),
        libraries=[n for n in ("diffeo", "normflows") if find_spec(n)],
    )
    document["evaluations"] = {str(tables[i]): evaluations(tables[i]) for i in arguments.tables}
    keep(path, document)


if __name__ == "__main__":
    main()
