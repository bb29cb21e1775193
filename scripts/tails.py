"""Flows on bases with other tails: the heavy-tailed experiment of copula-based flows, stored in results/tails.json.

    python scripts/tails.py [--seeds 10] [--minutes 9]

Data: a Gumbel copula (theta 2.5) with Student-t(2) marginals, 10,000 rows to train on and 10,000 to test. Models: the
zoo's `copula` at size paper on each base, 2500 steps of 128 rows, Adam 1e-3, float64. The best value possible, the
entropy of the data, is computed. Runs that are stored are not repeated; --minutes ends before the next run.

Laszkiewicz, Lederer, Fischer. Copula-based normalizing flows. 2021, arXiv:2107.07352.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STORE = Path(__file__).resolve().parent.parent / "results" / "tails.json"
THETA = 2.5
ROWS, STEPS = 10_000, 2500
FAILED = 25.0
"""A run whose test loss is above it counts as failed, as in the authors' code."""

BASES: dict[str, dict[str, Any]] = {
    "normal": {"base": "normal"},
    "heavier": {"base": "heavier"},
    "family": {"base": "student", "df": 5.0},
    "exact": {"base": "student", "df": 2.0},
    "learned": {"base": "learned", "df": 5.0},
    "adaptive": {"base": "adaptive"},
}


def sample(n: int, seed: int) -> Tensor:
    """Rows [n, 2], float64: U_j = exp(-(E_j / S)^(1/theta)), S positive stable (Marshall and Olkin), x = F_t2^-1(U)."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g, dtype=torch.float64).clamp(min=1e-16)

    alpha = 1 / THETA
    w, e = math.pi * uniform(n), -uniform(n).log()
    # Kanter's representation of the positive stable law with Laplace transform exp(-t^alpha).
    s = (
        (alpha * w).sin() / w.sin() ** (1 / alpha)
        * (((1 - alpha) * w).sin() / e) ** ((1 - alpha) / alpha)
    )  # fmt: skip
    u = (-((-uniform(n, 2).log() / s[:, None]) ** alpha)).exp()
    return (2 * u - 1) / (2 * u * (1 - u)).sqrt()


def log_prob(x: Tensor) -> Tensor:
    """log c(F(x_1), F(x_2)) + sum log f(x_j) of rows [n, 2]."""
    root = (2 + x.square()).sqrt()
    log_f = -3 * root.log()
    # F(x) = (1 + x / root) / 2; for negative x by its conjugate, which does not cancel.
    u = torch.where(x > 0, (1 + x / root) / 2, 1 / (root * (root - x)))
    upper = torch.where(x > 0, 1 / (root * (root + x)), 1 - u)
    a = -torch.where(u > 0.5, torch.log1p(-upper), u.log())
    total = a.pow(THETA).sum(1).pow(1 / THETA)
    log_c = (
        -total + ((THETA - 1) * a.log() + a).sum(1) + (1 - 2 * THETA) * total.log()
        + (total + THETA - 1).log()
    )  # fmt: skip
    return log_c + log_f.sum(1)


def optimum(n: int = 2_000_000) -> tuple[float, float]:
    """The entropy of the data in nats, and its standard error."""
    nll = -log_prob(sample(n, 10**6))
    return float(nll.mean()), float(nll.std()) / math.sqrt(n)


def measure(name: str, seed: int) -> dict[str, Any]:
    """One training run: test loss, its gap to the truth on the same rows, and the tails of samples."""
    import diffeo
    from diffeo.distributions import hill, tail_indices
    from diffeo.errors import TrainingError

    train, test = sample(ROWS, 2 * seed), sample(ROWS, 2 * seed + 1)
    settings = dict(BASES[name])
    if name == "adaptive":
        settings["df"] = tail_indices(train).tolist()
    torch.manual_seed(seed)
    flow = diffeo.zoo.build("copula", (2,), size="paper", **settings).double()
    row: dict[str, Any] = {"base": name, "seed": seed, "parameters": flow.num_parameters}
    if name == "adaptive":
        row["df"] = settings["df"]
    began = time.monotonic()
    try:
        diffeo.fit(
            flow, train, steps=STEPS, batch_size=128, lr=1e-3, warmup=0, schedule="constant",
            weight_decay=0.0, seed=seed, threads=1, progress=False,
        )  # fmt: skip
    except TrainingError as error:
        return row | {"failed": True, "why": str(error)}
    row["seconds"] = round(time.monotonic() - began, 1)
    with torch.no_grad():
        found = flow.log_prob(test)
        x = flow.sample(100_000, generator=torch.Generator().manual_seed(seed))
    row["nats"] = float(-found.mean())
    row["kl"] = float((log_prob(test) - found).mean())
    row["failed"] = not row["nats"] <= FAILED
    # P(|x| > q) = 0.001 for t(2): F(q) = 0.9995.
    p = 0.9995
    truth = (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    q = x.abs().quantile(0.999, dim=0)
    row["quantile_error"] = float((q / truth).log().abs().mean())
    row["tail_index"] = hill(x, 300).tolist()
    if name == "learned":
        row["df"] = flow.base.df.tolist()
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the runs of one base: median and trimmed mean (without the best and the worst) of what was measured."""
    good = [r for r in rows if not r["failed"]]
    out: dict[str, Any] = {"runs": len(rows), "failed": len(rows) - len(good)}
    for key in ("nats", "kl", "quantile_error"):
        values = sorted(r[key] for r in good)
        if values:
            out[f"{key}_median"] = float(torch.tensor(values, dtype=torch.float64).quantile(0.5))
            trimmed = values[1:-1] or values
            out[f"{key}_trimmed"] = sum(trimmed) / len(trimmed)
            out[f"{key}_worst"] = values[-1]
    return out


def store(document: dict[str, Any]) -> None:
    STORE.parent.mkdir(exist_ok=True)
    temporary = STORE.with_suffix(".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(STORE)


def main() -> None:
    from results import machine

    import diffeo

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=math.inf)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * arguments.minutes
    document = json.loads(STORE.read_text()) if STORE.exists() else {"rows": []}
    if "optimum" not in document:
        document["optimum"], document["optimum_error"] = optimum()
    done = {(r["base"], r["seed"]) for r in document["rows"]}
    for seed in range(arguments.seeds):
        for name in BASES:
            if (name, seed) in done or time.monotonic() > end:
                continue
            row = measure(name, seed)
            print(row, flush=True)
            document["rows"].append(row)
            document |= {
                "command": "python scripts/tails.py",
                "machine": machine(),
                "versions": f"diffeo {diffeo.__version__}, torch {torch.__version__}, "
                f"Python {platform.python_version()}",
                "date": str(date.today()),
                "steps": STEPS,
                "summary": {
                    b: summary([r for r in document["rows"] if r["base"] == b]) for b in BASES
                },
            }
            store(document)


if __name__ == "__main__":
    main()
