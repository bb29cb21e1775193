"""Tables of scripts/anomaly.py, from what it stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from measured_images import MISSING, lines

Found = Mapping[str, Any]

SETS = {
    "digits": "digits",
    "cifar10": "CIFAR-10",
    "mnist": "MNIST",
    "omniglot": "Omniglot",
    "orl_faces": "ORL faces",
    "bsds300": "BSDS300 crops",
    "blurred": "own test pictures, blurred",
    "flat": "one colour each",
    "noise": "noise",
}
STATISTICS = ("log_prob", "typicality", "complexity", "coarse", "levels", "norm", "combined")


def auroc(found: Found) -> str:
    """A row a strange set: the mean bits/dim of raw likelihood, and the AUROC of every statistic."""
    rows = [("", "bits/dim", *(f"`{name}`" for name in STATISTICS))]
    for name, row in found["sets"].items():
        cells = []
        for statistic in STATISTICS:
            value, error = row["auroc"][statistic]
            text = f"{value:.3f} ± {error:.3f}"
            cells.append(f"**{text}**" if value < 0.5 else text)
        rows.append((SETS.get(name, name), f"{row['bits']:.2f}", *cells))
    ordinary = found["ordinary"]
    return (
        f"{lines(rows)}\n\n{found['model']}; {found['reference']} validation pictures as reference, "
        f"{ordinary['pictures']} test pictures, of {ordinary['bits']:.2f} bits/dim."
    )


def flagged(found: Found) -> str:
    """A row a set: the share of its pictures with a p-value up to alpha."""
    rows = [("", *(f"`{name}`" for name in STATISTICS))]
    sets = {"own test pictures": found["ordinary"]} | {
        SETS.get(name, name): row for name, row in found["sets"].items()
    }
    for name, row in sets.items():
        cells = (f"{100 * row['flagged'][statistic]:.1f} %" for statistic in STATISTICS)
        rows.append((name, *cells))
    return lines(rows)


TABLES: dict[str, Callable[[Found], str]] = {"auroc": auroc, "flagged": flagged}


def anomaly(document: Found | None, arguments: str) -> str:
    """`<!-- anomaly auroc cifar10 -->`."""
    kind, data = arguments.split()
    found = (document or {}).get("runs", {}).get(data)
    return TABLES[kind](found) if found else MISSING
