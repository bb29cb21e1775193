"""Glow's permutation ablation on digits, into results/ablation.json: fixed steps, three paired seeds.

    python scripts/ablation.py [--couplings affine additive] [--mixings reverse shuffle conv1x1]

Figure 3 of the paper (arXiv:1807.03039) has the order reverse > shuffle > conv1x1 of the negative log-likelihood, for
both couplings. All runs of a seed see the same batches and the same noise. A row of the results is a coupling, a
mixing and a seed; a row that is stored is not repeated.
"""

from __future__ import annotations

from typing import Any

from results import measure
from stored import fill

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
    return measure("glow", hyper, {"source": "digits"}, training)


if __name__ == "__main__":
    AXES = {"coupling": ("affine", "additive"), "mixing": ("reverse", "shuffle", "conv1x1")}
    fill("ablation", __doc__ or "", AXES, run, steps=1000, budget="budget")
