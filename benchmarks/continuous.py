"""Continuous flows beside zuko's: the same field, the same weights, the same tolerance, exact traces.

    python -m benchmarks.continuous [--tables 0 1] [--train-seconds 20] [--repeats 15]

Both solve with Dormand-Prince 5(4). zuko's `FreeFormJacobianTransform` is given our field; it controls the largest
error over the batch in steps that all examples share, ours are of each example and control its root mean square; the
table has what both miss against a solution with tolerances of 1e-8. zuko's trace has a hundredth of the weight in its
control. compiled: torch.compile of log_prob and of sample, each attempt at a step a graph. The field is first trained
on a density, since at its initialization it is nearly constant. Stored in results/continuous_bench.json.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import diffeo
from diffeo.objectives import flow_matching
from diffeo.solving import evaluations, with_solver
from diffeo.transforms import Continuous

from .measuring import ROOT, Calls, interleaved, keep_table, opened, options


@dataclass(frozen=True)
class Size:
    features: int
    batch: int
    hidden: tuple[int, ...]
    tolerance: float

    def __str__(self) -> str:
        net = "-".join(map(str, self.hidden))
        return f"D={self.features}, batch {self.batch}, concatsquash {net}, rtol = atol = {self.tolerance:g}"


TABLES = (
    Size(2, 512, (64, 64, 64), 1e-5),
    Size(2, 512, (64, 64, 64), 1e-3),
    Size(6, 512, (60, 60, 60), 1e-5),
    Size(2, 64, (64, 64, 64), 1e-5),
)
Call = Callable[[], object]


def data(size: Size, n: int, seed: int) -> Tensor:
    """8 Gaussians; further entries follow from the one before."""
    generator = torch.Generator().manual_seed(seed)
    x = diffeo.data.density("8gaussians").sample(n, generator=generator)
    columns = [x[:, 0], x[:, 1]]
    while len(columns) < size.features:
        noise = torch.randn(n, generator=generator)
        columns.append((2 * columns[-1]).sin() + 0.5 * columns[-2] + 0.2 * noise)
    return torch.stack(columns[: size.features], 1)


def trained(size: Size, seconds: float) -> diffeo.Flow:
    """Flow matching for a while: a field with some curvature."""
    torch.manual_seed(0)
    flow = diffeo.zoo.build(
        "flow_matching",
        (size.features,),
        hidden=size.hidden,
        activation="tanh",
        standardize=False,
        rtol=size.tolerance,
        atol=size.tolerance,
    )
    x, loss = data(size, 20_000, 0), flow_matching(flow)
    optimizer = torch.optim.Adam(flow.parameters(), lr=3e-3)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        optimizer.zero_grad()
        loss(x[torch.randint(len(x), (256,))], None, None).mean().backward()
        optimizer.step()
    return flow


class Counted:
    """A field as zuko calls it, and how often."""

    def __init__(self, field: nn.Module) -> None:
        self.field, self.calls, self.prepared = field, 0, None

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.field(x, t, None, self.prepared)
        return out


def zuko_calls(flow: diffeo.Flow, size: Size, x: Tensor) -> tuple[Calls, dict[str, Any]]:
    from zuko.transforms import FreeFormJacobianTransform

    layer = next(m for m in flow.modules() if isinstance(m, Continuous))
    f = Counted(layer.field)
    parameters = tuple(layer.field.parameters())
    one = torch.ones(())

    def transform(phi: Any) -> Any:
        # Once for a solve, as for ours; not where its adjoint takes gradients of the parameters at every evaluation.
        f.prepared = None if phi else layer.field.prepare()
        return FreeFormJacobianTransform(
            f, 0 * one, one, phi, atol=size.tolerance, rtol=size.tolerance
        )

    def log_prob(x: Tensor, phi: Any) -> Tensor:
        z, ladj = transform(phi).call_and_ladj(x)
        return flow.base.log_prob(z) + ladj

    made = calls(
        flow,
        lambda: log_prob(x, parameters),
        lambda: log_prob(x, ()),
        lambda: transform(()).inv(flow.base.sample(size.batch)),
    )
    with torch.no_grad():
        f.calls = 0
        found = log_prob(x, ())
    return made, {"evaluations": f.calls, "log_prob": found}


def our_calls(
    flow: diffeo.Flow, size: Size, x: Tensor, *, compiled: bool = False
) -> tuple[Calls, dict[str, Any]]:
    log_prob, sample = flow.log_prob, flow.sample
    if compiled:
        log_prob, sample = torch.compile(log_prob), torch.compile(sample)
        # Batches of fewer examples, of those that take more steps, are compiled when they come.
        for _ in range(10):
            sample(size.batch)
    made = calls(flow, lambda: log_prob(x), lambda: log_prob(x), lambda: sample(size.batch))
    with torch.no_grad():
        found = log_prob(x)
    return made, {"evaluations": evaluations(flow, x)["encode"], "log_prob": found}


def calls(flow: diffeo.Flow, differentiable: Call, log_prob: Call, sample: Call) -> Calls:
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.0, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        value: Any = differentiable()
        (-value.mean()).backward()
        optimizer.step()

    return {
        "train step": step,
        "log_prob": torch.no_grad()(log_prob),
        "sample": torch.no_grad()(sample),
    }


def measure(size: Size, train_seconds: float, repeats: int, compiled: bool) -> dict[str, Any]:
    flow = trained(size, train_seconds).eval()
    x = data(size, size.batch, 1)
    made = {
        "diffeo": our_calls(flow, size, x),
        "diffeo, adjoint": our_calls(with_solver(flow, adjoint=True), size, x),
    }
    if compiled:
        made["diffeo, compiled"] = our_calls(flow, size, x, compiled=True)
    if find_spec("zuko"):
        made["zuko"] = zuko_calls(flow, size, x)
    wide = torch.float64
    fine = with_solver(flow, rtol=1e-8, atol=1e-8)
    with torch.no_grad():
        truth = copy.deepcopy(fine).to(wide).log_prob(x.to(wide))
    facts = {
        name: {
            "evaluations": found["evaluations"],
            "error": float((found["log_prob"].to(wide) - truth).abs().max()),
        }
        for name, (_, found) in made.items()
    }
    return {
        "table": str(size),
        "rows": interleaved({name: each for name, (each, _) in made.items()}, repeats),
        "facts": facts,
    }


def show(document: dict[str, Any]) -> None:
    print(f"\n{document['table']}; ms (ratio to zuko)")
    peer = document["rows"].get("zuko")
    for name, row in document["rows"].items():
        shown = "  ".join(
            f"{what} {t['median']:8.2f}"
            + (f" ({t['median'] / peer[what]['median']:.2f})" if peer else "")
            for what, t in row.items()
        )
        fact = document["facts"][name]
        print(
            f"{name:16} {shown}  evaluations {fact['evaluations']}, worst error of log_prob {fact['error']:.1e}",
            flush=True,
        )


def main() -> None:
    parser = options(__doc__, TABLES)
    parser.add_argument("--train-seconds", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = ROOT / "results" / "continuous_bench.json"
    libraries = [n for n in ("diffeo", "zuko") if find_spec(n)]
    document = opened(path, "python -m benchmarks.continuous", libraries)
    document["machine"] += f", {arguments.threads} thread"
    for i in arguments.tables:
        compiled = not arguments.no_compile
        found = measure(TABLES[i], arguments.train_seconds, arguments.repeats, compiled)
        show(found)
        keep_table(path, document, found, TABLES, "table")


if __name__ == "__main__":
    main()
