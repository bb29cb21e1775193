"""Tables of scripts/strings.py, from what it stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from measured_images import MISSING, lines

Found = Mapping[str, Any]
LAYERS = {
    "categorical": "autoregressive, exact (`size: small`)",
    "mixture, uniform": "mixture couplings, uniform noise",
    "mixture, variational": "mixture couplings, variational noise",
    "affine, uniform": "affine couplings as PassFlow's, uniform noise",
}


def _pm(row: Found, key: str, digits: int) -> str:
    return f"{row[key]:.{digits}f} ± {row[f'{key}_error']:.{digits}f}"


def bits(document: Found, data: str) -> str:
    """Bits on held-out strings, of the models and of n-grams."""
    rows = [("model", "bits a string", "bits a symbol", "kind", "codes of no string", "minutes")]
    for name, shown in LAYERS.items():
        row = document.get("rows", {}).get(f"{data}, {name}")
        if row is not None:
            numbers = (_pm(row, "bits", 2), _pm(row, "per_symbol", 3), row["kind"])
            end = (f"{row['ill_formed']:.1%}", f"{row['seconds'] / 60:.1f}")
            rows.append((shown, *numbers, *end))
            if "one_draw" in row:
                once = row["one_draw"]
                numbers = (_pm(once, "bits", 2), _pm(once, "per_symbol", 3), "bound, one draw")
                rows.append(("the same", *numbers, "", ""))
    for name, row in document.get("baselines", {}).get(data, {}).items():
        smoothed = f", Kneser-Ney, d = {row['discount']}" if "discount" in row else ""
        numbers = (_pm(row, "bits", 2), _pm(row, "per_symbol", 3), "exact")
        rows.append((name + smoothed, *numbers, "0.0%", ""))
    return lines(rows)


def samples(document: Found, data: str) -> str:
    """Strings that the model made, and how many of its samples it has seen."""
    row = document["rows"][f"{data}, categorical"]
    return f"{', '.join(row['samples'])}. Of {row['known']:.0%} of all samples the model has seen a copy."


def correlations(document: Found, data: str) -> str:
    """Rank correlations of strengths."""
    row = document["rows"][f"{data}, categorical"]
    table = [("on held-out passwords", "Spearman's ρ", "Kendall's τ")]
    for name, found in row["correlations"].items():
        table.append((name, _pm(found, "spearman", 3), _pm(found, "kendall", 3)))
    auc = ", ".join(f"{name} {value:.3f}" for name, value in row["auc"].items())
    return (
        lines(table)
        + f"\n\n{row['judged']} passwords. Told from random strings of the same characters and lengths with an "
        f"area under the curve of: {auc}. The median rank is {row['rank_median']:.2g}, half of the intervals are "
        f"narrower than a factor of {row['rank_width']:.2f}, and {row['rank_open']:.1%} have no upper end."
    )


TABLES = {"bits": bits, "samples": samples, "correlations": correlations}


def strings(document: Found | None, arguments: str) -> str:
    """`<!-- strings bits names -->`."""
    kind, data = arguments.split()
    rows = (document or {}).get("rows", {})
    if not any(name.startswith(f"{data}, ") for name in rows):
        return MISSING
    if kind != "bits" and f"{data}, categorical" not in rows:
        return MISSING
    return TABLES[kind](document or {}, data)
