"""Real NVP and NICE on MNIST into results/mnist.json and docs/images/mnist-curves.svg; needs DIFFEO_DATA.

    python scripts/mnist.py             both small recipes as they are, and three paired seeds of three minutes
    python scripts/mnist.py --only realnvp-mnist-small

Every run is a folder in runs/mnist: one that is finished is only read, one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from stored import IMAGES, ROOT, provenance, read, write

RUNS = ROOT / "runs" / "mnist"
RECIPES = {"realnvp": "realnvp-mnist-small", "nice": "nice-mnist-small"}
MINUTES = 3
JOBS: dict[str, tuple[str, ...]] = {
    **{recipe: (recipe,) for recipe in RECIPES.values()},
    **{
        f"{model}-{seed}": (
            recipe,
            f"training.minutes={MINUTES}",
            "training.epochs=null",
            f"training.seed={seed}",
            "training.threads=1",
        )
        for seed in range(3)
        for model, recipe in RECIPES.items()
    },
}


def run(name: str, recipe: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Train, unless that was done, and read the folder."""
    folder = RUNS / name
    if not (folder / "results.json").exists():
        command = [sys.executable, "-m", "diffeo", "train", f"recipes/{recipe}.yaml", *overrides]
        resume = ["--resume"] if (folder / "checkpoints").exists() else []
        subprocess.run([*command, "--out", str(folder), *resume], cwd=ROOT, check=True)
    found = json.loads((folder / "results.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    measured = next(iter(rows.values()))
    lines = [s.split(",") for s in (folder / "metrics.csv").read_text().splitlines()]
    at = {key: i for i, key in enumerate(lines[0])}
    return {
        "recipe": recipe,
        "overrides": list(overrides),
        "model": recipe.split("-")[0],
        "bits": measured["bits"],
        "bits_error": measured["bits_error"],
        "nats": measured["nats"],
        "kind": measured["kind"],
        "note": measured["note"],
        "parameters": re.search(r"([\d,]+) parameters", found["facts"]["model"])[1],
        "steps": found["metrics"]["steps"],
        "seconds": round(found["metrics"]["seconds"], 1),
        "others": {
            n: {"bits": r["bits"], "kind": r["kind"]} for n, r in rows.items() if r is not measured
        },
        # Seconds of training and mean -log p of validation rows, in nats.
        "curve": [
            (float(s[at["seconds"]]), float(s[at["validation"]]))
            for s in lines[1:]
            if s[at["validation"]]
        ],
    }


def draw(rows: dict[str, Any]) -> None:
    """Validation bits/dim by minutes of training, of the two recipes."""
    import math

    from matplotlib.figure import Figure

    from diffeo.report.figures import _render

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for recipe in RECIPES.values():
            if recipe in rows:
                seconds, nats = zip(*rows[recipe]["curve"], strict=True)
                bits = [v / (784 * math.log(2)) for v in nats]
                axes.plot([s / 60 for s in seconds], bits, marker=".", label=recipe)
        axes.set_xlabel("minutes of training")
        axes.set_ylabel("validation, bits/dim")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(frameon=False)

    (IMAGES / "mnist-curves.svg").write_bytes(_render((5.5, 2.8), paint))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=list(JOBS), default=list(JOBS))
    chosen = parser.parse_args().only
    document = read("mnist")
    rows = document.get("rows", {})
    for name in chosen:
        recipe, *overrides = JOBS[name]
        rows[name] = run(name, recipe, overrides)
        print(name, {k: v for k, v in rows[name].items() if k != "curve"}, flush=True)
        write("mnist", provenance("python scripts/mnist.py") | {"rows": rows})
    draw(rows)


if __name__ == "__main__":
    main()
