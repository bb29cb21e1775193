"""Measure what the documentation shows: `make results` writes results/*.json, and the docs render them.

    python scripts/results.py densities     KL of NICE and Real NVP to the known 2-D densities, three paired seeds
    python scripts/results.py digits        NICE and Real NVP on digits, three paired seeds, equal training time
    python scripts/results.py picture       the warped grid of the README: Real NVP on moons

Runs of one table go two at a time, one thread each; a run that is stored already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "results"
SEEDS = (0, 1, 2)
# The densities on which the two models are compared; the others have one seed.
COMPARED = ("moons", "8gaussians", "circles")
# Equal depth and width, so nearly equal parameter counts.
PLANE: dict[str, dict[str, Any]] = {
    "nice": {"couplings": 10, "hidden": [64, 64]},
    "realnvp": {"layers": 10, "hidden": [64, 64]},
}
PIXELS: dict[str, dict[str, Any]] = {
    "nice": {"couplings": 8, "hidden": [128, 128]},
    "realnvp": {"layers": 8, "hidden": [128, 128], "flatten": True},
}
PLANE_TRAINING = {"minutes": 0.9, "batch_size": 1024, "lr": 5e-3, "ema": 0.99, "threads": 1}


def density(task: tuple[str, str, int]) -> dict[str, Any]:
    """KL(true || model) on 10,000 fresh test points, after 54 seconds of training."""
    model, name, seed = task
    data = {"source": name, "seed": seed, "size": 20000}
    return measure(model, PLANE[model], data, PLANE_TRAINING | {"seed": seed})


def digits(task: tuple[str, str, int]) -> dict[str, Any]:
    """Test bits/dim after 90 seconds of training."""
    model, name, seed = task
    hyper = PIXELS[model] | {"dropout": 0.4, "alpha": 0.01}
    training = {"minutes": 1.5, "lr": 2e-3, "ema": 0.999, "threads": 1, "seed": seed}
    return measure(model, hyper, {"source": name}, training)


def measure(
    model: str, hyper: dict[str, Any], data: dict[str, Any], training: dict[str, Any]
) -> dict[str, Any]:
    import torch

    import diffeo
    from diffeo.evaluation import evaluate
    from diffeo.training.recipe import recipe
    from diffeo.training.run import build_flow, read_data

    torch.set_num_threads(1)
    chosen = recipe({"model": model, "hyper": hyper, "data": data, "training": training})
    split = read_data(chosen)
    flow = build_flow(chosen, split)
    run = diffeo.fit(flow, split, progress=False, **chosen.training.model_dump())
    row = evaluate(flow, split)
    out = {
        "model": model,
        "data": data["source"],
        "seed": training["seed"],
        "parameters": flow.num_parameters,
        "steps": int(run.metrics["steps"]),
        "seconds": round(run.metrics["seconds"], 1),
        "nats": row.nats,
        "nats_error": row.nats_error,
        "bits": row.bits,
        "bits_error": row.bits_error,
        "kind": row.kind,
        "recipe": chosen.model_dump(),
    }
    if split.density is not None:
        test = split.test
        with torch.no_grad():
            gap = split.density.log_prob(test.double()) - flow.log_prob(test).double()
        out["kl"] = float(gap.mean())
        out["kl_error"] = float(gap.std() / math.sqrt(len(gap)))
    return out


def picture() -> None:
    """Train as in the table of densities and draw figure 1 of the Real NVP paper into docs/images."""
    import torch

    import diffeo
    from diffeo.report.sections import warped
    from diffeo.training.recipe import recipe
    from diffeo.training.run import build_flow, read_data

    values = {"model": "realnvp", "hyper": PLANE["realnvp"], "data": {"source": "moons"}}
    chosen = recipe(values | {"training": PLANE_TRAINING})
    data = read_data(chosen)
    flow = build_flow(chosen, data)
    diffeo.fit(flow, data, progress=False, **chosen.training.model_dump())
    with torch.no_grad():
        section = warped(flow, data, 0)
    images = RESULTS.parent / "docs" / "images"
    images.mkdir(exist_ok=True)
    for name, drawn in zip(("data", "latents", "noise", "samples"), section.pictures, strict=True):
        (images / f"warp-{name}.svg").write_bytes(drawn.content)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, one thread a run"


def collect(name: str, work: Any, tasks: list[tuple[str, str, int]], workers: int) -> None:
    import torch

    import diffeo

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = json.loads(path.read_text()) if path.exists() else {"rows": []}
    done = {(r["model"], r["data"], r["seed"]) for r in document["rows"]}
    tasks = [t for t in tasks if t not in done]
    document |= {
        "command": f"python scripts/results.py {name}",
        "machine": machine(),
        "versions": f"diffeo {diffeo.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d"),
    }
    with ProcessPoolExecutor(workers) as pool:
        for row in pool.map(work, tasks):
            document["rows"].append(row)
            document["rows"].sort(key=lambda r: (r["data"], r["model"], r["seed"]))
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(document, indent=1) + "\n")
            temporary.replace(path)
            print({k: v for k, v in row.items() if k != "recipe"}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=["densities", "digits", "picture"], nargs="*")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    from diffeo.data import density_names

    for table in arguments.table or ["densities", "digits", "picture"]:
        if table == "picture":
            picture()
        elif table == "densities":
            names = (*COMPARED, *(n for n in density_names() if n not in COMPARED))
            seeds = {n: SEEDS if n in COMPARED else SEEDS[:1] for n in names}
            tasks = [(m, n, s) for n in names for s in seeds[n] for m in PLANE]
            collect(table, density, tasks, arguments.workers)
        else:
            tasks = [(m, "digits", s) for s in SEEDS for m in PIXELS]
            collect(table, digits, tasks, arguments.workers)


if __name__ == "__main__":
    sys.exit(main())
