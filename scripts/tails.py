"""Flows on bases with other tails: the heavy-tailed experiment of copula-based flows, stored in results/tails.json.

    python scripts/tails.py [--bases normal exact ...]

Data: a Gumbel copula (theta 2.5) with Student-t(2) marginals, 10,000 rows to train on and 10,000 to test. Models: the
zoo's `copula` at size paper on each base, 2500 steps of 128 rows, Adam 1e-3, float64, no clipping, 10 seeds, each with
data of its own. The seeds of a base are trained together, as one batch of independent flows (torch.func.vmap). The best
value possible, the entropy of the data, is computed.

Laszkiewicz, Lederer, Fischer. Copula-based normalizing flows. 2021, arXiv:2107.07352.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import torch
from torch import Tensor

THETA = 2.5
ROWS, STEPS, BATCH, SEEDS = 10_000, 2500, 128, 10
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


def optimum(n: int = 1_000_000) -> tuple[float, float]:
    """The entropy of the data in nats, and its standard error."""
    nll = -log_prob(sample(n, 10**6))
    return float(nll.mean()), float(nll.std()) / math.sqrt(n)


def train(flows: list[Any], data: Tensor) -> list[Any]:
    """Adam on the mean of -log p, for every flow alone: data [flows, rows, 2]."""
    from torch.func import functional_call, stack_module_state, vmap

    params, buffers = stack_module_state(flows)
    pattern = flows[0]

    def loss(params: Any, buffers: Any, x: Tensor) -> Tensor:
        out: Tensor = functional_call(pattern, (params, buffers), (x,))
        return -out.mean()

    optimizer = torch.optim.Adam(params.values(), lr=1e-3)
    g = torch.Generator().manual_seed(0)
    each = torch.arange(len(flows))[:, None]
    for _ in range(STEPS):
        rows = torch.randint(ROWS, (len(flows), BATCH), generator=g)
        optimizer.zero_grad()
        # The sum keeps the flows apart: the gradient of each is of its own loss, also if another's is NaN.
        vmap(loss)(params, buffers, data[each, rows]).sum().backward()
        optimizer.step()
    for i, flow in enumerate(flows):
        flow.load_state_dict(
            {k: v[i].detach() for k, v in (params | buffers).items()}, strict=False
        )
    return flows


def measure(name: str) -> list[dict[str, Any]]:
    """One run a seed: test loss, its gap to the truth on the same rows, and the tails of samples."""
    import diffeo
    from diffeo.distributions import tail_indices

    data = torch.stack([sample(ROWS, 2 * seed) for seed in range(SEEDS)])
    began, flows, degrees = time.monotonic(), [], []
    for seed in range(SEEDS):
        settings = dict(BASES[name])
        if name == "adaptive":
            degrees.append(tail_indices(data[seed]).tolist())
            settings["df"] = degrees[-1]
        torch.manual_seed(seed)
        flows.append(diffeo.zoo.build("copula", (2,), size="paper", **settings).double().eval())
    train(flows, data)
    seconds = round((time.monotonic() - began) / SEEDS, 1)
    found = []
    for seed, flow in enumerate(flows):
        row = {"base": name, "seed": seed, "parameters": flow.num_parameters, "seconds": seconds}
        if degrees:
            row["estimated_df"] = degrees[seed]
        if name in ("learned", "adaptive"):
            row["df"] = flow.base.df.tolist()
        found.append(row | judge(flow, seed))
        print(found[-1], flush=True)
    return found


def judge(flow: Any, seed: int) -> dict[str, Any]:
    """Likelihood on test rows and quantiles of samples."""
    from diffeo.distributions import hill

    test = sample(ROWS, 2 * seed + 1)
    with torch.no_grad():
        log_q = flow.log_prob(test)
        nats = float(-log_q.mean())
        if not nats <= FAILED:
            return {"failed": True, "nats": nats if math.isfinite(nats) else None}
        x = flow.sample((100_000,), generator=torch.Generator().manual_seed(seed))
    # P(|x| > q) = 0.001 for t(2): F(q) = 0.9995.
    p = 0.9995
    truth = (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    q = x.abs().quantile(0.999, dim=0)
    return {
        "failed": False,
        "nats": nats,
        "kl": float((log_prob(test) - log_q).mean()),
        "quantile_error": float((q / truth).log().abs().mean()),
        "tail_index": hill(x, 300).tolist(),
    }


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


def main() -> None:
    from stored import provenance, read, write

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--bases", nargs="+", choices=BASES, default=list(BASES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    document = read("tails")
    document["optimum"], document["optimum_error"] = optimum()
    for name in arguments.bases:
        rows = [r for r in document.get("rows", []) if r["base"] != name] + measure(name)
        by = {b: [r for r in rows if r["base"] == b] for b in BASES}
        document |= provenance("python scripts/tails.py")
        document["rows"] = [r for b in BASES for r in by[b]]
        document["summary"] = {b: summary(found) for b, found in by.items() if found}
        write("tails", document)


if __name__ == "__main__":
    main()
