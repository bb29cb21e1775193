"""Memory, time and gradients of training a Glow of growing depth, stored activations against recomputed ones.

`python scripts/memory.py [--depths 4 8 16 32 64] [--threads 1]` adds the cells that results/memory.json lacks. Glow at
3x32x32, batch 16, width 128, 3 levels, `depth` steps of flow per level. Each cell is a process of its own:

- memory: high-water mark of the resident set in two training steps, above its size right before, when weights,
  gradients and optimizer state are there (Linux; freed blocks from 4 KiB on go back to the system at once);
- time: wall time of a step (zero_grad, forward, backward, fused AdamW), median of steps of the two ways in turn;
- gradients: error of float32 gradients against plain float64 ones, all parameters as one vector, after 20 steps at
  a learning rate of 1e-4, on 4 rows; and the reconstruction error of these. (Without warm-up and clipping, a rate of
  1e-3 makes the loss of a Glow of 32 steps per level explode, and with it the error of any inverse.)
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    import diffeo

DEPTHS = (4, 8, 16, 32, 64)
SHAPE, BATCH, WIDTH, SCALES = (3, 32, 32), 16, 128, 3
WAYS = ("plain", "reversible")
CELLS = ("memory plain", "memory reversible", "time", "gradients")
SECONDS = 60.0
"""Of steps in a time cell, at least five of each way."""
TRAINED = 20
"""Steps, at a learning rate of 1e-4, before gradients are compared."""


def pictures(n: int) -> Tensor:
    """Smooth random pictures in 256 levels."""
    import torch

    torch.manual_seed(0)
    small = torch.randn(n, SHAPE[0], 8, 8)
    smooth = torch.nn.functional.interpolate(small, SHAPE[1:], mode="bicubic")
    return (128 + 50 * smooth).clamp(0, 255).to(torch.uint8)


def glow(depth: int) -> diffeo.Flow:
    """The model, its actnorms initialized, in training mode."""
    import torch

    import diffeo

    torch.manual_seed(0)
    flow = diffeo.zoo.build("glow", SHAPE, depth=depth, width=WIDTH, scales=SCALES)
    flow.initialize(pictures(BATCH))
    return flow.train()


def stepper(flow: diffeo.Flow, lr: float = 1e-5) -> Callable[[Tensor], None]:
    """One training step as `diffeo.fit` takes it."""
    import torch

    optimizer = torch.optim.AdamW(flow.parameters(), lr=lr, fused=True)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        (-flow(x).mean()).backward()
        optimizer.step()

    return step


def resident(field: str) -> float:
    """VmRSS (now) or VmHWM (the most since the last reset) of this process, in MB."""
    line = next(
        s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(field)
    )
    return int(line.split()[1]) * 1024 / 1e6


def memory(depth: int, way: str) -> dict[str, Any]:
    flow = glow(depth)
    flow.memory = way
    step = stepper(flow)
    x = pictures(BATCH)
    # Gradients, optimizer state and compiled kernels exist from here on.
    step(x[:1])
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        step(x)
    return {
        "mb": resident("VmHWM") - before,
        "before_mb": before,
        "parameters": flow.num_parameters,
    }


def timing(depth: int) -> dict[str, Any]:
    flow = glow(depth)
    step = stepper(flow)
    x = pictures(BATCH)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    end = time.monotonic() + SECONDS
    while len(times["plain"]) < 6 or time.monotonic() < end:
        for way in WAYS:
            flow.memory = way
            began = time.perf_counter()
            step(x)
            times[way].append(time.perf_counter() - began)
    # The first of each warms up.
    kept = {way: seconds[1:] for way, seconds in times.items()}
    ratios = [b / a for a, b in zip(*kept.values(), strict=True)]
    return {way: median(seconds) for way, seconds in kept.items()} | {
        "ratio": median(ratios),
        "steps": len(ratios),
    }


def gradients(depth: int) -> dict[str, Any]:
    import torch

    from diffeo.training.memory import reconstruction_error

    flow = glow(depth)
    step = stepper(flow, lr=1e-4)
    images = pictures(TRAINED * BATCH)
    for start in range(0, len(images), BATCH):
        step(images[start : start + BATCH])
    x = pictures(4)
    noise = flow.transform.draw(len(x), like=flow.base.like)

    def gradient(way: str) -> Tensor:
        flow.memory = way
        parameters = list(flow.parameters())
        grads = torch.autograd.grad(-flow(x, noise=noise).mean(), parameters, allow_unused=True)
        return torch.cat([g.double().flatten() for g in grads if g is not None])

    found = {way: gradient(way) for way in WAYS}
    error = reconstruction_error(flow, x, noise=noise)
    flow.double()
    noise = tuple(None if n is None else n.double() for n in noise)
    exact = gradient("plain")
    errors = {way: float((g - exact).norm() / exact.norm()) for way, g in found.items()}
    precise = float((gradient("reversible") - exact).norm() / exact.norm())
    return errors | {"reversible_float64": precise, "reconstruction": error}


def cell(depth: int, name: str) -> dict[str, Any]:
    kind, _, way = name.partition(" ")
    if kind == "memory":
        return memory(depth, way)
    return timing(depth) if kind == "time" else gradients(depth)


def measure(depth: int, name: str, threads: int) -> dict[str, Any]:
    """A cell, in a new process."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if name.startswith("memory"):
        environment |= {
            "MALLOC_MMAP_THRESHOLD_": "4096",
            "MALLOC_TRIM_THRESHOLD_": "4096",
            "MALLOC_ARENA_MAX": "1",
        }
    command = [sys.executable, __file__, "--cell", str(depth), name]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"depth": depth, "cell": name, "threads": threads}


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The two numbers that the issue of memory is about, over the depths that are there."""
    found: dict[str, float] = {}
    for way in WAYS:
        used = {r["depth"]: r["mb"] for r in rows if r["cell"] == f"memory {way}"}
        if len(used) > 1:
            found[f"growth_{way}"] = used[max(used)] / used[min(used)]
    ratios = [r["ratio"] for r in rows if r["cell"] == "time"]
    return found | ({"slowest": max(ratios)} if ratios else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(cell(int(arguments.cell[0]), arguments.cell[1])))
        return
    from stored import provenance, read, write

    rows: list[dict[str, Any]] = read("memory").get("rows", [])
    for depth in arguments.depths:
        for name in CELLS:
            if any(r["depth"] == depth and r["cell"] == name for r in rows):
                continue
            rows.append(measure(depth, name, arguments.threads))
            print(rows[-1], flush=True)
            rows.sort(key=lambda r: (r["depth"], CELLS.index(r["cell"])))
            told = provenance("python scripts/memory.py")
            write("memory", {"provenance": told, "summary": summary(rows), "rows": rows})


if __name__ == "__main__":
    main()
