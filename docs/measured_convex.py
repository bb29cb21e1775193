"""Tables of scripts/convex.py, from what it stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from measured_images import MISSING, lines

Row = Mapping[str, Any]
Rows = Sequence[Row]


def _pm(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _over_seeds(rows: Rows, key: str, digits: int) -> str:
    """Mean and standard error over the runs; of one run its value."""
    values = [row[key] for row in rows]
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return _pm(mean(values), stdev(values) / len(values) ** 0.5, digits)


def estimators(rows: Rows, _: Mapping[str, Any]) -> str:
    """A row a size and a number of steps."""
    head = ("D", "steps", "log det", "Gauss − truth", "Radau − truth", "deviation of a probe")
    table = [(*head, "gradient: bias", "its noise", "of a probe", "kept, exact", "kept")]
    for row in rows:
        values = (f"{row['size']}", f"{row['krylov']}", f"{row['log_det']:.2f}")
        gaps = tuple(_pm(row[k], row[f"{k}_error"], 4) for k in ("gauss", "radau"))
        slope = tuple(f"{row[f'gradient_{k}']:.1%}" for k in ("bias", "error", "deviation"))
        kept = tuple(f"{row[k] / 2**20:.2f} MB" for k in ("saved_exact", "saved"))
        table.append((*values, *gaps, f"{row['radau_deviation']:.2f}", *slope, *kept))
    return lines(table)


def gaussians(rows: Rows, _: Mapping[str, Any]) -> str:
    """A row a size and a model, over the seeds."""
    table = [
        ("D", "model", "seeds", "KL, nats", "cost", "least cost", "above it", "‖z − best‖² / D")
    ]
    for size, model in sorted({(r["size"], r["model"]) for r in rows}):
        some = [r for r in rows if (r["size"], r["model"]) == (size, model)]
        excess = mean(r["excess"] for r in some)
        numbers = (_over_seeds(some, "kl", 4), f"{mean(r['cost'] for r in some):.3f}")
        best = (f"{mean(r['best'] for r in some):.3f}", f"{excess:.1%}")
        far = _over_seeds(some, "distance", 4)
        table.append((f"{size}", f"`{model}`", f"{len(some)}", *numbers, *best, far))
    return lines(table)


def densities(rows: Rows, _: Mapping[str, Any]) -> str:
    """A row a density, over the seeds."""
    head = ("density", "seeds", "KL, exact", "KL, estimate", "worst round trip, float32", "float64")
    table = [(*head, "worst condition", "minutes")]
    for name in dict.fromkeys(r["data"] for r in rows):
        some = [r for r in rows if r["data"] == name]
        numbers = (_over_seeds(some, "kl", 4), _over_seeds(some, "kl_estimate", 4))
        trips = tuple(
            f"{max(r[f'round_trip_{d}'] for r in some):.1e}" for d in ("float32", "float64")
        )
        end = (
            f"{max(r['condition'] for r in some):.0f}",
            f"{mean(r['seconds'] for r in some) / 60:.1f}",
        )
        table.append((name, f"{len(some)}", *numbers, *trips, *end))
    return lines(table)


def digits(rows: Rows, _: Mapping[str, Any]) -> str:
    """One sentence a run."""
    return "\n\n".join(
        f"After {row['seconds'] / 60:.0f} minutes: {_pm(row['bits'], row['bits_error'], 3)} bits/dim on the test part "
        f"({row['kind']}, {row['note']}), {_pm(row['estimate'], row['estimate_error'], 3)} by its estimate, "
        f"{row['parameters']:,} parameters, validation "
        + ", ".join(f"{nats:.1f}" for _, nats in row["curve"][:: max(1, len(row["curve"]) // 8)])
        + f" nats in turn, worst round trip in float64 {row['round_trip_float64']:.1e}."
        for row in rows
    )


def uci(rows: Rows, others: Mapping[str, Any]) -> str:
    """A row a set: this model, and what results/tables.json has of the others."""
    models = ("gaussian", "mixture", "zuko", "nflows", "diffeo")
    names = {"diffeo": "diffeo's best there"}
    table = [("table", "splits", "`cpflow`", "mixture of runs", *(names.get(m, m) for m in models))]
    for name in dict.fromkeys(r["set"] for r in rows):
        some = [r for r in rows if r["set"] == name]
        ours = tuple(
            _pm(mean(r[k] for r in some), mean(r[f"{k}_error"] for r in some), 2)
            for k in ("test", "mixture")
        )
        found = others.get("summary", {}).get(name, {})
        rest = tuple(
            _pm(found[m]["mean"], found[m]["error"], 2) if m in found else "–" for m in models
        )
        table.append((name, f"{len(some)}", *ours, *rest))
    return lines(table)


TABLES = {
    "estimators": estimators,
    "gaussians": gaussians,
    "densities": densities,
    "digits": digits,
    "uci": uci,
}


def convex(document: Mapping[str, Any] | None, others: Mapping[str, Any] | None, part: str) -> str:
    """`<!-- convex gaussians -->`."""
    rows = [r for r in (document or {}).get("rows", []) if r["section"] == part]
    return TABLES[part](rows, others or {}) if rows else MISSING
