"""Glow and single couplings on images, beside the bare convolutions and the peers that are installed.

    python -m benchmarks.images [--tables 0 1] [--repeats 15] [--threads 1] [--no-compile]

Train step, log_prob and sample take turns in one process; medians, and the ratio to the bare convolutions, which is the
floor. diffeo also frozen (constants folded), compiled, and with its networks in bfloat16 by autocast, which helps where
the processor has such instructions. Stored in results/images_bench.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import diffeo
from diffeo.families import Affine
from diffeo.files import write_atomically
from diffeo.nets import GlowConv, ZeroConv
from diffeo.training.machines import processor
from diffeo.transforms import Chain, Coupling, Flatten, Permutation

from .__main__ import ROOT, Call, calls, child, interleaved, resident
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


def enter(name: str, size: Images, *, compiled: bool = False) -> dict[str, Call]:
    made = calls(build(name, size), torch.randn(size.batch, *size.shape), compiled=compiled)
    if "frozen" in name:
        del made["train step"]
    return made


def prepare(size: Images, compile_all: bool) -> tuple[dict[str, dict[str, Call]], dict[str, Any]]:
    """Every contestant's calls, and how long compiling the floor and diffeo took."""
    entered = {name: enter(name, size) for name in contestants(size)}
    compiling: dict[str, Any] = {}
    for name in (FLOOR, "diffeo", "diffeo, frozen") if compile_all else ():
        torch._dynamo.reset()
        made = enter(name, size, compiled=True)
        start = time.perf_counter()
        try:
            for call in made.values():
                call()
        except Exception as error:
            compiling[name] = f"fails: {type(error).__name__}"
            continue
        compiling[name] = round(time.perf_counter() - start, 1)
        entered[f"{name}, compiled"] = made
    return entered, compiling


def show(size: Images, rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{size}; ms (ratio to the bare convolutions in eager mode)")
    floor = rows[FLOOR]
    for name, row in rows.items():
        shown = [
            f"{w} {t['median']:7.1f} ({t['median'] / floor[w]['median']:.2f})"
            for w, t in row.items()
        ]
        print(f"{name:26}", "  ".join(shown))


def peak_memory(name: str, size: Images) -> None:
    """Print the MiB by which resident memory grows over three train steps, at most (in a process of its own; Linux)."""
    step = enter(name, size)["train step"]
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    for _ in range(3):
        step()
    print((resident("VmHWM") - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    which = range(len(TABLES))
    names = "; ".join(f"{i}: {table}" for i, table in enumerate(TABLES))
    parser.add_argument(
        "--tables", type=int, nargs="*", choices=which, default=[*which], help=names
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--memory", nargs=2, metavar=("NAME", "TABLE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        name, index = arguments.memory
        peak_memory(name, TABLES[int(index)])
        return
    path = ROOT / "results" / "images_bench.json"
    document = json.loads(path.read_text()) if path.exists() else {"tables": []}
    libraries = [n for n in ("diffeo", "normflows", "FrEIA") if find_spec(n)]
    document |= {
        "command": f"python -m benchmarks.images --repeats {arguments.repeats} --threads {arguments.threads}",
        "machine": processor(),
        "versions": ", ".join(f"{n} {version(n)}" for n in ("torch", *libraries)),
        "date": time.strftime("%Y-%m-%d"),
    }
    for i in arguments.tables:
        size = TABLES[i]
        entered, compiling = prepare(size, not arguments.no_compile)
        rows = interleaved(entered, arguments.repeats)
        show(size, rows)
        inside = [n for n in contestants(size) if "frozen" not in n]
        memory = {n: child("-m", "benchmarks.images", "--memory", n, str(i)) for n in inside}
        print("peak memory of a train step, MiB:", {n: round(m, 1) for n, m in memory.items()})
        print("compile time, s:", compiling, flush=True)
        tables = {t["size"]: t for t in document["tables"]}
        tables[str(size)] = {
            "size": str(size),
            "rows": rows,
            "memory_mib": memory,
            "compile_seconds": compiling,
        }
        # Tables that were measured before stay.
        document["tables"] = [tables[str(s)] for s in TABLES if str(s) in tables]
        write_atomically(path, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
