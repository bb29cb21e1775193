"""Masked autoregressive flows with trained weights, beside the peers that are installed.

    python -m benchmarks.autoregressive [--tables 0 1] [--train-seconds 15] [--seconds 3] [--no-compile]

Train step, log_prob and sample take turns in one process: medians, and sample / log_prob, which is what matters here.
diffeo's flows are first trained on structured data, since at its initialization a flow is close to the identity and
its inverse trivial; the time of the peers' does not depend on their weights. Each call is repeated until it has used
`--seconds`, twice at least. Stored in results/autoregressive.json.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from .masked import KINDS
from .measuring import ROOT, keep_table, opened, options
from .size import Contestant, Size


@dataclass(frozen=True)
class Table:
    """One size of one kind of flow; compiled: also diffeo's under torch.compile."""

    kind: str
    size: Size
    compiled: bool = False

    def __str__(self) -> str:
        s = self.size
        return f"{self.kind.upper()}, D={s.features}, batch {s.batch}, {s.layers} layers of width {s.width}"


TABLES = (
    Table("maf", Size(8, 512, layers=5)),
    Table("maf", Size(32, 512, layers=5), compiled=True),
    Table("maf", Size(128, 512, layers=5)),
    Table("nsf", Size(8, 512, layers=3, bins=8)),
    Table("nsf", Size(32, 512, layers=3, bins=8)),
    Table("nsf", Size(128, 512, layers=3, bins=8)),
    Table("naf", Size(8, 128, layers=2, width=64)),
    Table("umnn", Size(8, 128, layers=2, width=64)),
)
Call = Callable[[], object]


def structured(n: int, features: int, seed: int) -> Tensor:
    """Entries that follow from the ones before by sines, products and noise of changing size."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, features, generator=generator)
    columns = [noise[:, 0]]
    for i in range(1, features):
        a, b, c = columns[i - 1], columns[max(i - 2, 0)], columns[i // 2]
        spread = 0.2 + 0.2 * (3 * c).sigmoid()
        columns.append(0.7 * (2 * a).sin() + 0.5 * b + 0.3 * a * c.tanh() + spread * noise[:, i])
    return torch.stack(columns, 1)


def train(contestant: Contestant, features: int, seconds: float) -> None:
    """That many seconds of Adam."""
    x = structured(20_000, features, 0)
    optimizer = torch.optim.Adam(contestant.module.parameters(), lr=1e-3)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        optimizer.zero_grad()
        (-contestant.log_prob(x[torch.randint(len(x), (256,))]).mean()).backward()
        torch.nn.utils.clip_grad_norm_(contestant.module.parameters(), 5.0)
        optimizer.step()


def calls(contestant: Contestant, size: Size) -> dict[str, Call]:
    """What is timed: one step of Adam with rate zero, log_prob and sample."""
    x = structured(size.batch, size.features, 2)
    optimizer = torch.optim.Adam(contestant.module.parameters(), lr=0.0, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        (-contestant.log_prob(x).mean()).backward()
        optimizer.step()

    return {
        "train step": step,
        "log_prob": torch.no_grad()(partial(contestant.log_prob, x)),
        "sample": torch.no_grad()(contestant.sample),
    }


def compiled(contestant: Contestant, size: Size) -> tuple[dict[str, Call], float]:
    """The same two calls without gradients under torch.compile, and how long compiling them took."""
    torch._dynamo.reset()
    fast = Contestant(
        contestant.module,
        torch.compile(contestant.log_prob, dynamic=False, fullgraph=True),
        torch.compile(contestant.sample, dynamic=False, fullgraph=True),
    )
    made = calls(fast, size)
    del made["train step"]
    start = time.perf_counter()
    for call in made.values():
        call()
    return made, time.perf_counter() - start


def interleaved(
    entered: dict[str, dict[str, Call]], seconds: float, most: int = 25
) -> dict[str, dict[str, dict[str, float]]]:
    """Median, least and largest milliseconds of each call, the contestants taking turns; the first round is dropped."""
    times: dict[str, dict[str, list[float]]] = {n: {w: [] for w in c} for n, c in entered.items()}
    for _ in range(most + 1):
        for name, each in entered.items():
            for what, call in each.items():
                spent = times[name][what]
                if len(spent) > 2 and sum(spent) > 1e3 * seconds:
                    continue
                start = time.perf_counter()
                call()
                spent.append(1e3 * (time.perf_counter() - start))
    return {
        name: {
            what: {"median": statistics.median(t[1:]), "least": min(t[1:]), "largest": max(t[1:])}
            for what, t in each.items()
        }
        for name, each in times.items()
    }


def measure(table: Table, train_seconds: float, seconds: float, compile_it: bool) -> dict[str, Any]:
    size = table.size
    contestants: dict[str, Contestant] = {}
    for name, build in KINDS[table.kind].items():
        if find_spec(name):
            torch.manual_seed(0)
            contestants[name] = build(size)
    train(contestants["diffeo"], size.features, train_seconds)
    for contestant in contestants.values():
        contestant.module.eval()
    entered = {name: calls(c, size) for name, c in contestants.items()}
    document: dict[str, Any] = {"table": str(table)}
    if table.compiled and compile_it:
        try:
            entered["diffeo, compiled"], took = compiled(contestants["diffeo"], size)
            document["compiling"] = f"{took:.0f} s"
        except Exception as error:
            document["compiling"] = f"fails: {type(error).__name__}"
    return document | {"rows": interleaved(entered, seconds)}


def show(document: dict[str, Any]) -> None:
    print(f"\n{document['table']}; ms")
    for name, row in document["rows"].items():
        ratio = row["sample"]["median"] / row["log_prob"]["median"]
        shown = "  ".join(f"{what} {t['median']:8.2f}" for what, t in row.items())
        print(f"{name:16} {shown}  sample / log_prob {ratio:6.2f}", flush=True)
    if "compiling" in document:
        print("compiling:", document["compiling"])


def main() -> None:
    parser = options(__doc__, TABLES)
    parser.add_argument("--train-seconds", type=float, default=15.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = ROOT / "results" / "autoregressive.json"
    libraries = [n for n in ("diffeo", "nflows", "normflows", "zuko") if find_spec(n)]
    document = opened(path, "python -m benchmarks.autoregressive", libraries)
    document["machine"] += f", {arguments.threads} thread"
    for i in arguments.tables:
        table = TABLES[i]
        found = measure(table, arguments.train_seconds, arguments.seconds, not arguments.no_compile)
        show(found)
        keep_table(path, document, found, TABLES, "table")


if __name__ == "__main__":
    main()
