"""Affine and spline couplings on vectors, beside the bare networks and the peers that are installed.

    python -m benchmarks [--repeats 30] [--threads 1] [--no-compile]

Train step, log_prob and sample, eager and compiled: all contestants have the same width, depth, batch and threads and
take turns in one process; medians, and the ratio to the bare networks in the same mode, which is the floor. Peak memory
of a train step and import time are measured in a process of their own. Peers come with `pip install diffeo[bench]`; one
that is missing is left out. The outcome is stored in results/bench.json and drawn into docs/images/bench.svg.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from .contestants import CONTESTANTS, build, installed
from .measuring import ROOT, Calls, calls, child, compare, keep, options, peak_memory
from .size import Size

FLOOR = "bare networks"
SIZES = (Size(32, 512), Size(784, 256), Size(16, 4096, layers=4, bins=8))


def enter(name: str, size: Size, *, compiled: bool) -> Calls:
    return calls(build(name, size), torch.randn(size.batch, size.features), compiled=compiled)


def import_seconds(module: str) -> float:
    """Seconds of `import module` after `import torch`, the median of five processes."""
    code = f"import time, torch; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    return statistics.median(child("-c", code) for _ in range(5))


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
    parser = options(__doc__, SIZES, "sizes")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--memory", nargs=2, metavar=("NAME", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        name, index = arguments.memory
        print(peak_memory(enter(name, SIZES[int(index)], compiled=False)["train step"]))
        return
    libraries = [n for n in installed() if n != FLOOR]
    path = ROOT / "results" / "bench.json"
    document = compare(
        "benchmarks",
        path,
        arguments,
        arguments.sizes,
        SIZES,
        floor=FLOOR,
        names=installed,
        enter=enter,
        libraries=libraries,
    )
    imports = {n: import_seconds(CONTESTANTS[n][1]) for n in libraries}
    print("import time over torch, s:", {n: round(s, 3) for n, s in imports.items()})
    document["import_seconds"] = imports
    keep(path, document)
    draw(document, ROOT / "docs" / "images" / "bench.svg")


if __name__ == "__main__":
    main()
