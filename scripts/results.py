"""Measure what the documentation shows: `make results` writes results/*.json, and the docs render them.

    python scripts/results.py densities     KL of NICE and Real NVP to the known 2-D densities, three paired seeds
    python scripts/results.py splines       the same of spline couplings on all densities
    python scripts/results.py families      the same of every other family that claims universality, on three densities
    python scripts/results.py digits        NICE and Real NVP on digits, three paired seeds, equal training time
    python scripts/results.py picture       the warped grid of the README: Real NVP on moons

Runs of one table go `--workers` at a time, one thread each; a run that is stored already is not repeated.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any

import universal
from stored import IMAGES, provenance, read, write

SEEDS = (0, 1, 2)
# The densities on which the two models are compared; the others have one seed.
COMPARED = ("moons", "8gaussians", "circles")
# Equal depth and width, so nearly equal parameter counts. Both models try the same learning rates; the docs show, for
# each, the one with the lower validation loss.
PLANE: dict[str, dict[str, Any]] = {
    "nice": {"couplings": 14, "hidden": [32, 32]},
    "realnvp": {"layers": 14, "hidden": [32, 32]},
}
PIXELS: dict[str, dict[str, Any]] = {
    "nice": {"couplings": 8, "hidden": [128, 128]},
    "realnvp": {"layers": 8, "hidden": [128, 128], "flatten": True},
}
PLANE_TRAINING = {"minutes": 0.95, "batch_size": 1024, "ema": 0.99, "threads": 1}
PLANE_RATES = {"nice": (3e-3, 8e-3), "realnvp": (8e-3, 3e-3)}
PIXELS_TRAINING = {"minutes": 1.5, "ema": 0.999, "threads": 1}
PIXELS_RATES = (1e-3, 3e-3)
Task = tuple[str, str, int, float]
TABLES = ("densities", "splines", "families", "digits", "picture")


def density(task: Task) -> dict[str, Any]:
    """KL(true || model) on 10,000 fresh test points, after 57 seconds of training."""
    model, name, seed, lr = task
    return measure(
        model, PLANE[model], plane(name, seed), PLANE_TRAINING | {"seed": seed, "lr": lr}
    )


def family(task: Task) -> dict[str, Any]:
    """The same after a number of steps, by name of a model or a family of `universal`."""
    name, data, seed, lr = task
    hyper, training = universal.settings(name, data, lr)
    build = partial(universal.stacked, name, hyper) if name in universal.STACKED else None
    return measure(name, hyper, plane(data, seed), training | {"seed": seed, "lr": lr}, build=build)


def plane(name: str, seed: int) -> dict[str, Any]:
    return {"source": name, "seed": seed, "size": 200_000}


def digits(task: Task) -> dict[str, Any]:
    """Test bits/dim after 90 seconds of training."""
    model, name, seed, lr = task
    hyper = PIXELS[model] | {"dropout": 0.4, "alpha": 0.01}
    return measure(model, hyper, {"source": name}, PIXELS_TRAINING | {"seed": seed, "lr": lr})


def measure(
    model: str,
    hyper: dict[str, Any],
    data: dict[str, Any],
    training: dict[str, Any],
    *,
    build: Callable[[Any], Any] | None = None,
) -> dict[str, Any]:
    """Train and evaluate. build: makes the flow from a seed, where `model` is none of the zoo."""
    import torch

    import diffeo
    from diffeo.evaluation import evaluate
    from diffeo.training.recipe import recipe
    from diffeo.training.run import build_flow, read_data

    torch.set_num_threads(1)
    chosen = recipe({"model": model, "hyper": hyper, "data": data, "training": training})
    split = read_data(chosen)
    flow = build_flow(chosen, split) if build is None else build(training["seed"])
    start = time.process_time()
    run = diffeo.fit(flow, split, progress=False, **chosen.training.model_dump())
    spent = time.process_time() - start
    row = evaluate(flow, split)
    out = {
        "model": model,
        "data": data["source"],
        "seed": training["seed"],
        "lr": training["lr"],
        "validation": run.metrics["validation"],
        "parameters": flow.num_parameters,
        "steps": int(run.metrics["steps"]),
        "seconds": round(run.metrics["seconds"], 1),
        "processor_seconds": round(spent, 1),
        "nats": row.nats,
        "nats_error": row.nats_error,
        "bits": row.bits,
        "bits_error": row.bits_error,
        "kind": row.kind,
        "recipe": chosen.model_dump(),
    }
    if split.density is not None:
        out["kl"], out["kl_error"] = gap(flow, split)
        if universal.refine(flow):
            out["kl_refined"], _ = gap(flow, split)
    return out


def gap(flow: Any, split: Any) -> tuple[float, float]:
    """The mean of log p - log q over the test points, and its standard error."""
    import torch

    test = split.test
    with torch.no_grad():
        each = split.density.log_prob(test.double())
        each = each - flow.log_prob(test, batch_size=1000).double()
    return float(each.mean()), float(each.std() / math.sqrt(len(each)))


def picture() -> None:
    """Train as in the table of densities and draw figure 1 of the Real NVP paper into docs/images."""
    import torch

    import diffeo
    from diffeo.report.sections import warped
    from diffeo.training.recipe import recipe
    from diffeo.training.run import build_flow, read_data

    values = {"model": "realnvp", "hyper": PLANE["realnvp"], "data": {"source": "moons"}}
    chosen = recipe(values | {"training": PLANE_TRAINING | {"lr": PLANE_RATES["realnvp"][0]}})
    data = read_data(chosen)
    flow = build_flow(chosen, data)
    diffeo.fit(flow, data, progress=False, **chosen.training.model_dump())
    with torch.no_grad():
        section = warped(flow, data, 0)
    IMAGES.mkdir(exist_ok=True)
    for name, drawn in zip(("data", "latents", "noise", "samples"), section.pictures, strict=True):
        (IMAGES / f"warp-{name}.svg").write_bytes(drawn.content)


def collect(name: str, work: Any, tasks: list[Task], workers: int) -> None:
    document = {"rows": []} | read(name)
    done = {(r["model"], r["data"], r["seed"], r["lr"]) for r in document["rows"]}
    tasks = [t for t in tasks if t not in done]
    document |= provenance(f"python scripts/results.py {name}")
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        # One worker is this process, which then needs no second turn on the processor to store what was measured.
        for row in (map if pool is None else pool.map)(partial(unless_diverged, work), tasks):
            if row is None:
                continue
            document["rows"].append(row)
            document["rows"].sort(key=lambda r: (r["data"], r["model"], r["lr"], r["seed"]))
            write(name, document)
            print({k: v for k, v in row.items() if k != "recipe"}, flush=True)


def unless_diverged(work: Any, task: Task) -> dict[str, Any] | None:
    """The row of a run; a run that diverges says so and leaves none."""
    from diffeo.errors import TrainingError

    try:
        row: dict[str, Any] = work(task)
    except TrainingError as error:
        print(task, error, flush=True)
        return None
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=TABLES, nargs="*")
    parser.add_argument(
        "--only", nargs="*", help="names of models, of the tables splines and families"
    )
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    from diffeo.data import density_names

    for table in arguments.table or TABLES:
        if table == "picture":
            picture()
        elif table == "densities":
            others = [n for n in density_names() if n not in COMPARED]
            tasks = [
                (m, n, s, lr)
                for n in COMPARED
                for s in SEEDS
                for m in PLANE
                for lr in PLANE_RATES[m]
            ]
            tasks += [(m, n, SEEDS[0], PLANE_RATES[m][0]) for n in others for m in PLANE]
            collect(table, density, tasks, arguments.workers)
        elif table in ("splines", "families"):
            tasks = universal.tasks(table)
            if arguments.only:
                tasks = [t for t in tasks if t[0] in arguments.only]
            collect(table, family, tasks, arguments.workers)
        else:
            tasks = [(m, "digits", s, lr) for s in SEEDS for m in PIXELS for lr in PIXELS_RATES]
            collect(table, digits, tasks, arguments.workers)


if __name__ == "__main__":
    sys.exit(main())
