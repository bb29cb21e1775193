"""Likelihood of pictures by small recipes: bits/dim, curves and samples, into results/ and docs/images; resumable.

    python scripts/images.py digits     Glow and Flow++, nine minutes each
    python scripts/images.py cifar10    Glow, 28 minutes; needs DIFFEO_DATA, as the next
    python scripts/images.py mnist [--only NAMES] [--list]
                                        Real NVP, NICE, Glow, Flow++, and a normflows Glow beside ours

MNIST: `grid` runs of 3 minutes choose the learning rate of both Glows on validation rows; the normflows Glow has our
loop (and, in another run, the optimizer, batches and rate of the library's example), our noise and our evaluation.
Every run is a folder in runs/: one that was stopped goes on; a row that is stored is not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

from stored import IMAGES, ROOT, provenance, read, write

RATES = (1e-3, 2e-3, 4e-3)
GRID_MINUTES, PAIR_MINUTES, EARLY_MINUTES = 3, 10, 3
SEEDS = (0, 1, 2)
# Of the importance-weighted bound: draws, and the first so many test pictures.
DRAWS, PICTURES = 32, 500
# 164,032 parameters, and our Glow has 164,548.
PEER = {"scales": 2, "depth": 8, "width": 67}
# The library's example: batches of 128, a constant rate, no averaging, no clipping; with Adamax.
EXAMPLE = (
    "training.batch_size=128",
    "training.lr=1e-3",
    "training.schedule=constant",
    "training.warmup=0",
    "training.ema=null",
    "training.clip=null",
)


@dataclass(frozen=True)
class Job:
    """A run: a recipe with other settings.

    peer: of the normflows Glow in place of the recipe's model; example: with Adamax and without a logit, as the
    library's example has it.
    best: at the rate that the grid chose. tested: on the test part. weighted: also by the importance-weighted bound.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    peer: bool = False
    example: bool = False
    best: bool = False
    tested: bool = True
    weighted: bool = False

    @property
    def model(self) -> str:
        return "normflows" if self.peer else self.recipe.split("-")[0]


def mnist() -> dict[str, Job]:
    jobs = {name: Job(name) for name in ("realnvp-mnist-small", "nice-mnist-small")}
    early = ("training.epochs=null", "training.threads=1", f"training.minutes={EARLY_MINUTES}")
    for seed in SEEDS:
        for model in ("realnvp", "nice"):
            jobs[f"{model}-{seed}"] = Job(f"{model}-mnist-small", (*early, f"training.seed={seed}"))
    glow = "glow-mnist-small"
    for rate in RATES:
        short = (f"training.minutes={GRID_MINUTES}", f"training.lr={rate}")
        jobs[f"glow-grid-{rate:g}"] = Job(glow, short, tested=False)
        jobs[f"normflows-grid-{rate:g}"] = Job(glow, short, tested=False, peer=True)
    jobs[glow] = Job(glow, weighted=True)
    jobs["normflows"] = Job(glow, peer=True, best=True, weighted=True)
    jobs["normflows-example"] = Job(glow, EXAMPLE, peer=True, example=True, weighted=True)
    jobs["flowpp-mnist-small"] = Job("flowpp-mnist-small", weighted=True)
    same_time = ("training.minutes=28",)
    jobs["realnvp-28"] = Job("realnvp-mnist-small", same_time, weighted=True)
    for seed in SEEDS:
        short = (f"training.minutes={PAIR_MINUTES}", f"training.seed={seed}")
        jobs[f"glow-pair{seed}"] = Job(glow, short, best=True)
        jobs[f"normflows-pair{seed}"] = Job(glow, short, best=True, peer=True)
    return jobs


JOBS: dict[str, dict[str, Job]] = {
    "digits": {
        f"{m}-digits-small": Job(f"{m}-digits-small", weighted=True) for m in ("glow", "flowpp")
    },
    "cifar10": {"glow-cifar10-small": Job("glow-cifar10-small", weighted=True)},
    "mnist": mnist(),
}
# results/digits.json holds the table of scripts/results.py.
FILES = {"digits": "images_digits", "cifar10": "cifar10", "mnist": "mnist"}
CURVES = {
    "digits": {"images-digits": ("glow-digits-small", "flowpp-digits-small")},
    "cifar10": {"images-cifar10": ("glow-cifar10-small",)},
    "mnist": {
        "mnist-curves": ("realnvp-mnist-small", "nice-mnist-small"),
        "images-mnist": ("realnvp-28", "glow-mnist-small", "flowpp-mnist-small", "normflows"),
    },
}
SAMPLED = {
    "digits": "glow-digits-small",
    "cifar10": "glow-cifar10-small",
    "mnist": "glow-mnist-small",
}


