"""Flow++'s ablation on digits, into results/dequantization.json: fixed steps, three paired seeds.

    python scripts/dequantization.py [--couplings mixture affine] [--noises variational uniform]

Uniform against variational dequantization, affine against mixture couplings: in table 3 of the paper (arXiv:1902.00275)
both are worse, 3.29 and 3.20 against 3.17 bits/dim on CIFAR-10. All runs of a seed see the same batches. A row of the
results is a coupling, a noise and a seed, with the bound and the importance-weighted bound; one that is stored is not
repeated.
"""

from __future__ import annotations

import argparse
from statistics import mean, stdev
from typing import Any

from stored import provenance, read, write

COUPLINGS = ("mixture", "affine")
NOISES = ("variational", "uniform")
SEEDS = (0, 1, 2)
STEPS = 800
SAMPLES = 32
HYPER = {"blocks": 1, "dequantizer_couplings": 2, "dropout": 0.3}
TRAINING = {
    "lr": 3e-3,
    "batch_size": 64,
    "clip": 1.0,
    "ema": 0.99,
    "initialize_rows": 256,
    "validate_every": 100,
    "threads": 1,
}


def run(coupling: str, noise: str, seed: int, steps: int) -> dict[str, Any]:
    """One row: test bits/dim of the best validated weights."""
    import torch

    import diffeo
    from diffeo.evaluation import evaluate
    from diffeo.training.recipe import recipe
    from diffeo.training.run import build_flow, read_data

    torch.set_num_threads(1)
    chosen = recipe(
        {
            "model": "flowpp",
            "hyper": HYPER | {"coupling": coupling, "dequantization": noise},
            "data": {"source": "digits"},
            "training": TRAINING | {"seed": seed, "steps": steps},
        }
    )
    split = read_data(chosen)
    flow = build_flow(chosen, split)
    made = diffeo.fit(flow, split, progress=False, **chosen.training.model_dump())
    bound, weighted = evaluate(flow, split), evaluate(flow, split, importance=SAMPLES)
    return {
        "coupling": coupling,
        "noise": noise,
        "seed": seed,
        "steps": steps,
        "seconds": round(made.metrics["seconds"], 1),
        "parameters": flow.num_parameters,
        "bits": bound.bits,
        "bits_error": bound.bits_error,
        "note": bound.note,
        "weighted": weighted.bits,
        "weighted_error": weighted.bits_error,
        "weighted_kind": weighted.kind,
        "recipe": chosen.model_dump(),
    }


def summary(rows: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Means over the seeds, and the paired gaps of what the paper calls worse, with standard errors.

    shown: the gap is above two standard errors, of at least three seeds.
    """
    chosen = [r for r in rows if r["steps"] == steps]
    out: dict[str, Any] = {"runs": {}, "gaps": {}}
    for value in ("bits", "weighted"):
        found = {(r["coupling"], r["noise"], r["seed"]): r[value] for r in chosen}

        def gap(
            name: str, worse: tuple[str, str], better: tuple[str, str], found: Any, value: str
        ) -> None:
            gaps = [
                found[(*worse, s)] - found[(*better, s)]
                for s in SEEDS
                if (*worse, s) in found and (*better, s) in found
            ]
            if len(gaps) > 1:
                entry = {"seeds": len(gaps), "gap": mean(gaps), "error": error(gaps)}
                entry["shown"] = len(gaps) > 2 and entry["gap"] > 2 * entry["error"]
                out["gaps"].setdefault(value, {})[name] = entry

        for coupling in COUPLINGS:
            for noise in NOISES:
                bits = [found[(coupling, noise, s)] for s in SEEDS if (coupling, noise, s) in found]
                if len(bits) > 1:
                    entry = {"seeds": len(bits), "bits": mean(bits), "error": error(bits)}
                    out["runs"].setdefault(value, {})[f"{coupling}, {noise}"] = entry
            name = f"uniform - variational, {coupling}"
            gap(name, (coupling, "uniform"), (coupling, "variational"), found, value)
        for noise in NOISES:
            gap(f"affine - mixture, {noise}", ("affine", noise), ("mixture", noise), found, value)
    return out


def error(values: list[float]) -> float:
    """Standard error of the mean."""
    return float(stdev(values) / len(values) ** 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--couplings", nargs="+", choices=COUPLINGS, default=list(COUPLINGS))
    parser.add_argument("--noises", nargs="+", choices=NOISES, default=list(NOISES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=STEPS, help="fewer, to try the script")
    arguments = parser.parse_args()
    # Seed by seed, so that what is stored early can be compared already.
    tasks = [
        (coupling, noise, seed, arguments.steps)
        for seed in arguments.seeds
        for coupling in arguments.couplings
        for noise in arguments.noises
    ]
    for task in tasks:
        rows = read("dequantization").get("rows", [])
        if any((r["coupling"], r["noise"], r["seed"], r["steps"]) == task for r in rows):
            continue
        rows.append(run(*task))
        print({k: v for k, v in rows[-1].items() if k != "recipe"}, flush=True)
        made = {"rows": rows, "summary": summary(rows, arguments.steps)}
        write("dequantization", provenance("python scripts/dequantization.py") | made)


if __name__ == "__main__":
    main()
