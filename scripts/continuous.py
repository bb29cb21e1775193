"""Continuous flows: FFJORD's maximum likelihood beside flow matching, into results/continuous*.json; resumable.

    python scripts/continuous.py densities   the same field, half a minute each, three paired seeds, all 2-D densities
    python scripts/continuous.py samplers    samples in few steps of those models, and how straight their paths are
    python scripts/continuous.py digits      pictures, 15 minutes each
    python scripts/continuous.py uci         tables, with the wall time of scripts/tables.py; needs DIFFEO_DATA

A row that is stored is not repeated; `--only` chooses densities or sets, `--minutes` makes shorter runs.
"""

from __future__ import annotations

import argparse
import itertools
import math
from typing import Any

from stored import ROOT, provenance, read, write

SEEDS = (0, 1, 2)
MINUTES = 0.5
FIELD: dict[str, Any] = {"hidden": [64, 64, 64], "activation": "tanh"}
SOLVER: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
"""Of training and validation; results are to TOLERANCE."""
TOLERANCE = 1e-6
TRAINING: dict[str, Any] = {"batch_size": 512, "lr": 5e-3, "ema": 0.99, "threads": 1}
METHODS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ffjord": ("ffjord", {"time": 1.0, "learn_time": False}, {"validate_rows": 1000}),
    "flow_matching": ("flow_matching", {}, {}),
    "flow_matching, optimal coupling": (
        "flow_matching",
        {},
        {"coupling": "optimal", "batch_size": 128},
    ),
}
"""An assignment costs the cube of its batch: 2 ms for 128 examples, 86 for 512, where a step without takes 3."""
STEPS = (1, 2, 4, 8, 16)
POINTS = 10_000
"""Of the test part, for likelihoods and round trips."""
RUNS = ROOT / "runs" / "continuous"


def fitted(method: str, place: str, seed: int, minutes: float) -> tuple[Any, Any, dict[str, Any]]:
    """The flow of a run, trained unless it was before, its data, and what fit says."""
    import json

    import torch

    import diffeo
    from diffeo.training.recipe import recipe
    from diffeo.training.run import build_flow, read_data

    torch.set_num_threads(1)
    model, hyper, training = METHODS[method]
    chosen = recipe(
        {
            "model": model,
            "hyper": FIELD | SOLVER | hyper,
            "data": {"source": place, "seed": seed, "size": 200_000},
            "training": TRAINING | training | {"minutes": minutes, "seed": seed},
        }
    )
    data = read_data(chosen)
    folder = RUNS / f"{place}-{method.replace(', ', '-').replace(' ', '-')}-{seed}-{minutes:g}"
    if (folder / "metrics.json").exists():
        return diffeo.load(folder), data, json.loads((folder / "metrics.json").read_text())
    flow = build_flow(chosen, data)
    run = diffeo.fit(flow, data, progress=False, **chosen.training.model_dump())
    flow.save(folder)
    (folder / "metrics.json").write_text(json.dumps(run.metrics))
    return flow, data, run.metrics


def density(method: str, place: str, seed: int, minutes: float) -> dict[str, Any]:
    """Test likelihood to TOLERANCE, the gap to the truth, and what the ODE costs."""
    import torch

    from diffeo.solving import evaluations, straightness, with_solver

    flow, data, metrics = fitted(method, place, seed, minutes)
    fine = with_solver(flow, rtol=TOLERANCE, atol=TOLERANCE)
    x = data.test[:POINTS]
    with torch.no_grad():
        found = fine.log_prob(x, batch_size=2000).double()
        gap = data.density.log_prob(x.double()) - found
    row = {
        "steps": int(metrics["steps"]),
        "seconds": round(metrics["seconds"], 1),
        "parameters": flow.num_parameters,
        "nats": float(-found.mean()),
        "nats_error": float(found.std() / math.sqrt(len(found))),
        "kl": float(gap.mean()),
        "kl_error": float(gap.std() / math.sqrt(len(gap))),
        "kind": flow.likelihood,
        "bias": fine.properties.bias,
        "evaluations": evaluations(fine, x[:512]),
        "straightness": float(straightness(fine, x[:1000])),
    }
    # In float64 to a tight tolerance it takes as long as the training: for one seed of each density.
    return row if seed != SEEDS[0] else row | {"round_trip": round_trips(flow, x)}


def round_trips(flow: Any, x: Any) -> dict[str, float]:
    """Worst relative error of decode(encode(x)), to tight tolerances, and the conditioning by the audit."""
    import copy

    import torch

    import diffeo
    from diffeo.solving import with_solver

    found = {}
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-11)):
        same = with_solver(copy.deepcopy(flow), rtol=tolerance, atol=tolerance).to(dtype)
        points = x.to(dtype)
        with torch.no_grad():
            back = same.decode(same.encode(points, batch_size=2000), batch_size=2000)
        worst = (back - points).abs() / points.abs().clamp(min=1)
        name = str(dtype).removeprefix("torch.")
        found[name] = float(worst.max())
        if dtype == torch.float32:
            found["conditioning"] = diffeo.audit(same, points[:256]).conditioning or math.nan
    return found


