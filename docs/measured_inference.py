"""Tables of scripts/sbi_tasks.py, from what it stored."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from measured_images import MISSING, lines, over_seeds, verdict

Document = Mapping[str, Any]
HEAD = (
    "task",
    "simulations",
    "C2ST, diffeo",
    "C2ST, sbi",
    "sbi - diffeo",
    "error of means, diffeo",
    "sbi",
    "outside of the prior, diffeo",
    "sbi",
    "seconds",
)


def sbi(document: Document | None, method: str) -> str:
    """`<!-- sbi NPE -->`: a row a task and a number of simulations; means over the observations, then over seeds."""
    rows = [r for r in (document or {}).get("rows", []) if r["method"] == method]
    if not rows:
        return MISSING
    shown = [HEAD if method == "NPE" else (*HEAD[:7], HEAD[-1])]
    for task, n in dict.fromkeys((r["task"], r["simulations"]) for r in rows):
        same = [r for r in rows if (r["task"], r["simulations"]) == (task, n)]
        c2st, error = (
            {m: _by_seed(same, m, key) for m in ("diffeo", "sbi")} for key in ("c2st", "mean")
        )
        cells = [
            task.replace("_", " "),
            f"{n:,}",
            over_seeds(c2st["diffeo"]),
            over_seeds(c2st["sbi"]),
            verdict(c2st["sbi"], c2st["diffeo"]),
            over_seeds(error["diffeo"]),
            over_seeds(error["sbi"]),
        ]
        if method == "NPE":
            for m in ("diffeo", "sbi"):
                leaked = _by_seed(same, m, "outside")
                cells.append(f"{mean(leaked.values()):.1%}" if any(leaked.values()) else "0")
        seconds = [r["seconds"] for r in same if r["model"] == "diffeo"]
        cells.append(f"{mean(seconds):.0f}" if seconds else MISSING)
        shown.append(tuple(cells))
    return lines(shown)


def _by_seed(rows: list[dict[str, Any]], model: str, key: str) -> dict[int, float]:
    return {r["seed"]: mean(r[key]) for r in rows if r["model"] == model}
