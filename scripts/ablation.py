"""Glow's permutation ablation on digits, into results/ablation.json: fixed steps, three paired seeds.

    python scripts/ablation.py [--couplings affine additive] [--mixings reverse shuffle conv1x1]

Figure 3 of the paper (arXiv:1807.03039) has the order reverse > shuffle > conv1x1 of the negative log-likelihood, for
both couplings. All runs of a seed see the same batches and the same noise. A row of the results is a coupling, a
mixing and a seed; a row that is stored is not repeated.
"""

from __future__ import annotations

import argparse
from statistics import mean, stdev
from typing import Any

from results import measure
from stored import provenance, read, write

COUPLINGS = ("affine", "additive")
MIXINGS = ("reverse", "shuffle", "conv1x1")
SEEDS = (0, 1, 2)
STEPS = 3000
HYPER = {"depth": 8, "width": 32, "alpha": 0.05, "dropout": 0.2}
TRAINING = {
    "lr": 2e-3,
    "batch_size": 64,
    "ema": 0.999,
    "initialize_rows": 256,
    "validate_every": 100,
    "threads": 1,
}


def run(coupling: str, mixing: str, seed: int, steps: int) -> dict[str, Any]:
    """One row: test bits/dim of the best validated weights, and the validation loss in nats."""
    hyper = HYPER | {"coupling": coupling, "mixing": mixing}
    training = TRAINING | {"seed": seed, "steps": steps}
    row = measure("glow", hyper, {"source": "digits"}, training)
    return {"coupling": coupling, "mixing": mixing, "budget": steps} | row


def summary(rows: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Per coupling and mixing: test bits/dim over the seeds, and the paired gap to conv1x1, with standard errors.

    shown: the gap is above two standard errors, of at least three seeds.
    """
    found = {
        (r["coupling"], r["mixing"], r["seed"]): r["bits"] for r in rows if r["budget"] == steps
    }
    out: dict[str, Any] = {}
    for coupling in COUPLINGS:
        for mixing in MIXINGS:
            bits = {s: found[key] for s in SEEDS if (key := (coupling, mixing, s)) in found}
            ours = {s: found[key] for s in SEEDS if (key := (coupling, "conv1x1", s)) in found}
            if len(bits) < 2:
                continue
            entry = {"seeds": len(bits), "bits": mean(bits.values()), "error": error(bits.values())}
            gaps = [bits[s] - ours[s] for s in bits if s in ours]
            if mixing != "conv1x1" and len(gaps) > 1:
                entry |= {"gap": mean(gaps), "gap_error": error(gaps)}
                entry["shown"] = len(gaps) > 2 and entry["gap"] > 2 * entry["gap_error"]
            out.setdefault(coupling, {})[mixing] = entry
    return out


def error(values: Any) -> float:
    """Standard error of the mean."""
    values = list(values)
    return float(stdev(values) / len(values) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--couplings", nargs="+", choices=COUPLINGS, default=list(COUPLINGS))
    parser.add_argument("--mixings", nargs="+", choices=MIXINGS, default=list(MIXINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=STEPS, help="fewer, to try the script")
    arguments = parser.parse_args()
    # Seed by seed, so that what is stored early can be compared already.
    tasks = [
        (coupling, mixing, seed, arguments.steps)
        for coupling in arguments.couplings
        for seed in arguments.seeds
        for mixing in arguments.mixings
    ]
    for task in tasks:
        rows = read("ablation").get("rows", [])
        if any((r["coupling"], r["mixing"], r["seed"], r["budget"]) == task for r in rows):
            continue
        rows.append(run(*task))
        print({k: v for k, v in rows[-1].items() if k != "recipe"}, flush=True)
        made = {"rows": rows, "summary": summary(rows, arguments.steps)}
        write("ablation", provenance("python scripts/ablation.py") | made)


if __name__ == "__main__":
    main()
