"""How contestants are measured side by side, and how the outcome is stored."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffeo.files import write_atomically
from diffeo.training.machines import processor

from .size import Contestant

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 3
# Torch's; makes the times of images steadier, and all contestants a little faster.
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
Call = Callable[[], object]
Calls = dict[str, Call]


def calls(contestant: Contestant, x: Tensor, *, compiled: bool) -> Calls:
    """What is timed, by name; no train step without anything to train."""
    log_prob, sample = contestant.log_prob, contestant.sample
    if compiled:
        log_prob = torch.compile(log_prob, dynamic=False)
        sample = torch.compile(sample, dynamic=False)
    made = {
        "log_prob": torch.no_grad()(lambda: log_prob(x)),
        "sample": torch.no_grad()(sample),
    }
    trained = [p for p in contestant.module.parameters() if p.requires_grad]
    if not trained:
        return made
    optimizer = torch.optim.Adam(trained, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        (-log_prob(x).mean()).backward()
        optimizer.step()

    return {"train step": step} | made


def compiled(make: Callable[[], Calls]) -> tuple[Calls, float | str]:
    """Calls that have run once, and the seconds which compiling took; or none, and why it failed."""
    torch._dynamo.reset()
    made = make()
    start = time.perf_counter()
    try:
        for call in made.values():
            call()
    except Exception as error:
        return {}, f"fails: {type(error).__name__}"
    return made, round(time.perf_counter() - start, 1)


def interleaved(entered: dict[str, Calls], repeats: int) -> dict[str, dict[str, Any]]:
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


def peak_memory(step: Call) -> float:
    """The MiB by which resident memory grows over three steps, at most (in a process of its own; Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of the imports
    before = resident("VmRSS")
    for _ in range(3):
        step()
    return (resident("VmHWM") - before) / 1024


def resident(what: str) -> int:
    """KiB of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(s.split()[1]) for s in lines if s.startswith(what))


def child(*arguments: str) -> float:
    out = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return float(out.stdout.split()[-1])


def show(size: object, rows: dict[str, dict[str, Any]], floor: str) -> None:
    print(f"\n{size}; ms (ratio to the {floor} in the same mode)")
    for name, row in rows.items():
        mode = ", compiled" if name.endswith(", compiled") else ""
        shown = [
            f"{what} {t['median']:7.2f} ({t['median'] / rows[floor + mode][what]['median']:.2f})"
            for what, t in row.items()
        ]
        print(f"{name:26}", "  ".join(shown))


def options(
    description: str | None, tables: Sequence[object], which: str = "tables"
) -> argparse.ArgumentParser:
    """What every benchmark takes on its command line."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    indices = range(len(tables))
    names = "; ".join(f"{i}: {table}" for i, table in enumerate(tables))
    parser.add_argument(
        f"--{which}", type=int, nargs="*", choices=indices, default=[*indices], help=names
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-compile", action="store_true")
    return parser


def opened(path: Path, command: str, libraries: Iterable[str]) -> dict[str, Any]:
    """The document that is stored there, or an empty one, as it is measured again now."""
    document = json.loads(path.read_text()) if path.exists() else {"tables": []}
    return document | {
        "command": command,
        "machine": processor(),
        "versions": ", ".join(f"{n} {version(n)}" for n in ("torch", *libraries)),
        "date": time.strftime("%Y-%m-%d"),
    }


def keep(path: Path, document: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(document, indent=1) + "\n")


def keep_table(
    path: Path, document: dict[str, Any], made: dict[str, Any], order: Sequence[object], key: str
) -> None:
    """Store a table, named by its `key`, among those that were measured before."""
    tables = {t[key]: t for t in document["tables"]} | {made[key]: made}
    document["tables"] = [tables[str(t)] for t in order if str(t) in tables]
    keep(path, document)


def compare(
    module: str,
    path: Path,
    arguments: argparse.Namespace,
    chosen: Sequence[int],
    sizes: Sequence[Any],
    *,
    floor: str,
    names: Callable[[Any], Sequence[str]],
    enter: Callable[..., Calls],
    compilable: Callable[[str], bool] = lambda name: True,
    libraries: Iterable[str],
) -> dict[str, Any]:
    """Measure the chosen sizes, storing each: times in turns, memory in processes of their own.

    names: the contestants of a size. enter: the calls of (name, size, compiled=).
    """
    set_before = "".join(f"{v}={os.environ[v]} " for v in (HUGE_PAGES,) if v in os.environ)
    command = f"{set_before}python -m {module} --repeats {arguments.repeats} --threads {arguments.threads}"
    document = opened(path, command, libraries)
    for i in chosen:
        size = sizes[i]
        entered: dict[str, Calls] = {}
        compiling: dict[str, Any] = {}
        for name in names(size):
            entered[name] = enter(name, size, compiled=False)
            if arguments.no_compile or not compilable(name):
                continue
            made, compiling[name] = compiled(partial(enter, name, size, compiled=True))
            if made:
                entered[f"{name}, compiled"] = made
        rows = interleaved(entered, arguments.repeats)
        show(size, rows, floor)
        trained = [n for n in names(size) if "train step" in entered[n]]
        memory = {n: child("-m", module, "--memory", n, str(i)) for n in trained}
        print("peak memory of a train step, MiB:", {n: round(m, 1) for n, m in memory.items()})
        print("compile time, s:", compiling, flush=True)
        made_table = {
            "size": str(size),
            "rows": rows,
            "memory_mib": memory,
            "compile_seconds": compiling,
        }
        keep_table(path, document, made_table, sizes, "size")
    return document
