"""Residual flows: densities, digits, MNIST and memory, into results/residual*.json; resumable row by row.

    python scripts/residual.py densities   2-D: exact likelihood beside the estimate, variants at equal parameters
    python scripts/residual.py digits      the models on pictures, a quarter of an hour each
    python scripts/residual.py mnist       one residual flow, 45 minutes; needs DIFFEO_DATA
    python scripts/residual.py memory      what backward keeps, by terms of the series and by layers

A row that is stored is not repeated; `--only` chooses densities or recipes, `--steps` and `--minutes` make short runs.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from typing import Any

from stored import ROOT, provenance, read, write

SEEDS = (0, 1, 2)
STEPS = 1500
TRAINING: dict[str, Any] = {
    "batch_size": 256,
    "lr": 5e-3,
    "clip": 10.0,
    "ema": 0.99,
    "threads": 1,
    "validate_rows": 2000,
}
# 86 thousand parameters each, within 2 %: networks of three layers of 64, or dense blocks with 72 channels a layer.
NET: dict[str, Any] = {"hidden": [64, 64, 64], "coeff": 0.9}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "residual_flow": ("residual_flow", NET | {"depth": 10}),
    "with ELU": ("residual_flow", NET | {"depth": 10, "activation": "elu"}),
    "series of 2": ("residual_flow", NET | {"depth": 10, "estimator": "series", "terms": 2}),
    "series of 5": ("residual_flow", NET | {"depth": 10, "estimator": "series", "terms": 5}),
    "iresnet": ("iresnet", NET | {"depth": 10}),
    "idensenet": ("idensenet", {"depth": 10, "layers": 3, "growth": 72, "coeff": 0.9}),
    "impflow": ("impflow", NET | {"depth": 5}),
}
COMPARED = ("checkerboard", "moons", "8gaussians")
"""All variants and seeds; on the other densities the first variant, under the first seed."""
POINTS = 10_000
"""Of the test part, for likelihoods and round trips."""
DIGITS = ("iresnet-digits-small", "residual_flow-digits-small", "idensenet-digits-small")
RUNS = ROOT / "runs" / "residual"


def density(variant: str, place: str, seed: int, steps: int) -> dict[str, Any]:
    """Train; exact likelihood by the 2x2 determinant, and what the model's own estimator claims of the same points."""
    import torch

    import diffeo
    from diffeo.estimating import with_estimator
    from diffeo.training.recipe import recipe
    from diffeo.training.run import build_flow, read_data
    from diffeo.transforms import Exact

    torch.set_num_threads(1)
    model, hyper = VARIANTS[variant]
    chosen = recipe(
        {
            "model": model,
            "hyper": hyper,
            "data": {"source": place, "seed": seed, "size": 200_000},
            "training": TRAINING | {"steps": steps, "seed": seed},
        }
    )
    data = read_data(chosen)
    flow = build_flow(chosen, data)
    start = time.process_time()
    diffeo.fit(flow, data, progress=False, **chosen.training.model_dump())
    spent = time.process_time() - start
    exact = with_estimator(flow, Exact()).double().eval()
    flow = with_estimator(exact, estimator_of(flow))
    x = data.test[:POINTS].double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        truth = exact.log_prob(x, batch_size=1000)
        claimed = flow.log_prob(x, batch_size=1000, generator=generator)
        kl = data.density.log_prob(x) - truth
    return {
        "nats": float(-truth.mean()),
        "nats_error": error(truth),
        "claimed": float(-claimed.mean()),
        "claimed_gap": float((claimed - truth).mean()),
        "claimed_gap_error": error(claimed - truth),
        "bias": flow.properties.bias,
        "kl": float(kl.mean()),
        "kl_error": error(kl),
        "parameters": flow.num_parameters,
        "processor_seconds": round(spent, 1),
        "certified": max(bounds(exact)),
        "round_trip": {str(d): round_trip(exact, x, d) for d in ("float32", "float64")},
    }


def estimator_of(flow: Any) -> Any:
    """The estimator of its residual layers, in eval mode."""
    from diffeo.transforms import LogDet

    return next(m for m in flow.modules() if isinstance(m, LogDet)).eval()


def bounds(flow: Any) -> list[float]:
    """The certified constant of every network."""
    from diffeo.nets import LipschitzNet

    return [m.lipschitz_bound for m in flow.modules() if isinstance(m, LipschitzNet)]


def error(values: Any) -> float:
    return float(values.std() / math.sqrt(len(values)))


