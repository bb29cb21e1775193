"""The report of a run: one self-contained HTML file with numbers, pictures and an audit."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..columns import Schema
from ..errors import InputError
from ..files import write_atomically
from ..flow import Flow
from .page import Picture, Row, Section, fact_table, folded, likelihood_table, meaning, page

if TYPE_CHECKING:
    from ..data import Data

__all__ = ["Row", "write_report"]

_VERSIONED = ("diffeo", "torch", "numpy", "matplotlib")


def write_report(
    path: str | Path,
    *,
    flow: Flow,
    data: Data,
    rows: Sequence[Row],
    curves: Mapping[str, Sequence[tuple[int, float]]],
    facts: Mapping[str, str],
    title: str,
    seed: int = 0,
    configuration: str = "",
) -> Path:
    """Write report.html: likelihoods, samples, curves, nearest neighbours, calibration, latents, audit, provenance.

    flow: trained, in eval mode. rows: the model on test data first, then baselines. curves: name to (step, value), in
    facts["curve unit"]. facts: shown in their order. configuration: the resolved recipe as text, shown folded. The same
    arguments give the same pictures.

    Raises InputError where there is no row to head the page.
    """
    from .sections import model_sections

    if not rows:
        raise InputError("a report needs at least one row, the model's likelihood on test data")
    training = flow.training
    flow.eval()
    try:
        with torch.no_grad():
            shown, checks = model_sections(flow, data, seed)
    finally:
        flow.train(training)
    sections = [
        _likelihood(rows, data.levels),
        *shown,
        *_curves(curves, facts),
        *checks,
        Section(
            "How this was made",
            "",
            table=fact_table(_all_facts(flow, data, facts, seed))
            + folded("The resolved recipe", configuration),
        ),
    ]
    text = page(
        title=title,
        subtitle=_subtitle(flow, data),
        head=rows[0],
        dataset=f"Data set {data.name}, {len(data.test):,} test examples",
        citation=str(flow.provenance.get("citation", "")),
        sections=sections,
    )
    return write_atomically(path, text)


def _likelihood(rows: Sequence[Row], levels: int | None) -> Section:
    bits = any(r.bits is not None for r in rows)
    unit = "Bits per dimension and nats are" if bits else "Nats are"
    kinds = list(dict.fromkeys(r.kind for r in rows))
    meanings = "; ".join(f"{k}: {meaning(k, bits)}" for k in kinds if meaning(k, bits))
    text = (
        f"{unit} negative log-likelihood on test data in the units of the data: lower is better. "
        "± is one standard error of the mean over examples."
    )
    if levels is not None:
        text += f" They are of integers with {levels} levels; numbers for other levels or bits are not comparable."
    return Section(
        "Likelihood", f"{text} {meanings}." if meanings else text, table=likelihood_table(rows)
    )


def _curves(
    curves: Mapping[str, Sequence[tuple[int, float]]], facts: Mapping[str, str]
) -> list[Section]:
    from . import figures

    if not any(curves.values()):
        return []
    unit = facts.get("curve unit", "nats per example")
    text = (
        f"The training objective ({unit}) after each step; lower is better. If validation turns up while training "
        "still falls, the model has begun to memorize."
    )
    picture = Picture(
        figures.learning_curves(curves, unit), f"learning curves, {', '.join(curves)}"
    )
    return [Section("Learning curves", text, [picture])]


def _subtitle(flow: Flow, data: Data) -> str:
    if data.schema is not None:
        return f"{_columns(data.schema)} · {sum(p.numel() for p in flow.parameters()):,} parameters"
    shape = " × ".join(str(n) for n in data.train.shape[1:])
    kind = "integers" if flow.discrete else "real numbers"
    levels = f", {data.levels} levels" if data.levels is not None else ""
    return f"Examples of {shape} {kind}{levels} · {sum(p.numel() for p in flow.parameters()):,} parameters"


def _columns(schema: Schema) -> str:
    """How many columns of each kind there are."""
    kinds = Counter(c.kind for c in schema.columns)
    missing = sum(c.missing for c in schema.columns)
    parts = [", ".join(f"{n} {kind}" for kind, n in kinds.items())]
    parts += [f"{missing} with missing cells"] if missing else []
    parts += [f"given {', '.join(schema.given)}"] if schema.given else []
    plural = "s" if len(schema.columns) > 1 else ""
    return f"{len(schema.columns)} column{plural}: {'; '.join(parts)}"


def _all_facts(flow: Flow, data: Data, facts: Mapping[str, str], seed: int) -> dict[str, str]:
    found = {key: value for key, value in facts.items() if key != "curve unit"}
    found.setdefault("data", data.source or data.name)
    found.setdefault(
        "examples",
        f"{len(data.train):,} train, {len(data.validation):,} validation, {len(data.test):,} test",
    )
    if not any("version" in key for key in found):
        versions = [f"{name} {version(name)}" for name in _VERSIONED]
        found["versions"] = ", ".join([*versions, f"Python {platform.python_version()}"])
    found["report seed"] = str(seed)
    return found
