"""Affine and spline couplings on vectors, beside the bare networks and the peers that are installed.

    python -m benchmarks [--repeats 30] [--threads 1] [--no-compile]

Train step, log_prob and sample, eager and compiled: all contestants have the same width, depth, batch and threads and
take turns in one process; medians, and the ratio to the bare networks in the same mode, which is the floor. Peak memory
of a train step and import time are measured in a process of their own. Peers come with `pip install diffeo[bench]`; one
that is missing is left out. The outcome is stored in results/bench.json and drawn into docs/images/bench.svg.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffeo.files import write_atomically
from diffeo.training.machines import processor

from .contestants import CONTESTANTS, build, installed
from .size import Contestant, Size

ROOT = Path(__file__).resolve().parent.parent
SIZES = (Size(32, 512), Size(784, 256), Size(16, 4096, layers=4, bins=8))
WARM_UP = 3
Call = Callable[[], object]


def calls(contestant: Contestant, x: Tensor, *, compiled: bool) -> dict[str, Call]:
    """What is timed, by name."""
    log_prob, sample = contestant.log_prob, contestant.sample
    if compiled:
        log_prob = torch.compile(log_prob, dynamic=False)
        sample = torch.compile(sample, dynamic=False)
    optimizer = torch.optim.Adam(contestant.module.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        (-log_prob(x).mean()).backward()
        optimizer.step()

    return {
        "train step": step,
        "log_prob": torch.no_grad()(lambda: log_prob(x)),
        "sample": torch.no_grad()(sample),
    }


def batch_of(size: Size) -> Tensor:
    return torch.randn(size.batch, size.features)


def prepare(size: Size, compile_all: bool) -> tuple[dict[str, dict[str, Call]], dict[str, Any]]:
    """Every contestant's calls, by "name" or "name, compiled"; and how long compiling took, or why it failed."""
    entered: dict[str, dict[str, Call]] = {}
    compiling: dict[str, Any] = {}
    for name in installed(size):
        entered[name] = calls(build(name, size), batch_of(size), compiled=False)
        if not compile_all:
            continue
        torch._dynamo.reset()
        made = calls(build(name, size), batch_of(size), compiled=True)
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


def interleaved(entered: dict[str, dict[str, Call]], repeats: int) -> dict[str, dict[str, Any]]:
    """Median, least and largest milliseconds of each call, the contestants taking turns."""
    times: dict[str, dict[str, list[float]]] = {n: {w: [] for w in c} for n, c in entered.items()}
    for i in range(repeats + WARM_UP):
        for name, each in entered.items():
            for what, call in each.items():
                start = time.perf_counter()
                call()
                if i >= WARM_UP:
                    times[name][what].append(1e3 * (time.perf_counter() - start))
    return {
        name: {
            what: {"median": statistics.median(t), "least": min(t), "largest": max(t)}
            for what, t in each.items()
        }
        for name, each in times.items()
    }


def peak_memory(name: str, size: Size) -> None:
    """Print the MiB by which resident memory grows over three train steps, at most (in a process of its own; Linux)."""
    contestant = build(name, size)
    step = calls(contestant, batch_of(size), compiled=False)["train step"]
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of the imports
    before = resident("VmRSS")
    for _ in range(3):
        step()
    print((resident("VmHWM") - before) / 1024)


def resident(what: str) -> int:
    """KiB of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(s.split()[1]) for s in lines if s.startswith(what))


def child(*arguments: str) -> float:
    out = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def import_seconds(module: str) -> float:
    """Seconds of `import module` after `import torch`, the median of five processes."""
    code = f"import time, torch; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    return statistics.median(child("-c", code) for _ in range(5))


def show(size: Size, rows: dict[str, dict[str, Any]]) -> None:
    print(f"\n{size}; ms (ratio to the bare networks in the same mode)")
    for name, row in rows.items():
        mode = ", compiled" if name.endswith(", compiled") else ""
        floor = rows["bare networks" + mode]
        shown = [
            f"{what} {t['median']:7.2f} ({t['median'] / floor[what]['median']:.2f})"
            for what, t in row.items()
        ]
        print(f"{name:24}", "  ".join(shown))


def draw(document: dict[str, Any], path: Path) -> None:
    """Bars of the train step, one group a size."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(document["tables"]), figsize=(9, 3.2), squeeze=False)
    for axis, table in zip(axes[0], document["tables"], strict=True):
        names = list(table["rows"])
        medians = [table["rows"][n]["train step"]["median"] for n in names]
        colours = ["#4c72b0" if n.startswith("diffeo") else "#b0b0b0" for n in names]
        axis.barh(names[::-1], medians[::-1], color=colours[::-1])
        axis.set_title(table["size"].replace(", ", "\n"), fontsize=8)
        axis.set_xlabel("train step, ms", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="*",
        choices=range(len(SIZES)),
        default=[*range(len(SIZES))],
        help="; ".join(f"{i}: {size}" for i, size in enumerate(SIZES)),
    )
    parser.add_argument("--memory", nargs=2, metavar=("NAME", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        name, index = arguments.memory
        peak_memory(name, SIZES[int(index)])
        return
    libraries = [n for n in installed() if n != "bare networks"]
    path = ROOT / "results" / "bench.json"
    document = json.loads(path.read_text()) if path.exists() else {"tables": []}
    document |= {
        "command": f"python -m benchmarks --repeats {arguments.repeats} --threads {arguments.threads}",
        "machine": processor(),
        "versions": ", ".join(f"{n} {version(n)}" for n in ("torch", *libraries)),
        "date": time.strftime("%Y-%m-%d"),
    }
    for i in arguments.sizes:
        size = SIZES[i]
        entered, compiling = prepare(size, not arguments.no_compile)
        rows = interleaved(entered, arguments.repeats)
        show(size, rows)
        memory = {n: child("-m", "benchmarks", "--memory", n, str(i)) for n in installed(size)}
        print("peak memory of a train step, MiB:", {n: round(m, 1) for n, m in memory.items()})
        print("compile time, s:", compiling, flush=True)
        tables = {t["size"]: t for t in document["tables"]}
        tables[str(size)] = {
            "size": str(size),
            "rows": rows,
            "memory_mib": memory,
            "compile_seconds": compiling,
        }
        # Sizes that were measured before stay.
        document["tables"] = [tables[str(s)] for s in SIZES if str(s) in tables]
        write_atomically(path, json.dumps(document, indent=1) + "\n")
    imports = {n: import_seconds(CONTESTANTS[n][1]) for n in libraries}
    print("import time over torch, s:", {n: round(s, 3) for n, s in imports.items()})
    document["import_seconds"] = imports
    write_atomically(path, json.dumps(document, indent=1) + "\n")
    draw(document, ROOT / "docs" / "images" / "bench.svg")


if __name__ == "__main__":
    main()
