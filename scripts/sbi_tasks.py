"""Posteriors on tasks of sbibm by our flows and by sbi's own zuko NSF, at equal simulations and equal wall time.

    python scripts/sbi_tasks.py [--tasks two_moons ...] [--simulations 1000 ...] [--methods NPE ...] [--seeds 0 1 2]

Into results/sbi.json; a row is a method, a task, a number of simulations, a seed and a model, and a row that is stored
is not repeated. sbi trains with its own loop and defaults until its early stopping or SECONDS, whichever is first;
ours has the time that sbi took. The reference draws are in the sbibm wheel: pip install --no-deps sbibm.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import logging
import time
import warnings
from typing import Any

import torch
from simulators import TASKS, Observation, Task, observation, sbibm_folder
from stored import provenance, read, write
from torch import Tensor

SECONDS = {1000: 15.0, 10_000: 25.0}
"""The most that sbi's training may take, by the number of simulations: on one core, all rows take half an hour."""
PLAN = {
    "NPE": (("two_moons", "slcp", "gaussian_mixture", "sir"), (1000, 10_000)),
    "NLE": (("two_moons", "gaussian_mixture"), (1000,)),
}
OBSERVATIONS = (1, 2, 3, 4, 5)
DRAWS = 1000
CELLS = 250
"""Along each side of the grid on which a posterior of NLE in the plane is drawn from."""
MODELS = ("sbi", "diffeo")


def trainer(method: str, task: Task, build: Any, seconds: float) -> Any:
    """sbi's own, which also ends, with the best weights so far, after so many seconds."""
    import sbi.inference

    class Timed(getattr(sbi.inference, method)):  # type: ignore[misc]
        end = 0.0

        def _converged(self, epoch: int, stop_after_epochs: int) -> bool:
            done = super()._converged(epoch, stop_after_epochs)
            if not done and time.monotonic() > self.end:
                self._neural_net.load_state_dict(self._best_model_state_dict)
                done = True
            return bool(done)

    made = Timed(task.prior, density_estimator=build, show_progress_bars=False)
    made.end = time.monotonic() + seconds
    return made


def theirs(method: str, task: Task, theta: Tensor, x: Tensor, seconds: float) -> Any:
    """An estimator trained by sbi, its zuko NSF at its defaults."""
    from sbi.neural_nets import likelihood_nn, posterior_nn

    build = (posterior_nn if method == "NPE" else likelihood_nn)("zuko_nsf")
    return trainer(method, task, build, seconds).append_simulations(theta, x).train()


def ours(method: str, task: Task, theta: Tensor, x: Tensor, seconds: float, seed: int) -> Any:
    """An estimator trained by `fit_estimator` at its defaults."""
    from diffeo.integrations.sbi import fit_estimator, likelihood_estimator, posterior_estimator

    build = posterior_estimator(prior=task.prior) if method == "NPE" else likelihood_estimator()
    return fit_estimator(build, theta, x, minutes=seconds / 60, seed=seed, threads=1)


def npe_draws(task: Task, estimator: Any, seen: Observation) -> tuple[Tensor, float]:
    """Draws of sbi's posterior, and the share of the estimator's that fall outside of the prior."""
    import sbi.inference

    posterior = sbi.inference.NPE(task.prior, show_progress_bars=False).build_posterior(estimator)
    raw = estimator.sample((10_000,), seen.x[None])[:, 0]
    outside = 1 - task.prior.support.check(raw).double().mean().item()
    draws = posterior.sample((DRAWS,), x=seen.x, show_progress_bars=False)
    return draws, outside


@torch.no_grad()
def nle_draws(task: Task, estimator: Any, seen: Observation) -> Tensor:
    """Draws of p(x | theta) over a uniform prior in the plane: a cell by its probability, uniform inside."""
    base = task.prior.base_dist  # type: ignore[attr-defined]
    width = (base.high - base.low) / CELLS
    grid = torch.cartesian_prod(torch.arange(CELLS), torch.arange(CELLS))
    centres = base.low + (grid + 0.5) * width
    log_p = torch.cat(
        [estimator.log_prob(seen.x.expand(1, len(c), -1), c)[0] for c in centres.split(10_000)]
    )
    chosen = torch.multinomial(log_p.double().softmax(0), DRAWS, replacement=True)
    return base.low + (grid[chosen] + torch.rand(DRAWS, 2)) * width