def best_rate(rows: dict[str, Any], model: str) -> float:
    """The learning rate of the grid with the lowest validation loss."""
    names = {rate: f"{model}-grid-{rate:g}" for rate in RATES}
    if any(name not in rows for name in names.values()):
        sys.exit(f"the runs {model}-grid-* choose the learning rate: measure them first")
    # A run that diverged has no loss.
    found = {rate: rows[name]["validation"] for rate, name in names.items()}
    return min(found, key=lambda rate: inf if found[rate] is None else found[rate])


def measure(job: Job, folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Train, unless that was done, evaluate, and make the row."""
    from diffeo.training.recipe import override, read_recipe, recipe

    values = override(read_recipe(ROOT / "recipes" / f"{job.recipe}.yaml"), list(overrides))
    chosen = recipe(values)
    work = fitted if job.peer or not job.tested else trained
    row, flow, data = work(job, chosen, folder, overrides)
    if job.weighted:
        row["weighted"] = weighted(flow, data)
    return {
        "model": job.model,
        "recipe": job.recipe,
        "overrides": list(overrides),
        "training": chosen.training.model_dump(),
        "optimizer": "Adamax" if job.example else "AdamW",
        **row,
        "curve": curve(folder),
        "measured": provenance(f"python scripts/images.py {chosen.data.source}"),
    }


def trained(job: Job, chosen: Any, folder: Path, overrides: Sequence[str]) -> tuple[Any, ...]:
    """A run folder by `diffeo train`."""
    import diffeo
    from diffeo.training.run import read_data

    if not (folder / "results.json").exists():
        recipe = f"recipes/{job.recipe}.yaml"
        command = [sys.executable, "-m", "diffeo", "train", recipe, *overrides]
        resume = ["--resume"] if (folder / "checkpoints").exists() else []
        subprocess.run([*command, "--out", str(folder), *resume], cwd=ROOT, check=True)
    found = json.loads((folder / "results.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    own = next(iter(rows.values()))
    flow = diffeo.load(str(folder))
    row = row_of(own, found["metrics"], flow, found["stopped"]) | {
        "others": {
            n: {"bits": r["bits"], "kind": r["kind"]} for n, r in rows.items() if r is not own
        }
    }
    return row, flow, read_data(chosen)


def fitted(job: Job, chosen: Any, folder: Path, overrides: Sequence[str]) -> tuple[Any, ...]:
    """The same loop and evaluation for what `diffeo train` does not build, or without a test."""
    import torch
    from peer_glow import adamax, peer_glow

    import diffeo
    from diffeo.errors import TrainingError
    from diffeo.evaluation import evaluate
    from diffeo.training.run import build_flow, read_data

    torch.set_num_threads(1)
    data = read_data(chosen)
    # The library's example has no logit.
    alpha = None if job.example else chosen.hyper.get("alpha")
    flow = (
        peer_glow(data.event_shape, data.levels, seed=chosen.training.seed, alpha=alpha, **PEER)
        if job.peer
        else build_flow(chosen, data)
    )
    settings = chosen.training.model_dump()
    try:
        with adamax() if job.example else nullcontext():
            run = diffeo.fit(flow, data, folder=folder, resume=True, progress=False, **settings)
    except TrainingError as error:
        # The flow has its last good weights, and the table says why.
        metrics = {"steps": None, "seconds": 0.0, "validation": None}
        return row_of(vars(evaluate(flow, data)), metrics, flow, str(error)), flow, data
    if not job.tested:
        validation = {"bits": None, "bits_error": None, "nats": None, "kind": "", "note": ""}
        return row_of(validation, run.metrics, flow, run.stopped), flow, data
    return row_of(vars(evaluate(flow, data)), run.metrics, flow, run.stopped), flow, data


def row_of(measured: Any, metrics: Any, flow: Any, stopped: str) -> dict[str, Any]:
    kept = ("bits", "bits_error", "nats", "kind", "note")
    return {key: measured[key] for key in kept} | {
        "parameters": f"{flow.num_parameters:,}",
        "dimensions": flow.event_size,
        "steps": metrics["steps"],
        "seconds": round(metrics["seconds"], 1),
        "validation": metrics["validation"],
        "stopped": stopped,
        "others": {},
    }


def weighted(flow: Any, data: Any) -> dict[str, Any]:
    """The importance-weighted bound on the first test pictures, and the plain one on the same."""
    from diffeo.evaluation import evaluate

    some = replace(data, test=data.test[:PICTURES])
    plain, better = evaluate(flow, some), evaluate(flow, some, importance=DRAWS)
    return {
        "pictures": len(some.test),
        "draws": DRAWS,
        "bits": better.bits,
        "bits_error": better.bits_error,
        "kind": better.kind,
        "plain": plain.bits,
    }


def curve(folder: Path) -> list[tuple[float, float]]:
    """Seconds of training and mean -log p of validation rows, in nats."""
    lines = [s.split(",") for s in (folder / "metrics.csv").read_text().splitlines()]
    at = {key: i for i, key in enumerate(lines[0])}
    return [
        (float(s[at["seconds"]]), float(s[at["validation"]]))
        for s in lines[1:]
        if s[at["validation"]]
    ]


def draw(name: str, rows: dict[str, Any], chosen: Sequence[str]) -> None:
    """Validation bits/dim by minutes of training."""
    import math

    from matplotlib.figure import Figure

    from diffeo.report.figures import _render

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for key in chosen:
            if key in rows:
                seconds, nats = zip(*rows[key]["curve"], strict=True)
                dimensions = rows[key].get("dimensions", 784)
                bits = [v / (dimensions * math.log(2)) for v in nats]
                axes.plot([s / 60 for s in seconds], bits, marker=".", label=key)
        axes.set_xlabel("minutes of training")
        axes.set_ylabel("validation, bits/dim")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.legend(frameon=False)

    if any(key in rows for key in chosen):
        (IMAGES / f"{name}.svg").write_bytes(_render((5.5, 2.8), paint))


def draw_samples(name: str, folder: Path, source: str) -> None:
    """Two rows of samples, and one at temperature 0.7."""
    import torch

    import diffeo
    from diffeo.data import load
    from diffeo.report.drawing import sample
    from diffeo.report.pictures import Scaling, image_grid

    flow, data = diffeo.load(str(folder)), load(source)
    with torch.no_grad():
        shown = [sample(flow, 14, 0), sample(flow, 7, 0, 0.7)]
    scaling = Scaling.of(data.train, data.levels)
    picture = image_grid(torch.cat(shown), scaling, 7, cell=64)
    (IMAGES / f"{name}.png").write_bytes(picture)
    print(f"docs/images/{name}.png: {len(picture):,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("data", choices=list(JOBS))
    parser.add_argument("--only", nargs="+", help="names of runs; all by default")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument(
        "--minutes", type=float, help="of every run, to try the script: as set DATA-trial"
    )
    arguments = parser.parse_args()
    jobs, file = JOBS[arguments.data], FILES[arguments.data]
    if arguments.list:
        print("\n".join(jobs))
        return
    if unknown := set(arguments.only or ()) - set(jobs):
        parser.error(f"no run is called {', '.join(sorted(unknown))}: see --list")
    trial = "" if arguments.minutes is None else "-trial"
    folders, file = ROOT / "runs" / (arguments.data + trial), file + trial
    for name in arguments.only or jobs:
        rows = read(file).get("rows", {})
        if name in rows:
            continue
        job, overrides = jobs[name], list(jobs[name].overrides)
        if job.peer and not find_spec("normflows"):
            print(f"{name} needs normflows: left out")
            continue
        if job.best:
            overrides.append(f"training.lr={best_rate(rows, job.model)}")
        if trial:
            overrides.append(f"training.minutes={arguments.minutes}")
        rows[name] = measure(job, folders / name, overrides)
        shown = {k: v for k, v in rows[name].items() if k not in ("curve", "training", "measured")}
        print(name, shown, flush=True)
        write(file, provenance(f"python scripts/images.py {arguments.data}") | {"rows": rows})
    rows = read(file).get("rows", {})
    for picture, chosen in CURVES[arguments.data].items():
        draw(picture + trial, rows, chosen)
    sampled = SAMPLED[arguments.data]
    if sampled in rows and (folders / sampled / "model.safetensors").exists():
        draw_samples(f"samples-{arguments.data}{trial}", folders / sampled, arguments.data)


if __name__ == "__main__":
    main()
