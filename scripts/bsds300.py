"""BSDS300 patches into results/bsds300.json: the full-covariance Gaussian, or one flow; needs DIFFEO_DATA.

    python scripts/bsds300.py                             the Gaussian row, seconds
    python scripts/bsds300.py --model maf --minutes 40    train recipes/maf-bsds300-small.yaml, test on all patches
    python scripts/bsds300.py --model maf --minutes 40 training.lr=5e-4

A run is a folder in runs/bsds300: one that is finished is only read, one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from stored import ROOT, provenance, read, write

RUNS = ROOT / "runs" / "bsds300"
MODELS = ("maf", "nsf_coupling", "nsf_autoregressive")
SPLITS = 200  # random choices of the validation pictures, and of the test pictures


def gaussian() -> dict[str, Any]:
    """The published baseline on our patches, and how much it owes to the pictures in each part."""
    from diffeo.data import load
    from diffeo.evaluation import baselines

    data = load("bsds300")
    start = time.monotonic()
    (row,) = baselines(data)
    seconds = time.monotonic() - start
    return {
        "nats": -row.nats,
        "error": row.nats_error,
        "kind": row.kind,
        "seconds": round(seconds, 1),
        "rows": [len(data.train), len(data.validation), len(data.test)],
        "source": re.sub(r"^.*?; ", "", data.source),
        **other_pictures(data),
    }


def other_pictures(data: Any) -> dict[str, float]:
    """The same row if other pictures were held out, or none, and its standard error over test pictures (bootstrap).

    E log N(x; m, C) needs the moments alone, and row i of a part is from its picture i mod n.
    """
    import torch

    def moments(x: Any, pictures: int) -> tuple[Any, Any]:
        x = x[: len(x) // pictures * pictures].reshape(-1, pictures, x.shape[1])
        each = [x[:, i].double() for i in range(pictures)]
        return torch.stack([p.mean(0) for p in each]), torch.stack([p.T @ p / len(p) for p in each])

    sizes = [int(n) for n in re.findall(r"(\d+) (?:train|validation|test)", data.source)]
    train, validation, test = (
        moments(getattr(data, part), n)
        for part, n in zip(("train", "validation", "test"), sizes, strict=True)
    )
    first, second = (torch.cat(pair) for pair in zip(train, validation, strict=True))

    def row(fitted: Any, seen: Any) -> float:
        mean = first[fitted].mean(0)
        covariance = second[fitted].mean(0) - torch.outer(mean, mean)
        shift = test[0][seen].mean(0)
        spread = (
            test[1][seen].mean(0)
            - torch.outer(mean, shift)
            - torch.outer(shift, mean)
            + torch.outer(mean, mean)
        )
        trace = torch.linalg.solve(covariance, spread).trace()
        return float(-0.5 * (len(mean) * math.log(2 * math.pi) + covariance.logdet() + trace))

    g = torch.Generator().manual_seed(0)
    everything, all_test = torch.arange(len(first)), torch.arange(len(test[0]))
    n = len(everything)
    splits = [row(torch.randperm(n, generator=g)[: sizes[0]], all_test) for _ in range(SPLITS)]
    again = [
        row(torch.arange(sizes[0]), torch.randint(len(all_test), (len(all_test),), generator=g))
        for _ in range(SPLITS)
    ]
    return {
        "all_pictures": row(everything, all_test),
        "splits_mean": float(torch.tensor(splits).mean()),
        "splits_deviation": float(torch.tensor(splits).std()),
        "error_over_pictures": float(torch.tensor(again).std()),
    }


def train(model: str, minutes: float, overrides: Sequence[str]) -> dict[str, Any]:
    """Train, unless that was done, and read the folder."""
    folder = RUNS / "-".join([model, f"{minutes:g}", *(re.sub(r"\W", "_", o) for o in overrides)])
    settings = [f"training.minutes={minutes:g}", *overrides]
    if not (folder / "results.json").exists():
        command = [sys.executable, "-m", "diffeo", "train", f"recipes/{model}-bsds300-small.yaml"]
        resume = ["--resume"] if (folder / "checkpoints").exists() else []
        options = ["--out", str(folder), "--quiet", *resume]
        subprocess.run([*command, *settings, *options], cwd=ROOT, check=True)
    import yaml

    found = json.loads((folder / "results.json").read_text())
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    row = found["rows"][0]
    kept = ("batch_size", "lr", "ema", "seed", "threads")
    return {
        "model": model,
        "nats": -row["nats"],
        "error": row["nats_error"],
        "kind": row["kind"],
        "validation": -found["metrics"]["validation"],
        "parameters": int(
            re.search(r"([\d,]+) parameters", found["facts"]["model"])[1].replace(",", "")
        ),
        "steps": int(found["metrics"]["steps"]),
        "minutes": round(found["metrics"]["seconds"] / 60, 1),
        "evaluation": found["facts"]["evaluation time"],
        "hyper": recipe["hyper"],
        "training": {k: recipe["training"][k] for k in kept},
        "overrides": list(overrides),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, help="without it: the Gaussian")
    parser.add_argument("--minutes", type=float, default=30, help="of training")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the recipe")
    given = parser.parse_args()
    name = given.model or "gaussian"
    found = train(name, given.minutes, given.overrides) if given.model else gaussian()
    print(name, found, flush=True)
    command = "python scripts/bsds300.py"
    if given.model:
        command += " ".join(
            ["", "--model", name, "--minutes", f"{given.minutes:g}", *given.overrides]
        )
    # Read again: another run may have written while this one trained.
    document = read("bsds300")
    rows = document.get("rows", {}) | {name: found | provenance(command)}
    write("bsds300", {"rows": {k: rows[k] for k in ("gaussian", *MODELS) if k in rows}})


if __name__ == "__main__":
    main()