def measure(
    method: str, name: str, simulations: int, seed: int, model: str, seconds: float
) -> dict[str, Any]:
    """A row: seconds of training, and per observation C2ST, errors of means and deviations, and leakage."""
    from sbi.utils.metrics import c2st

    task = TASKS[name]()
    torch.manual_seed(seed)
    theta = task.prior.sample((simulations,))
    x = task.simulate(theta)
    began = time.monotonic()
    if model == "sbi":
        estimator = theirs(method, task, theta, x, seconds)
    else:
        estimator = ours(method, task, theta, x, seconds, seed)
    took = time.monotonic() - began
    row: dict[str, Any] = {"c2st": [], "mean": [], "deviation": [], "outside": []}
    estimator.eval()
    for number in OBSERVATIONS:
        seen = observation(name, number)
        torch.manual_seed(seed)
        if method == "NPE":
            draws, outside = npe_draws(task, estimator, seen)
            row["outside"].append(outside)
        else:
            draws = nle_draws(task, estimator, seen)
        spread = seen.reference.std(0)
        gap = (draws.mean(0) - seen.reference.mean(0)).abs() / spread
        row["mean"].append(gap.mean().item())
        row["deviation"].append((draws.std(0) / spread).log().abs().mean().item())
        some = seen.reference[torch.randperm(len(seen.reference))[:DRAWS]]
        row["c2st"].append(c2st(some, draws, seed=1, n_folds=5, classifier="mlp").item())
    parameters = sum(p.numel() for p in estimator.parameters())
    return {"seconds": round(took, 2), "parameters": parameters} | {
        k: [round(v, 5) for v in values] for k, values in row.items() if values
    }


def limit(rows: list[dict[str, Any]], task: dict[str, Any], model: str) -> float:
    """sbi's most seconds, and for ours those that sbi took with the same simulations."""
    if model == "sbi":
        return SECONDS.get(task["simulations"], SECONDS[1000])
    for row in rows:
        if row["model"] == "sbi" and all(row[k] == v for k, v in task.items()):
            return float(row["seconds"])
    raise SystemExit(f"the row of sbi comes first, it sets the time: {task}")


def warm_up() -> None:
    """Imports and first calls are not of a model's time."""
    task = TASKS["two_moons"]()
    theta = task.prior.sample((100,))
    x = task.simulate(theta)
    theirs("NPE", task, theta, x, 0.5)
    ours("NPE", task, theta, x, 0.5, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--methods", nargs="+", choices=PLAN, default=list(PLAN))
    parser.add_argument("--tasks", nargs="+", choices=TASKS)
    parser.add_argument("--simulations", nargs="+", type=int)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    if sbibm_folder() is None:
        raise SystemExit("the reference draws are in the sbibm wheel: pip install --no-deps sbibm")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warmed = False
    for seed, method in itertools.product(arguments.seeds, arguments.methods):
        tasks, numbers = PLAN[method]
        for name, n, model in itertools.product(
            arguments.tasks or tasks, arguments.simulations or numbers, arguments.models
        ):
            rows = read("sbi").get("rows", [])
            task = {"method": method, "task": name, "simulations": n, "seed": seed}
            key = task | {"model": model}
            if any(all(row[k] == v for k, v in key.items()) for row in rows):
                continue
            seconds = limit(rows, task, model)
            with contextlib.redirect_stdout(io.StringIO()):
                if not warmed:
                    warm_up()
                    warmed = True
                row = key | measure(method, name, n, seed, model, seconds)
            print(row, flush=True)
            write("sbi", provenance("python scripts/sbi_tasks.py") | {"rows": [*rows, row]})


if __name__ == "__main__":
    main()
