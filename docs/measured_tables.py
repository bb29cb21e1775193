"""Tables of scripts/tables_synthetic.py and scripts/large_tables.py, from what they stored."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any

from measured_images import MISSING, lines

Found = Mapping[str, Any]
COPIES = {
    "real": "training rows",
    "tabular": "`tabular`, couplings",
    "tabular, AR": "`tabular`, autoregressive",
    "copula": "Gaussian copula, fitted marginals",
    "copulas": "Gaussian copula of `copulas`, beta marginals",
}
PARTS = ("small", "middle", "large")
COMMANDS = ("train", "sample", "score")


def _runs(document: Found | None) -> dict[str, list[Found]]:
    """Rows by name, a run a seed."""
    found: dict[str, list[Found]] = {}
    for key, row in (document or {}).get("rows", {}).items():
        found.setdefault(key.rsplit(", ", 1)[0], []).append(row)
    return found


def synthetic(document: Found | None, _: str = "") -> str:
    """`<!-- synthetic -->`: a row a copy of adult; means over the seeds."""
    runs = _runs(document)
    if not runs:
        return MISSING
    head = (
        "copy",
        "AUC of income",
        "over seeds",
        "mean AUC",
        "told apart",
        "columns",
        "pairs",
        "closer to training",
    )
    shown = [head]
    for name, label in COPIES.items():
        if not (same := runs.get(name)):
            continue

        def over(key: str, digits: int = 3, same: list[Found] = same) -> str:
            return f"{mean(row[key] for row in same):.{digits}f}"

        def pm(key: str, digits: int = 3) -> str:
            return f"{over(key, digits)} ± {over(f'{key}_error', digits)}"

        areas = [row["area"] for row in same]
        spread = f"± {stdev(areas):.4f}, n = {len(areas)}" if len(areas) > 1 else "n = 1"
        share, error = (100 * mean(row[k] for row in same) for k in ("share", "share_error"))
        cells = (
            pm("area"),
            spread,
            over("mean_area"),
            pm("told"),
            over("distance"),
            over("associations"),
        )
        # Of training rows every one is its own closest.
        shown.append((label, *cells, "" if name == "real" else f"{share:.1f} ± {error:.1f} %"))
    return lines(shown)


def large(document: Found | None, _: str = "") -> str:
    """`<!-- large -->`: peak memory at each size, private beside resident, and its growth a row."""
    parts = [document[p] for p in PARTS if p in document] if document else []
    if not parts:
        return MISSING
    shown = [("rows", "file", *COMMANDS)]
    for part in parts:
        peaks = (_peak(part[c]) for c in COMMANDS)
        shown.append((f"{part['rows']:,}", f"{part['file_megabytes']:.1f} MB", *peaks))
    # Of the largest two: what is bounded has reached its bound there.
    first, last = parts[-2:] if len(parts) > 1 else (parts[0], parts[0])
    rows = last["rows"] - first["rows"]
    if rows > 0:
        growth = (
            f"{1e6 * (last[c]['megabytes'] - first[c]['megabytes']) / rows:.0f} B" for c in COMMANDS
        )
        size = 1e6 * (last["file_megabytes"] - first["file_megabytes"]) / rows
        shown.append(("growth a row", f"{size:.0f} B", *growth))
    return lines(shown)


def _peak(found: Found) -> str:
    private = found.get("private")
    return f"{found['megabytes']:.0f} MB" + (f" ({private:.0f})" if private is not None else "")