def samplers(method: str, place: str, seed: int, minutes: float) -> dict[str, Any]:
    """Energy distance of 5000 samples to as many true points, by the solver; that of the truth to itself for scale."""
    import torch

    from diffeo.solving import evaluations, straightness, with_solver

    flow, data, _ = fitted(method, place, seed, minutes)
    generator = torch.Generator().manual_seed(seed)
    truth, other = (data.density.sample(5000, generator=generator) for _ in range(2))
    found: dict[str, Any] = {"truth": energy(other, truth)}
    chosen = {f"euler {n}": {"solver": "euler", "steps": n} for n in STEPS}
    chosen |= {f"rk4 {n}": {"solver": "rk4", "steps": n} for n in STEPS[:3]}
    chosen["dopri5"] = {"rtol": 1e-5, "atol": 1e-5}
    for name, options in chosen.items():
        view = with_solver(flow, **options)
        made = view.sample(5000, generator=torch.Generator().manual_seed(seed))
        found[name] = {
            "energy": energy(made, truth),
            "evaluations": evaluations(view, truth[:512])["decode"],
        }
    return {"samplers": found, "straightness": float(straightness(flow, data.test[:1000]))}


def energy(a: Any, b: Any) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|, at least 0 in expectation up to the points' own pairs."""
    import torch

    between = torch.cdist(a, b).mean()
    inside = [torch.cdist(v, v).sum() / (len(v) * (len(v) - 1)) for v in (a, b)]
    return float(2 * between - inside[0] - inside[1])


def table(name: str, split: int, model: str, minutes: float | None) -> dict[str, Any]:
    """Test log-likelihood per row of a UCI set, exact to TOLERANCE, after the time of scripts/tables.py."""
    import torch
    from tables import SECONDS, moments, prepare

    import diffeo
    from diffeo.solving import with_solver

    torch.set_num_threads(1)
    data = prepare(name, split)
    train, held_out, test = (
        torch.tensor(x, dtype=torch.float32) for x in (data.train, data.validation, data.test)
    )
    torch.manual_seed(split)
    flow = diffeo.zoo.build(
        model, train.shape[1:], hidden=[64, 64], activation="tanh", standardize=False, **SOLVER
    )
    run = diffeo.fit(
        flow,
        train,
        validation=held_out,
        minutes=SECONDS[name] / 60 if minutes is None else minutes,
        batch_size=256,
        lr=5e-3,
        weight_decay=0.1,
        ema=0.99,
        validate_every=50,
        validate_rows=1000,
        seed=split,
        threads=1,
        progress=False,
    )
    fine = with_solver(flow, rtol=TOLERANCE, atol=TOLERANCE, trace="exact")
    with torch.no_grad():
        scores = fine.log_prob(test, batch_size=500).double().numpy()
    mean, error = moments(scores)
    return {
        "test": mean,
        "test_error": error,
        "validation": run.metrics["validation"],
        "steps": int(run.metrics["steps"]),
        "seconds": round(run.metrics["seconds"], 1),
        "rows": [len(train), len(held_out), len(test)],
        "bias": fine.properties.bias,
    }


def collect(name: str, command: str, task: dict[str, Any], work: Any) -> None:
    """One more row of results/NAME.json, unless it is there."""
    from diffeo.errors import DiffeoError

    rows = read(name).get("rows", [])
    if any(all(r.get(k) == v for k, v in task.items()) for r in rows):
        return
    try:
        found = work()
    except DiffeoError as error:
        # A run that fails says so in its row.
        found = {"failed": str(error)}
    rows.append(task | found)
    print(rows[-1], flush=True)
    write(name, provenance(f"python scripts/continuous.py {command}") | {"rows": rows})


def digits(minutes: float | None) -> None:
    from images import Job, measure

    for name in ("ffjord-digits-small", "flow_matching-digits-small"):
        more = () if minutes is None else (f"training.minutes={minutes:g}",)
        task = {"recipe": name, "minutes": minutes}
        work = lambda n=name, m=more: measure(Job(n, m), RUNS / n, m)  # noqa: E731
        collect("continuous_digits", "digits", task, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=("densities", "samplers", "digits", "uci"))
    parser.add_argument("--only", nargs="+", help="names of densities, or of sets")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, help="of a run, to try the script")
    arguments = parser.parse_args()
    part, minutes = arguments.part, arguments.minutes
    if part == "digits":
        digits(minutes)
    elif part == "uci":
        from tables import FILES, SPLITS

        for name, split, model in itertools.product(
            arguments.only or FILES, range(SPLITS), ("ffjord", "flow_matching")
        ):
            task = {"set": name, "split": split, "model": model, "minutes": minutes}
            work = lambda n=name, s=split, m=model: table(n, s, m, minutes)  # noqa: E731
            collect("continuous_uci", "uci", task, work)
    else:
        from diffeo.data import density_names

        places = arguments.only or (
            density_names() if part == "densities" else ("8gaussians", "checkerboard", "moons")
        )
        run = density if part == "densities" else samplers
        length = MINUTES if minutes is None else minutes
        for seed, place, method in itertools.product(arguments.seeds, places, METHODS):
            task = {"method": method, "data": place, "seed": seed, "minutes": length}
            work = lambda m=method, p=place, s=seed: run(m, p, s, length)  # noqa: E731
            collect(f"continuous_{part}", part, task, work)


if __name__ == "__main__":
    main()
