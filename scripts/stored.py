"""What every stored result says of itself, and how it is written."""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
IMAGES = ROOT / "docs" / "images"
MODELS = RESULTS / "models"
"""Run folders of small models whose figures the documentation shows, without checkpoints; 2 MB of weights at most."""


def provenance(command: str) -> dict[str, str]:
    """Command, machine, versions and date."""
    import torch

    import diffeo
    from diffeo.training.machines import processor

    return {
        "command": command,
        "machine": f"{processor()}, one thread a run",
        "versions": f"diffeo {diffeo.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
    }


def read(name: str) -> dict[str, Any]:
    """results/NAME.json, or an empty document."""
    path = RESULTS / f"{name}.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return document


def write(name: str, document: dict[str, Any]) -> None:
    """results/NAME.json, in one move."""
    from diffeo.files import write_atomically

    write_atomically(RESULTS / f"{name}.json", json.dumps(document, indent=1) + "\n")


def fill(
    name: str,
    description: str,
    axes: Mapping[str, Sequence[str]],
    run: Callable[..., dict[str, Any]],
    *,
    steps: int,
    budget: str = "steps",
) -> None:
    """Run every combination of `axes`, under three seeds, into the rows of results/NAME.json.

    run: (*values of the axes, seed, steps) to what a row says besides these. budget: the name of the steps in a row.
    A row that is stored is not repeated; the command line can choose fewer.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    for axis, values in axes.items():
        parser.add_argument(f"--{axis}s", nargs="+", choices=values, default=list(values))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=steps, help="fewer, to try the script")
    arguments = parser.parse_args()
    # Seed by seed, so that what is stored early can be compared already.
    chosen = (arguments.seeds, *(getattr(arguments, f"{axis}s") for axis in axes))
    for seed, *values in itertools.product(*chosen):
        task = dict(zip(axes, values, strict=True)) | {"seed": seed, budget: arguments.steps}
        rows = read(name).get("rows", [])
        if any(all(r.get(k) == v for k, v in task.items()) for r in rows):
            continue
        rows.append(task | run(*values, seed, arguments.steps))
        print({k: v for k, v in rows[-1].items() if k != "recipe"}, flush=True)
        write(name, provenance(f"python scripts/{name}.py") | {"rows": rows})
