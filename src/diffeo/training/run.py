"""Run folders: train by a recipe, evaluate, report; every later command takes the folder."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from .. import zoo
from ..data import Data
from ..data import load as load_data
from ..errors import ConfigError, DataError, InputError, ShapeError, TrainingError
from ..evaluation import baselines, evaluate
from ..files import write_atomically
from ..flow import Flow
from ..nets.pyramid import Pyramid
from ..report import Row, write_report
from ..saving import CONFIG
from ..saving import load as load_flow
from ..transforms import Chain
from .checkpoint import FOLDER
from .compiling import unit
from .divergence import Diverged
from .fit import Run, fit
from .machines import main_process, processor, trainer_arguments
from .recipe import Recipe, read_recipe, recipe
from .tables import SCHEMA, TABULAR, read_table, resolved

RECIPE, RESULTS, REPORT, CSV = "recipe.yaml", "results.json", "report.html", "metrics.csv"


def train(
    chosen: Recipe, folder: str | Path, *, progress: bool = True, resume: bool = False
) -> dict[str, Any]:
    """Train by a recipe into a run folder; returns the content of its results.json.

    resume: go on with the interrupted run in the folder, or begin it if there is none; a finished one is left as it is.
    Raises DiffeoError in one sentence; nothing is written before data, model and settings are checked. A run that
    diverges leaves its last good weights, and what happened in results.json, and raises TrainingError. Of several
    processes only the first writes, and the others return nothing.
    """
    folder = Path(folder)
    results = finished(folder) if resume else None
    if results is not None:
        return results
    if not resume:
        _check_free(folder)
    chosen, _ = resolved(chosen)
    data = read_data(chosen)
    flow = build_flow(chosen, data)
    # Whatever is wrong with the machine is said before anything is written.
    trainer_arguments(chosen.training)
    begun = (folder / RECIPE).exists()
    if main_process() and not begun:
        _write(folder / RECIPE, chosen.to_yaml())
        if data.schema is not None:
            _write(folder / SCHEMA, yaml.safe_dump(data.schema.plain(), sort_keys=False))
    settings = chosen.training.model_dump()
    try:
        run = fit(flow, data, folder=folder, resume=resume, progress=progress, **settings)
    except Diverged as error:
        if main_process():
            _leave(flow, data, folder, error)
        raise
    except (ConfigError, DataError, InputError, ShapeError):
        if main_process() and not begun:
            _clear(folder)
        raise
    if not main_process():
        return {}
    results = _results(chosen, flow, data, run)
    flow.save(folder)
    _write_json(folder / RESULTS, results)
    return results


def _leave(flow: Flow, data: Data, folder: Path, error: Diverged) -> None:
    """What a run that diverged leaves: its last good weights, and why it ended."""
    flow.save(folder)
    ending = {"stopped": str(error), "diverged": True}
    empty: dict[str, Any] = {"rows": [], "history": {}, "metrics": {}, "facts": {}}
    _write_json(folder / RESULTS, _outline(data) | ending | empty)


def _clear(folder: Path) -> None:
    """Take back a run that did not begin."""
    for name in (RECIPE, SCHEMA, CSV):
        (folder / name).unlink(missing_ok=True)
    for place in (folder / FOLDER, folder):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def finished(folder: str | Path) -> dict[str, Any] | None:
    """The results of a run that reached its end; None for one that can be resumed or begun.

    Raises ConfigError for one that diverged, and would again.
    """
    path = Path(folder) / RESULTS
    if not path.exists():
        return None
    results = _read_results(path)
    if results.get("diverged"):
        raise ConfigError(
            f"the run in {folder} cannot be resumed, it would diverge again: begin another with other settings, "
            f"or from its last good weights with --from {folder}"
        )
    return None if results.get("stopped") == "interrupted" else results


def stored_recipe(folder: str | Path) -> Recipe | None:
    """The recipe of the run in a folder, if there is one. Raises ConfigError."""
    path = Path(folder) / RECIPE
    return recipe(read_recipe(path)) if path.exists() else None


def _check_free(folder: Path) -> None:
    if (folder / CONFIG).exists() and (folder / RESULTS).exists():
        raise ConfigError(f"{folder} already holds a run: choose another folder")
    if main_process() and ((folder / CONFIG).exists() or (folder / RECIPE).exists()):
        raise ConfigError(
            f"{folder} already holds a run that was interrupted: go on with --resume, or choose another folder"
        )


def read_data(chosen: Recipe) -> Data:
    """The data of a recipe."""
    if chosen.model == TABULAR:
        return read_table(chosen)
    settings = chosen.data.model_dump(exclude={"source", "kinds", "conditions"})
    return load_data(chosen.data.source, **settings)


def build_flow(chosen: Recipe, data: Data) -> Flow:
    """The model of a recipe, for the shape and the levels of the data; its random start is under the recipe's seed."""
    if chosen.start is not None:
        return _warm_start(chosen, data)
    hyper = dict(chosen.hyper)
    if data.schema is not None:
        hyper["schema"] = data.schema
    if data.levels is not None:
        hyper.setdefault("levels", data.levels)
    elif len(data.event_shape) == 3:
        hyper.setdefault("levels", None)
    with torch.random.fork_rng():
        torch.manual_seed(chosen.training.seed)
        flow = zoo.build(chosen.model, data.event_shape, data.context_shape, chosen.size, **hyper)
    if data.given is not None and not isinstance(flow.embedding, Pyramid):
        raise ConfigError(
            f"data.given = {data.given} is for a model that reads a picture at every scale, which is glow, not "
            f"{chosen.model}"
        )
    _check_kind(flow, data)
    if data.alphabet is not None:
        flow.provenance["hyper"]["alphabet"] = data.alphabet
    return flow