def round_trip(flow: Any, x: Any, dtype: str) -> dict[str, float]:
    """The worst relative error of decode(encode(x)), and evaluations of g per example and layer."""
    import copy

    import torch

    from diffeo.fixed_points import recording

    flow = copy.deepcopy(flow).to(getattr(torch, dtype))
    x = x.to(flow.dtype)
    with torch.no_grad(), recording() as found:
        back = flow.decode(flow.encode(x, batch_size=1000), batch_size=1000)
    scale = x.abs().amax(1).clamp(min=1)
    return {
        "error": float(((back - x).abs().amax(1) / scale).max()),
        "evaluations": sum(float(s.steps.double().mean()) for _, s in found) / max(len(found), 1),
    }


def memory(kind: str, count: int) -> dict[str, Any]:
    """What a forward pass leaves allocated, for a batch of 64: `count` terms of 4 layers, or 4 terms of `count`."""
    import torch

    import diffeo
    from diffeo.transforms import Residual

    terms, layers = (count, 4) if kind == "terms" else (4, count)
    torch.manual_seed(0)
    flow = diffeo.zoo.build(
        "iresnet", (8,), depth=layers, hidden=(64, 64, 64), terms=terms, standardize=False
    )
    x = torch.randn(64, 8)

    def plain(layer: Residual, x: Any, noise: Any) -> Any:
        y, _, pull = layer.net.linearize(x, layer.net.prepare())
        probes, weights = noise
        w, total = probes, 0.0
        for k in range(1, weights.shape[1] + 1):
            w = pull(w)
            total = total - (-1) ** k / k * (w * probes).flatten(1).sum(1)
        return x + y, total

    out: dict[str, Any] = {}
    for name in ("neumann", "checkpoint", "plain"):
        alive: list[Any] = []  # not the graph before
        flow.memory = "checkpoint" if name == "checkpoint" else "plain"
        with torch.profiler.profile(profile_memory=True) as profile:
            if name != "plain":
                alive = [flow.log_prob(x)]
            else:
                h, alive = x, []
                for layer in flow.transform:
                    if isinstance(layer, Residual):
                        h, ladj = plain(layer, h, layer.draw(64))
                    else:
                        h, ladj = layer(h)
                    alive.append(ladj)
                alive.append(h)
        kept = sum(event.self_cpu_memory_usage for event in profile.key_averages())
        out[f"{name}_kib"] = round(kept / 1024, 1)
    return out


def collect(name: str, part: str, task: dict[str, Any], work: Callable[[], dict[str, Any]]) -> None:
    """The row of a task, unless it is stored."""
    from diffeo.errors import DiffeoError

    rows = read(name).get("rows", [])
    if any(all(r.get(k) == v for k, v in task.items()) for r in rows):
        return
    try:
        found = work()
    except DiffeoError as failure:
        found = {"failed": str(failure)}
    rows = [*read(name).get("rows", []), task | found]
    print({k: v for k, v in rows[-1].items() if k != "curve"}, flush=True)
    write(name, provenance(f"python scripts/residual.py {part}") | {"rows": rows})


def pictures(part: str, recipe: str, minutes: float | None) -> None:
    from images import Job, measure

    more = () if minutes is None else (f"training.minutes={minutes:g}",)
    folder = RUNS / (recipe if minutes is None else f"{recipe}-{minutes:g}")
    task = {"recipe": recipe, "minutes": minutes}
    collect(f"residual_{part}", part, task, lambda: measure(Job(recipe, more), folder, more))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=("densities", "digits", "mnist", "memory"))
    parser.add_argument("--only", nargs="+", help="names of densities, or of recipes")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=STEPS, help="of a density")
    parser.add_argument("--minutes", type=float, help="of pictures")
    arguments = parser.parse_args()
    part = arguments.part
    if part == "memory":
        for kind, count in itertools.product(("terms", "layers"), (1, 2, 4, 8, 16, 32)):
            task = {"kind": kind, "count": count}
            collect("residual_memory", part, task, lambda k=kind, c=count: memory(k, c))
    elif part == "mnist":
        pictures(part, "residual_flow-mnist-small", arguments.minutes)
    elif part == "digits":
        for recipe in arguments.only or DIGITS:
            pictures(part, recipe, arguments.minutes)
    else:
        from diffeo.data import density_names

        first = next(iter(VARIANTS))
        places = arguments.only or density_names()
        # The compared densities come first, seed by seed, so that what is stored early can be compared already.
        for seed, place, variant in sorted(
            itertools.product(arguments.seeds, places, arguments.variants),
            key=lambda t: (t[1] not in COMPARED, t[0]),
        ):
            if place not in COMPARED and (variant, seed) != (first, SEEDS[0]):
                continue
            task = {"variant": variant, "data": place, "seed": seed, "steps": arguments.steps}
            work = lambda v=variant, p=place, s=seed: density(v, p, s, arguments.steps)  # noqa: E731
            collect("residual_densities", part, task, work)


if __name__ == "__main__":
    main()
