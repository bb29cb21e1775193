"""Densities of the UCI tables, beside other libraries at equal time, into results/tables.json; needs DIFFEO_DATA.

    python scripts/tables.py [--sets boston ...] [--models diffeo ...]

The joint density of all columns, features and target, of the first two published splits of each set (california: two
seeded ones). A row of the results is a set, a split and a model; a row that is stored is not repeated. All models see
the same rows and the same validation part, and each has the same wall time for everything: to choose its settings, to
train and to choose the weights. docs/results.md says how the columns are prepared and why.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contest import Learner, Rival, mixture_weights, race
from numpy.typing import NDArray
from rivals import FLOWS, candidates
from stored import ROOT, provenance, read, write

Array = NDArray[np.float64]

FILES = {
    "yacht": "yacht",
    "boston": "bostonHousing",
    "energy": "energy",
    "concrete": "concrete",
    "wine-red": "wine-quality-red",
    "power-plant": "power-plant",
    "california": "california_housing",
}
SECONDS = {name: 60.0 if name in ("power-plant", "california") else 30.0 for name in FILES}
SPLITS = 2
REGULARIZATION = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
STARTS = 5
"""Of the Gaussian mixture, at each number of components and each regularization; it ends after them."""
MODELS = ("gaussian", "mixture", *FLOWS)
SCORES = ROOT / "runs" / "tables"
"""Log-likelihoods of single test rows, for paired differences: they are too many to keep with the results."""


@dataclass(frozen=True)
class Split:
    """Standardized rows of one split, [n, D] each. resolution: sum over columns of log(smallest gap / deviation)."""

    train: Array
    validation: Array
    test: Array
    columns: tuple[int, ...]
    resolution: float


def dequantized(raw: Array, seed: int = 0) -> Array:
    """Each column plus uniform noise as wide as the smallest gap between its values, centred."""
    return raw + smallest_gaps(raw) * (np.random.RandomState(seed).random_sample(raw.shape) - 0.5)


def smallest_gaps(raw: Array) -> Array:
    """The smallest difference between two values of each column, which must not be constant."""
    return np.array([np.diff(np.unique(column)).min() for column in raw.T])


def independent(raw: Array) -> tuple[int, ...]:
    """Columns that are no affine function of those before them, constants left out."""
    kept: list[int] = []
    for j in range(raw.shape[1]):
        others = np.column_stack([np.ones(len(raw)), raw[:, kept]])
        rest = raw[:, j] - others @ np.linalg.lstsq(others, raw[:, j], rcond=None)[0]
        if rest.std() > 1e-6 * np.abs(raw[:, j]).max():
            kept.append(j)
    return tuple(kept)


def validation_rows(raw: Array, training: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """A tenth of the different training rows; equal rows stay together, so that none is on both sides."""
    group = np.unique(raw, axis=0, return_inverse=True)[1].ravel()
    groups = np.unique(group[training])
    chosen = np.random.RandomState(seed).permutation(groups)[: max(1, len(groups) // 10)]
    return training & np.isin(group, chosen)


def prepare(name: str, split: int) -> Split:
    """The rows of one published split (california: a tenth of the rows, drawn under the split's number as seed)."""
    folder = os.environ.get("DIFFEO_DATA")
    if folder is None:
        raise SystemExit(
            "scripts/tables.py reads the folder uci of the directory DIFFEO_DATA: set it"
        )
    with np.load(Path(folder) / "uci" / f"{FILES[name]}.npz") as file:
        raw = file["data"].astype(np.float64)
        if "test_index" in file.files:
            index = file["test_index"][split]
        else:
            index = np.random.RandomState(split).permutation(len(raw))[: len(raw) // 10]
    training = np.ones(len(raw), dtype=bool)
    training[index] = False
    columns = independent(raw[training])
    raw = raw[:, columns]
    held_out = validation_rows(raw, training, split)
    x = dequantized(raw)
    mean, deviation = x[training].mean(0), x[training].std(0)
    x = (x - mean) / deviation
    resolution = float(np.log(smallest_gaps(raw) / deviation).sum())
    return Split(x[training & ~held_out], x[held_out], x[~training], columns, resolution)


Scores = dict[str, Any]


def gaussian_mixture(data: Split, seconds: float, most: int) -> Scores:
    """scikit-learn's, full covariances: components, regularization and start chosen on the validation rows."""
    import warnings

    from sklearn.mixture import GaussianMixture

    began, tried = time.monotonic(), 0
    best: tuple[float, Any, str] = (-np.inf, None, "")
    counts = [
        k for k in (1, 2, 4, 8, 12, 16, 24, 32, 48, 64) if k <= min(most, len(data.train) // 3)
    ]
    for seed in range(STARTS if most > 1 else 1):
        for k in list(counts):
            of_k = -np.inf
            for regularization in REGULARIZATION:
                if time.monotonic() > began + seconds:
                    break
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = GaussianMixture(
                        k, reg_covar=regularization, random_state=seed, max_iter=200
                    ).fit(data.train)
                value, tried = model.score(data.validation), tried + 1
                of_k = max(of_k, value)
                if value > best[0]:
                    best = (value, model, f"components {k}, regularization {regularization:g}")
            # More components than this only cost time that other starts can use.
            if of_k < best[0] - 3:
                counts = [c for c in counts if c < k]
    return {
        "validation": best[0],
        "settings": best[2],
        "tried": tried,
        "seconds": round(time.monotonic() - began, 1),
        "scores": best[1].score_samples(data.test),
    }


def flows(rivals: tuple[Rival, ...], data: Split, seconds: float, seed: int) -> Scores:
    """The best of the candidates, and the mixture of those trained to the end, weighted on the validation rows."""
    train, held_out, test = (
        torch.tensor(x, dtype=torch.float32) for x in (data.train, data.validation, data.test)
    )
    # Imports are not of the model's time.
    Learner(rivals[0], train, held_out, seed).run(0.01)
    began = time.monotonic()
    learners = race(rivals, train, held_out, seconds, seed)
    took = time.monotonic() - began
    good = [one for one in learners if np.isfinite(one.validation)]
    weights = mixture_weights(torch.stack([one.log_prob(held_out) for one in good], 1))
    each = torch.stack([one.log_prob(test) for one in good], 1)
    return {
        "validation": good[0].validation,
        "settings": good[0].rival.label,
        "tried": len(rivals),
        "seconds": round(took, 1),
        "scores": each[:, 0].numpy(),
        "mixture_scores": (each + weights.log()).logsumexp(1).numpy(),
        "members": [
            {
                "settings": one.rival.label,
                "validation": one.validation,
                "weight": float(w),
                "steps": one.steps,
                "best_step": one.best_step,
                "parameters": sum(p.numel() for p in one.flow.parameters()),
                "failed": one.failed,
            }
            for one, w in zip(good, weights, strict=True)
        ],
    }


def measure(name: str, split: int, model: str) -> dict[str, Any]:
    """One row: test log-likelihood per row, mean and standard error over test rows."""
    data = prepare(name, split)
    if model in FLOWS:
        found = flows(candidates(model, len(data.train)), data, SECONDS[name], split)
    else:
        found = gaussian_mixture(data, SECONDS[name], 64 if model == "mixture" else 1)
    row = {
        "set": name,
        "split": split,
        "model": model,
        "budget": SECONDS[name],
        "rows": [len(data.train), len(data.validation), len(data.test)],
        "columns": len(data.columns),
        "resolution": data.resolution,
    }
    SCORES.mkdir(parents=True, exist_ok=True)
    for kind in ("scores", "mixture_scores"):
        if kind in found:
            scores = found.pop(kind)
            np.save(SCORES / f"{name}-{split}-{model}-{kind}.npy", scores)
            key = "test" if kind == "scores" else "mixture"
            row[key], row[f"{key}_error"] = moments(scores)
    return row | found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A set and a contender: mean over the splits and its standard error; of ours, the paired gap to the best other.

    A contender is a model or, as `model, mixture`, the mixture of its flows. The standard error is that of the mean
    over all test rows. The best other has the highest mean of all contenders that are not ours.
    """
    out: dict[str, Any] = {}
    for name in FILES:
        found: dict[str, list[Array]] = {}
        for row in (r for r in rows if r["set"] == name):
            for kind, suffix in (("scores", ""), ("mixture_scores", ", mixture")):
                path = SCORES / f"{name}-{row['split']}-{row['model']}-{kind}.npy"
                if path.exists():
                    found.setdefault(row["model"] + suffix, []).append(np.load(path))
        full = {k: np.concatenate(v) for k, v in found.items() if len(v) == SPLITS}
        out[name] = {
            k: dict(zip(("mean", "error"), moments(v), strict=True))
            | {"splits": [float(part.mean()) for part in found[k]]}
            for k, v in full.items()
        }
        others = {k: v for k, v in full.items() if not k.startswith("diffeo")}
        best = max(others, key=lambda k: others[k].mean(), default=None)
        for ours in ("diffeo", "diffeo, mixture"):
            if best is not None and ours in full:
                gap, error = moments(full[ours] - others[best])
                out[name][ours]["best_other"] = {"model": best, "gap": gap, "error": error}
    return out


def moments(values: Array) -> tuple[float, float]:
    """Mean, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--sets", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--splits", nargs="+", type=int, default=list(range(SPLITS)))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.sets:
        for split in arguments.splits:
            for model in arguments.models:
                document = read("tables")
                rows = document.get("rows", [])
                if any((r["set"], r["split"], r["model"]) == (name, split, model) for r in rows):
                    continue
                rows.append(measure(name, split, model))
                print({k: v for k, v in rows[-1].items() if k != "members"}, flush=True)
                document = provenance("python scripts/tables.py") | {
                    "rows": rows,
                    "summary": summary(rows),
                }
                write("tables", document)


if __name__ == "__main__":
    main()