def _warm_start(chosen: Recipe, data: Data) -> Flow:
    """The flow of the run that this one starts from. Raises ShapeError or DataError where the data are others."""
    flow = load_flow(str(chosen.start))
    if flow.event_shape != tuple(data.event_shape):
        raise ShapeError(
            f"the run {chosen.start} models events of shape {flow.event_shape}, but {data.name} holds "
            f"{tuple(data.event_shape)}"
        )
    if flow.context_shape != data.context_shape:
        raise ShapeError(
            f"the run {chosen.start} is given {flow.context_shape or 'no context'}, and here data.given makes "
            f"{data.context_shape or 'none'}"
        )
    _check_kind(flow, data)
    alphabet = flow.provenance.get("hyper", {}).get("alphabet")
    if data.alphabet != alphabet:
        raise DataError(
            f"the run {chosen.start} models strings of another alphabet than {data.name}: set data.alphabet and "
            "data.length to those of its config.json"
        )
    first = next(iter(flow.transform)) if isinstance(flow.transform, Chain) else flow.transform
    domain = first.properties.domain
    if data.levels is not None and domain is not None and domain.high != data.levels - 1:
        raise DataError(
            f"the run {chosen.start} models integers up to {domain.high:g}, but {data.name} has {data.levels} levels"
        )
    return flow


def _check_kind(flow: Flow, data: Data) -> None:
    if flow.discrete != (data.levels is not None):
        raise DataError(
            f"{data.name} holds {'integers' if data.levels else 'real numbers'}, but this model is for the other kind"
        )


def open_run(folder: str | Path) -> tuple[Flow, Recipe, dict[str, Any]]:
    """The flow, the recipe and the results of a run folder. Raises SavedModelError or ConfigError."""
    folder = Path(folder)
    flow = load_flow(folder)
    chosen = recipe(read_recipe(folder / RECIPE))
    return flow, chosen, _read_results(folder / RESULTS)


def _read_results(path: Path) -> dict[str, Any]:
    try:
        results: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path.parent} holds no finished run: {path.name} cannot be read"
        ) from error
    return results


def _write(path: Path, content: str) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror or error}") from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    _write(path, json.dumps(content, indent=1) + "\n")


def _outline(data: Data) -> dict[str, Any]:
    """What the data were, so that a later command can check those that it is given."""
    return {
        "schema": {
            "columns": None if data.columns is None else list(data.columns),
            "levels": data.levels,
            **({} if data.alphabet is None else {"alphabet": data.alphabet}),
            "event_shape": list(data.event_shape),
            "split": {part: len(getattr(data, part)) for part in ("train", "validation", "test")},
        }
    }


def report(folder: str | Path, *, seed: int = 0) -> Path:
    """Write report.html from what the run folder holds."""
    folder = Path(folder)
    flow, chosen, results = open_run(folder)
    data = read_data(chosen)
    name, scale = unit(flow, chosen.training)
    curves = {
        part: [(int(step), value * scale) for step, value in points]
        for part, points in results["history"].items()
    }
    facts = results["facts"] | {"curve unit": name}
    title = f"{zoo.card(chosen.model).title} on {data.name}"
    try:
        return write_report(
            folder / REPORT,
            flow=flow,
            data=data,
            # A run that diverged was not evaluated when it ended.
            rows=[Row(**r) for r in results["rows"]] or _rows(chosen, flow, data),
            curves=curves,
            facts=facts,
            title=title,
            seed=seed,
            configuration=chosen.to_yaml(),
        )
    except OSError as error:
        raise TrainingError(f"cannot write {folder / REPORT}: {error.strerror or error}") from error


def _rows(chosen: Recipe, flow: Flow, data: Data) -> list[Row]:
    name = f"{chosen.model} ({chosen.size})"
    return [evaluate(flow, data, name=name), *baselines(data)]


def _results(chosen: Recipe, flow: Flow, data: Data, run: Run) -> dict[str, Any]:
    start = time.monotonic()
    card = zoo.card(chosen.model)
    rows = _rows(chosen, flow, data)
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
        "hardware": f"{processor()}, {chosen.training.threads or torch.get_num_threads()} threads",
        "versions": _versions(),
    }
    return _outline(data) | {
        "stopped": run.stopped,
        "rows": [vars(r) for r in rows],
        "history": run.history,
        "metrics": run.metrics,
        "facts": facts,
    }


def _versions() -> str:
    from .. import __version__

    return f"diffeo {__version__}, torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}"


__all__: Sequence[str] = [
    "build_flow",
    "finished",
    "open_run",
    "read_data",
    "report",
    "stored_recipe",
    "train",
]
