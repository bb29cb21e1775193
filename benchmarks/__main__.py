"""Real NVP on vectors: train step, log_prob and sample, beside the bare networks and the peers that are installed.

    python -m benchmarks [--repeats 30] [--threads 2]

All contestants have the same width, depth, batch and threads, and take turns in one process; the table shows medians,
and the ratio to the bare networks, which is the floor. Peers come with `pip install diffeo[bench]`; one that is missing
is left out. The outcome is stored in results/bench.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

import diffeo

D, BATCH, LAYERS, WIDTH = 32, 512, 8, 128
Call = Callable[[], object]


def stepper(module: nn.Module, loss: Callable[[], Tensor]) -> Call:
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def ours(x: Tensor) -> dict[str, Call]:
    flow = diffeo.zoo.build(
        "realnvp", (D,), layers=LAYERS, hidden=(WIDTH, WIDTH), standardize=False
    )
    return {
        "train step": stepper(flow, lambda: -flow.log_prob(x).mean()),
        "log_prob": torch.no_grad()(lambda: flow.log_prob(x)),
        "sample": lambda: flow.sample((BATCH,)),
    }


def bare(x: Tensor) -> dict[str, Call]:
    """The networks of the couplings alone, on half of the input each."""
    nets = nn.ModuleList(
        nn.Sequential(
            nn.Linear(D // 2, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, D),
        )
        for _ in range(LAYERS)
    )
    half = x[:, : D // 2].contiguous()

    def run() -> Tensor:
        return torch.stack([net(half).mean() for net in nets]).sum()

    forward = torch.no_grad()(run)
    return {"train step": stepper(nets, run), "log_prob": forward, "sample": forward}


def nflows(x: Tensor) -> dict[str, Call]:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AffineCouplingTransform

    def net(i: int, o: int) -> nn.Module:
        class Plain(nn.Sequential):
            def forward(self, v: Tensor, context: object = None) -> Tensor:
                return super().forward(v)

        return Plain(
            nn.Linear(i, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, o)
        )

    masks = [(torch.arange(D) + i) % 2 for i in range(LAYERS)]
    flow = Flow(
        CompositeTransform([AffineCouplingTransform(m, net) for m in masks]), StandardNormal([D])
    )
    return {
        "train step": stepper(flow, lambda: -flow.log_prob(x).mean()),
        "log_prob": torch.no_grad()(lambda: flow.log_prob(x)),
        "sample": torch.no_grad()(lambda: flow.sample(BATCH)),
    }


def zuko(x: Tensor) -> dict[str, Call]:
    validate = torch.distributions.Distribution._validate_args
    import zuko as library

    # zuko switches this off for all of torch when it is imported.
    torch.distributions.Distribution.set_default_validate_args(validate)
    flow = library.flows.NICE(D, transforms=LAYERS, hidden_features=(WIDTH, WIDTH))
    return {
        "train step": stepper(flow, lambda: -flow().log_prob(x).mean()),
        "log_prob": torch.no_grad()(lambda: flow().log_prob(x)),
        "sample": torch.no_grad()(lambda: flow().sample((BATCH,))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    x = torch.randn(BATCH, D)
    contestants = {"bare networks": bare(x), "diffeo": ours(x)}
    for make in (nflows, zuko):
        if find_spec(make.__name__):
            contestants[make.__name__] = make(x)
    times: dict[str, dict[str, list[float]]] = {
        name: {what: [] for what in calls} for name, calls in contestants.items()
    }
    for i in range(arguments.repeats + 3):
        for name, calls in contestants.items():
            for what, call in calls.items():
                start = time.perf_counter()
                call()
                if i >= 3:  # warm-up
                    times[name][what].append(1e3 * (time.perf_counter() - start))
    rows = {
        name: {what: statistics.median(t) for what, t in each.items()}
        for name, each in times.items()
    }
    floor = rows["bare networks"]
    print(
        f"Real NVP, D={D}, batch {BATCH}, {LAYERS} layers, MLP 2x{WIDTH}; ms (ratio to the bare networks)"
    )
    for name, row in rows.items():
        shown = [f"{what} {ms:6.1f} ({ms / floor[what]:.2f})" for what, ms in row.items()]
        print(f"{name:14}", "  ".join(shown))
    document = {
        "command": f"python -m benchmarks --repeats {arguments.repeats} --threads {arguments.threads}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": f"diffeo {diffeo.__version__}, torch {torch.__version__}",
        "date": time.strftime("%Y-%m-%d"),
        "median_ms": rows,
        "spread_ms": {
            n: {w: [min(t), max(t)] for w, t in each.items()} for n, each in times.items()
        },
    }
    path = Path(__file__).resolve().parent.parent / "results" / "bench.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
