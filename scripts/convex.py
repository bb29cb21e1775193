"""Convex potential flows: estimators, transport between Gaussians, densities, digits, tables; into results/convex.json.

    python scripts/convex.py [estimators gaussians densities digits uci]

A row that is stored is not repeated. estimators: value and gradient of the log-determinant against the exact ones in 6
to 64 dimensions. gaussians: the learned map between two Gaussians against the optimal one, beside an autoregressive
flow. densities: exact test likelihoods, the estimate of the same weights, and round trips. digits: one run of 14
minutes. uci: the tables, splits and times of scripts/tables.py, which needs DIFFEO_DATA.

Huang et al. Convex potential flows. 2021, arXiv:2012.05942.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from contest import Rival
from stored import ROOT, provenance, read, write
from torch import Tensor

Row = dict[str, Any]
SEEDS = (0, 1, 2)
SIZES = (6, 16, 32, 64)
KRYLOV = (2, 5, 10, 20, 40)
PROBES = 2000
SPACES = (2, 4, 8, 16)
TRANSPORT = {"steps": 3000, "batch_size": 256, "lr": 5e-3, "ema": 0.99, "threads": 1}
PLANE = {
    "model": "cpflow",
    "size": "small",
    "hyper": {"layers": 3, "depth": 3, "width": 32},
    "training": {"steps": 3000, "batch_size": 256, "lr": 5e-3, "ema": 0.99, "threads": 1},
}
RIVALS = (
    {"layers": 2, "width": 64, "lr": 5e-3, "weight_decay": 0.0},
    {"layers": 2, "width": 64, "lr": 5e-3, "weight_decay": 0.3},
    {"layers": 3, "width": 128, "lr": 3e-3, "weight_decay": 0.0},
    {"layers": 3, "width": 128, "lr": 3e-3, "weight_decay": 0.3},
)
"""Candidates on the tables, as many as of the other models there."""


# -- estimators -------------------------------------------------------------------------------------------------------


def potential(size: int, **options: Any) -> Any:
    """A convex potential with random weights far from initialization, float64; the same for all estimators."""
    from diffeo.nets import ICNN
    from diffeo.testing import randomize
    from diffeo.transforms import ConvexPotential

    net = partial(ICNN, hidden=(64, 64))
    made = randomize(ConvexPotential((size,), net, **options).double(), 0, 3.0)
    with torch.no_grad():
        # Much curvature over a low floor, as in a trained model.
        made.gain.fill_(20.0)
        made.curvature.fill_(-2.0)
    return made


def gradient(ladj: Tensor, parameters: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(ladj.sum(), parameters, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


def saved_bytes(call: Callable[[], Any]) -> int:
    """What autograd keeps of a call."""
    sizes: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        kept = call()
    del kept
    return sum(sizes.values())


def estimators(size: int, steps: int) -> Row:
    """At 8 points: bias and deviation of a probe's value, by either rule, and of its gradient, after `steps` steps."""
    from diffeo.krylov import conjugate_gradients, log_quadratic_form

    exact = potential(size, estimator="exact")
    estimate = potential(size, estimator="lanczos", steps=steps, tolerance=1e-13, probes=PROBES)
    x = 2 * torch.randn(8, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = exact(x)[1]
    eigenvalues = torch.linalg.eigvalsh(exact._at(x, None)[1]().detach())
    v = estimate.draw(len(x), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        _, _, product = estimate._at(x, None)
        found = conjugate_gradients(product, v, steps=steps, tolerance=1e-13)
        floor = estimate._scales()[1]
        forms = {"gauss": log_quadratic_form(found), "radau": log_quadratic_form(found, floor)}
    row: Row = {"condition": float((eigenvalues[:, -1] / eigenvalues[:, 0]).mean())}
    row["log_det"] = float(truth.detach().mean())
    for rule, values in forms.items():
        gap = values - truth.detach()[:, None]
        row[rule] = float(gap.mean())
        row[f"{rule}_error"] = float(gap.std(1).square().mean().sqrt() / gap.numel() ** 0.5)
        row[f"{rule}_deviation"] = float(gap.std(1).mean())
    wanted = gradient(truth, list(exact.parameters()))
    names = list(estimate.parameters())
    each = torch.stack([gradient(estimate(x, None, v[:, i : i + 1])[1], names) for i in range(100)])
    row["gradient_deviation"] = float((each - wanted).square().sum(1).mean().sqrt() / wanted.norm())
    mean = gradient(estimate(x, None, v)[1], names)
    row["gradient_bias"] = float((mean - wanted).norm() / wanted.norm())
    row["gradient_error"] = row["gradient_deviation"] / PROBES**0.5
    row["saved_exact"] = saved_bytes(lambda: exact(x))
    row["saved"] = saved_bytes(lambda: estimate(x, None, v[:, :1].clone()))
    return row


# -- the optimal map between Gaussians --------------------------------------------------------------------------------


def gaussian(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """A mean, and the symmetric square root of a covariance with eigenvalues from 1/4 to 4, float64."""
    g = torch.Generator().manual_seed(1000 * size + seed)
    q = torch.linalg.qr(torch.randn(size, size, generator=g, dtype=torch.float64))[0]
    root = (q * torch.logspace(-1, 1, size, base=2, dtype=torch.float64)) @ q.T
    return torch.randn(size, generator=g, dtype=torch.float64), root


def bures(mean: Tensor, root: Tensor) -> float:
    """The least mean of |x - f(x)|^2 over maps f of N(mean, root^2) to N(0, I)."""
    eye = torch.eye(len(root), dtype=root.dtype)
    return float(mean.square().sum() + (root - eye).square().sum())


def gaussians(model: str, size: int, seed: int, steps: int) -> Row:
    """KL to the truth, the cost of the learned map and that of the best one, on 20,000 new points."""
    import diffeo
    from diffeo.nets import ICNN
    from diffeo.transforms import ConvexPotential

    mean, root = gaussian(size, seed)
    torch.manual_seed(seed)
    if model == "cpflow":
        net = partial(ICNN, hidden=(64, 64))
        flow = diffeo.Flow(ConvexPotential((size,), net))
    else:
        flow = diffeo.zoo.build("maf", (size,), layers=2, hidden=(64,), standardize=False)
    g = torch.Generator().manual_seed(seed)
    x = mean + torch.randn(100_000, size, generator=g, dtype=torch.float64) @ root
    began = time.monotonic()
    diffeo.fit(flow, x.float(), progress=False, seed=seed, **(TRANSPORT | {"steps": steps}))
    seconds = time.monotonic() - began
    flow = flow.double().eval()
    eps = torch.randn(20_000, size, generator=g, dtype=torch.float64)
    x = mean + eps @ root
    with torch.no_grad():
        z = torch.cat([flow.encode(rows) for rows in x.split(10_000)])
        nats = torch.cat([flow.log_prob(rows) for rows in x.split(10_000)])
    truth = -0.5 * eps.square().sum(1) - 0.5 * size * math.log(2 * math.pi) - torch.logdet(root)
    best = bures(mean, root)
    cost = (z - x).square().sum(1)
    return {
        "kl": float((truth - nats).mean()),
        "kl_error": float((truth - nats).std() / len(x) ** 0.5),
        "cost": float(cost.mean()),
        "cost_error": float(cost.std() / len(x) ** 0.5),
        "best": best,
        "excess": float(cost.mean()) / best - 1,
        "distance": float((z - eps).square().sum(1).mean() / size),
        "parameters": flow.num_parameters,
        "seconds": round(seconds, 1),
    }


# -- densities in the plane -------------------------------------------------------------------------------------------


def densities(name: str, seed: int, steps: int) -> Row:
    """KL to the truth on 20,000 new points, exact and by the estimate; worst round trips over 10,000 of them."""
    import copy

    import diffeo
    from diffeo.data.densities import density
    from diffeo.training.recipe import recipe
    from diffeo.training.run import build_flow, read_data

    training = PLANE["training"] | {"seed": seed, "steps": steps}
    source = {"source": name, "size": 100_000, "seed": seed}
    chosen = recipe(PLANE | {"data": source, "training": training})
    split = read_data(chosen)
    torch.manual_seed(seed)
    flow = build_flow(chosen, split)
    run = diffeo.fit(flow, split, progress=False, **chosen.training.model_dump())
    flow.eval()
    g = torch.Generator().manual_seed(10_000 + seed)
    x = density(name).sample(20_000, generator=g).float()
    truth = density(name).log_prob(x.double()).double()
    estimate = diffeo.zoo.build("cpflow", (2,), estimator="lanczos", **PLANE["hyper"]).eval()
    estimate.load_state_dict(flow.state_dict())
    with torch.no_grad():
        exact = flow.log_prob(x).double()
        about = estimate.log_prob(x, generator=g).double()
        row: Row = {"nats": float(-exact.mean())}
        for label, values in (("kl", truth - exact), ("kl_estimate", truth - about)):
            row[label] = float(values.mean())
            row[f"{label}_error"] = float(values.std() / len(x) ** 0.5)
        for dtype in (torch.float32, torch.float64):
            twin, some = copy.deepcopy(flow).to(dtype), x[:10_000].to(dtype)
            back = twin.decode(twin.encode(some, batch_size=2000), batch_size=2000)
            scale = some.norm(dim=1).clamp(min=1)
            row[f"round_trip_{str(dtype)[6:]}"] = float(((back - some).norm(dim=1) / scale).max())
    row["condition"] = condition(flow, x[:2000])
    return row | {"parameters": flow.num_parameters, "seconds": round(run.metrics["seconds"], 1)}


def condition(flow: Any, x: Tensor) -> float:
    """The largest condition number of the Jacobian of encode over some points."""
    import copy

    twin = copy.deepcopy(flow).double()
    jacobian = torch.func.vmap(torch.func.jacrev(twin.encode))
    values = torch.linalg.svdvals(jacobian(x.double()).detach())
    return float((values[:, 0] / values[:, -1]).max())


# -- digits -----------------------------------------------------------------------------------------------------------


def digits(seed: int, minutes: float) -> Row:
    """Bits/dim on the test part by the small recipe, and the validation curve."""
    import diffeo
    from diffeo.evaluation import evaluate
    from diffeo.training.recipe import read_recipe, recipe
    from diffeo.training.run import build_flow, read_data

    values = read_recipe(ROOT / "recipes" / "cpflow-digits-small.yaml")
    training = values["training"] | {"seed": seed, "minutes": minutes}
    chosen = recipe(values | {"training": training})
    split = read_data(chosen)
    torch.manual_seed(seed)
    flow = build_flow(chosen, split)
    run = diffeo.fit(flow, split, progress=False, **chosen.training.model_dump())
    twin = recipe(values | {"hyper": values["hyper"] | {"estimator": "exact"}})
    exact = build_flow(twin, split).eval()
    exact.load_state_dict(flow.state_dict())
    found, about = evaluate(exact, split), evaluate(flow, split)
    x = split.test[:40]
    back = exact.continuous.double()
    with torch.no_grad():
        v = x.double() + 0.5
        error = float((back.decode(back.encode(v)) - v).abs().max())
    return {
        "bits": found.bits,
        "bits_error": found.bits_error,
        "kind": found.kind,
        "note": found.note,
        "estimate": about.bits,
        "estimate_error": about.bits_error,
        "curve": run.history["validation"],
        "round_trip_float64": error,
        "parameters": flow.num_parameters,
        "seconds": round(run.metrics["seconds"], 1),
        "recipe": chosen.model_dump(),
    }


# -- tables -----------------------------------------------------------------------------------------------------------


def cpflow(d: int, *, layers: int, width: int) -> Any:
    """The zoo's model of standardized columns."""
    import diffeo

    return diffeo.zoo.build("cpflow", (d,), layers=layers, width=width, standardize=False)


def uci(name: str, split: int) -> Row:
    """A row like those of scripts/tables.py, under its time."""
    from tables import SECONDS, flows, moments, prepare

    data = prepare(name, split)
    rivals = tuple(
        Rival(
            ", ".join(f"{k} {v}" for k, v in line.items()),
            partial(cpflow, layers=int(line["layers"]), width=int(line["width"])),
            line["lr"],
            line["weight_decay"],
        )
        for line in RIVALS
    )
    found = flows(rivals, data, SECONDS[name], split)
    row = {"budget": SECONDS[name], "columns": len(data.columns)}
    for kind, key in (("scores", "test"), ("mixture_scores", "mixture")):
        row[key], row[f"{key}_error"] = moments(found.pop(kind))
    return row | found


# -- all of it --------------------------------------------------------------------------------------------------------


def tasks(options: argparse.Namespace) -> Iterator[tuple[str, Row, Callable[[], Row]]]:
    """Section, what names a row of it, and how to measure it."""
    from residual import COMPARED

    from diffeo.data.densities import density_names

    for size, steps in itertools.product(SIZES, KRYLOV):
        if steps <= size:
            yield "estimators", {"size": size, "krylov": steps}, partial(estimators, size, steps)
    for seed, size, model in itertools.product(options.seeds, SPACES, ("cpflow", "maf")):
        task: Row = {"model": model, "size": size, "seed": seed, "steps": options.steps}
        yield "gaussians", task, partial(gaussians, *task.values())
    # The densities of scripts/residual.py under all seeds first, the others under one.
    places = sorted(density_names(), key=lambda n: n not in COMPARED)
    for name, seed in itertools.product(places, options.seeds):
        if name not in COMPARED and seed != options.seeds[0]:
            continue
        task = {"data": name, "seed": seed, "steps": options.steps}
        yield "densities", task, partial(densities, *task.values())
    task = {"seed": 0, "minutes": options.minutes}
    yield "digits", task, partial(digits, *task.values())
    from tables import FILES, SPLITS

    for name, split in itertools.product(FILES, range(SPLITS)):
        task = {"set": name, "split": split}
        yield "uci", task, partial(uci, *task.values())


def main() -> None:
    sections = ("estimators", "gaussians", "densities", "digits", "uci")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("sections", nargs="*", choices=[[], *sections], help="all if none is given")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=3000, help="fewer, to try the script")
    parser.add_argument("--minutes", type=float, default=14.0, help="of digits; fewer, to try it")
    parser.add_argument("--rows", type=int, default=10**6, help="stop after so many new rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    left = options.rows
    for section, task, measure in tasks(options):
        document = read("convex")
        rows = document.get("rows", [])
        named = {"section": section} | task
        known = any(all(r.get(k) == v for k, v in named.items()) for r in rows)
        if known or not left or (options.sections and section not in options.sections):
            continue
        row = named | measure()
        left -= 1
        print({k: v for k, v in row.items() if k not in ("members", "curve", "recipe")}, flush=True)
        # Read again: another process may have stored rows meanwhile.
        rows = [*read("convex").get("rows", []), row]
        write("convex", provenance("python scripts/convex.py") | {"rows": rows})


if __name__ == "__main__":
    main()
