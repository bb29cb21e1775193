"""Tables of scripts/restoring.py, from what it stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from measured_images import MISSING, lines

Found = Mapping[str, Any]
MASKS = {"centre": "the middle", "half": "the right half", "random": "half of the pixels"}


def denoising(rows: Sequence[Found]) -> str:
    """PSNR by noise level."""
    names = ("noisy", "median", "total variation", "most likely", "posterior mean")
    return _psnr(rows, names, "noise", "total variation")


def inpainting(rows: Sequence[Found]) -> str:
    """PSNR over the hidden pixels by mask."""
    names = ("mean of training pictures", "biharmonic", "most likely", "posterior mean")
    return _psnr(rows, names, "hidden", "biharmonic")


def chains(rows: Sequence[Found]) -> str:
    """What the draws are worth."""
    table = [
        (
            "",
            "converged",
            "R-hat, median (worst)",
            "effective draws, median (least)",
            "accepted",
        )
    ]
    for r in rows:
        rhat, effective = r["rhat"], r["effective"]
        shown = (
            f"{rhat[0]:.3f} ({rhat[-1]:.2f})",
            f"{effective[0]:.0f} ({effective[-1]:.0f})",
            _percent(r["accepted"]),
        )
        table.append((_name(r), _percent(r["converged"]), *shown))
    one = rows[0]["settings"]
    each = median(r["seconds"] for r in rows)
    text = (
        f"{one['pictures']} pictures, {one['chains']} chains of {one['draws']} draws each after {one['warmup']}, "
        f"trajectories of at most {one['leapfrog']} steps: "
        f"{each / one['pictures']:.0f} seconds a picture on one core."
    )
    return f"{lines(table)}\n\n{text}"


def calibration(rows: Sequence[Found]) -> str:
    """Whether deviations tell errors."""
    table = [
        (
            "",
            "truth within the 90 % interval",
            "correlation of deviation and error",
            "ranks uniform, p",
        )
    ]
    for r in rows:
        mean, error = r["coverage"]
        within = f"{100 * mean:.1f} ± {100 * error:.1f} %"
        uniform = f"{r['uniform']:.2f}" if "uniform" in r else ""
        table.append((_name(r), within, f"{r['correlation']:.2f}", uniform))
    return lines(table)


TABLES: dict[str, Callable[[Sequence[Found]], str]] = {
    "denoising": denoising,
    "inpainting": inpainting,
    "chains": chains,
    "calibration": calibration,
}


def restoring(document: Found | None, arguments: str) -> str:
    """`<!-- restoring denoising digits -->`."""
    kind, data = arguments.split()
    rows = list((document or {}).get(data, {}).values())
    order = list(MASKS)
    rows.sort(
        key=lambda r: (
            r["drawn"],
            order.index(r["kind"]) + 1 if r["kind"] in order else r["kind"],
        )
    )
    if kind in ("denoising", "inpainting"):
        wanted = kind == "inpainting"
        rows = [r for r in rows if (r["kind"] in MASKS) == wanted and not r["drawn"]]
    return TABLES[kind](rows) if rows else MISSING


def _psnr(rows: Sequence[Found], names: Sequence[str], first: str, baseline: str) -> str:
    table = [(first, *names, f"mean above {baseline}")]
    for r in rows:
        cells = [_pm(r["psnr"][name]) for name in names]
        table.append((_name(r), *cells, _pm(r["gain"])))
    return lines(table)


def _pm(value: Sequence[float]) -> str:
    return f"{value[0]:.1f} ± {value[1]:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _name(row: Found) -> str:
    name = MASKS.get(row["kind"]) or f"σ = {row['sigma']:g}"
    return f"{name}, drawn by the flow" if row["drawn"] else name
