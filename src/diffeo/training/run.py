"""Run folders: train by a recipe, evaluate, report; every later command takes the folder."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import zoo
from ..data import Data
from ..data import load as load_data
from ..errors import ConfigError, DataError
from ..evaluation import LOG2, baselines, evaluate
from ..files import write_atomically
from ..flow import Flow
from ..report import Row, write_report
from ..saving import load as load_flow
from .fit import Run, fit
from .recipe import Recipe, read_recipe, recipe

RECIPE, RESULTS, REPORT = "recipe.yaml", "results.json", "report.html"


def train(chosen: Recipe, folder: str | Path, *, progress: bool = True) -> dict[str, Any]:
    """Train by a recipe into a run folder; returns the content of its results.json.

    Raises DiffeoError in one sentence; nothing is written before data, model and settings are checked.
    """
    folder = Path(folder)
    if (folder / "config.json").exists():
        raise ConfigError(f"{folder} already holds a run: choose another folder")
    data = read_data(chosen)
    flow = build_flow(chosen, data)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RECIPE, chosen.to_yaml())
    settings = chosen.training.model_dump()
    run = fit(flow, data, folder=folder, progress=progress, **settings)
    flow.save(folder)
    results = _results(chosen, flow, data, run)
    write_atomically(folder / RESULTS, json.dumps(results, indent=1) + "\n")
    return results


def read_data(chosen: Recipe) -> Data:
    """The data of a recipe."""
    settings = chosen.data
    return load_data(
        settings.source, seed=settings.seed, levels=settings.levels, size=settings.size
    )


def build_flow(chosen: Recipe, data: Data) -> Flow:
    """The model of a recipe, for the shape and the levels of the data; its random start is under the recipe's seed."""
    hyper = dict(chosen.hyper)
    if data.levels is not None:
        hyper.setdefault("levels", data.levels)
    elif len(data.event_shape) == 3:
        hyper.setdefault("levels", None)
    with torch.random.fork_rng():
        torch.manual_seed(chosen.training.seed)
        flow = zoo.build(chosen.model, data.event_shape, size=chosen.size, **hyper)
    if flow.discrete != (data.levels is not None):
        raise DataError(
            f"{data.name} holds {'integers' if data.levels else 'real numbers'}, but this model is for the other kind"
        )
    return flow


def open_run(folder: str | Path) -> tuple[Flow, Recipe, dict[str, Any]]:
    """The flow, the recipe and the results of a run folder. Raises SavedModelError or ConfigError."""
    folder = Path(folder)
    flow = load_flow(folder)
    chosen = recipe(read_recipe(folder / RECIPE))
    try:
        results: dict[str, Any] = json.loads((folder / RESULTS).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{folder} holds no finished run: {RESULTS} cannot be read") from error
    return flow, chosen, results


def report(folder: str | Path, *, seed: int = 0) -> Path:
    """Write report.html from what the run folder holds."""
    folder = Path(folder)
    flow, chosen, results = open_run(folder)
    data = read_data(chosen)
    bits = data.levels is not None
    unit = 1 / (LOG2 * flow.event_size) if bits else 1.0
    curves = {
        name: [(int(step), value * unit) for step, value in points]
        for name, points in results["history"].items()
    }
    facts = results["facts"] | {"curve unit": "bits/dim" if bits else "nats"}
    title = f"{zoo.card(chosen.model).title} on {data.name}"
    return write_report(
        folder / REPORT,
        flow=flow,
        data=data,
        rows=[Row(**r) for r in results["rows"]],
        curves=curves,
        facts=facts,
        title=title,
        seed=seed,
    )


def _results(chosen: Recipe, flow: Flow, data: Data, run: Run) -> dict[str, Any]:
    start = time.monotonic()
    card = zoo.card(chosen.model)
    name = f"{card.name} ({chosen.size})"
    rows = [evaluate(flow, data, name=name), *baselines(data)]
    facts = {
        "command": shlex.join(["diffeo", *sys.argv[1:]]),
        "model": f"{card.citation}; {flow.num_parameters:,} parameters",
        "data": f"{data.name}: {data.source}",
        "split": f"{len(data.train)} train, {len(data.validation)} validation, {len(data.test)} test",
        "likelihood": f"{flow.likelihood}, bias {flow.properties.bias}, {flow.properties.measure} measure",
        "seed": str(chosen.training.seed),
        "steps": f"{run.metrics['steps']:.0f}, stopped by {run.stopped}; best weights from step "
        f"{run.metrics.get('best_step', run.metrics['steps']):.0f}",
        "training time": f"{run.metrics['seconds']:.1f} s",
        "evaluation time": f"{time.monotonic() - start:.1f} s",
        "hardware": _hardware(chosen.training.threads),
        "versions": _versions(),
    }
    return {
        "rows": [vars(r) for r in rows],
        "history": run.history,
        "metrics": run.metrics,
        "facts": facts,
    }


def _hardware(threads: int | None) -> str:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            (s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")), model
        )
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, {threads or torch.get_num_threads()} threads"


def _versions() -> str:
    from .. import __version__

    return f"diffeo {__version__}, torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}"


__all__: Sequence[str] = ["build_flow", "open_run", "read_data", "report", "train"]
