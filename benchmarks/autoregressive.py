"""Masked autoregressive flows with trained weights, beside the peers that are installed.

    python -m benchmarks.autoregressive [--features 8 32 128] [--train-seconds 20] [--repeats 15] [--out FILE]

Five layers with masked networks of two hidden layers of 128, batch 512. Each contestant is first trained on the same
structured data, since at its initialization a flow is close to the identity and its inverse trivial. Then train step,
log_prob and sample take turns in one process: medians, and sample / log_prob. nflows and normflows have one masked
layer more, which their constructors do not leave out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import diffeo
from diffeo.training.machines import processor

from .__main__ import interleaved
from .size import Contestant, Size


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


def ours(size: Size) -> Contestant:
    flow = diffeo.zoo.build(
        "maf",
        (size.features,),
        layers=size.layers,
        hidden=(size.width, size.width),
        batch_norm=False,
        standardize=False,
    )
    return Contestant(flow, flow, lambda: flow.sample((size.batch,)))


def nflows(size: Size) -> Contestant:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.permutations import ReversePermutation

    layers: list[nn.Module] = []
    for _ in range(size.layers):
        layers += [
            MaskedAffineAutoregressiveTransform(
                size.features, size.width, num_blocks=2, use_residual_blocks=False
            ),
            ReversePermutation(size.features),
        ]
    flow = Flow(CompositeTransform(layers), StandardNormal([size.features]))
    return Contestant(flow, flow.log_prob, lambda: flow.sample(size.batch))


def normflows(size: Size) -> Contestant:
    import normflows as library

    layers: list[nn.Module] = []
    for _ in range(size.layers):
        layer = library.flows.MaskedAffineAutoregressive(
            size.features, size.width, num_blocks=2, use_residual_blocks=False
        )
        layers += [
            library.flows.Reverse(layer),  # as it comes, sampling is the fast direction
            library.flows.Permute(size.features, mode="swap"),
        ]
    flow = library.NormalizingFlow(library.distributions.DiagGaussian(size.features), layers)
    return Contestant(flow, flow.log_prob, lambda: flow.sample(size.batch)[0])


def zuko(size: Size) -> Contestant:
    validate = torch.distributions.Distribution._validate_args
    import zuko as library

    # zuko switches this off for all of torch when it is imported.
    torch.distributions.Distribution.set_default_validate_args(validate)
    flow = library.flows.MAF(
        size.features, transforms=size.layers, hidden_features=(size.width, size.width)
    )
    return Contestant(flow, lambda x: flow().log_prob(x), lambda: flow().sample((size.batch,)))


CONTESTANTS: dict[str, Callable[[Size], Contestant]] = {
    "diffeo": ours,
    "nflows": nflows,
    "normflows": normflows,
    "zuko": zuko,
}


def trained(name: str, size: Size, seconds: float) -> tuple[Contestant, float]:
    """A contestant after that many seconds of Adam, in eval mode, and its mean log-likelihood on other rows."""
    torch.manual_seed(0)
    contestant = CONTESTANTS[name](size)
    x, test = structured(20_000, size.features, 0), structured(2_000, size.features, 1)
    optimizer = torch.optim.Adam(contestant.module.parameters(), lr=1e-3)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        optimizer.zero_grad()
        (-contestant.log_prob(x[torch.randint(len(x), (256,))]).mean()).backward()
        torch.nn.utils.clip_grad_norm_(contestant.module.parameters(), 5.0)
        optimizer.step()
    contestant.module.eval()
    with torch.no_grad():
        return contestant, float(contestant.log_prob(test).mean())


def calls(contestant: Contestant, size: Size) -> dict[str, Callable[[], object]]:
    """What is timed: one step of a copy of Adam with rate zero, log_prob and sample."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--features", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--train-seconds", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = [n for n in arguments.only if find_spec(n)]
    tables: list[dict[str, Any]] = []
    for features in arguments.features:
        size = Size(features, 512, layers=5)
        fitted = {n: trained(n, size, arguments.train_seconds) for n in names}
        rows = interleaved({n: calls(c, size) for n, (c, _) in fitted.items()}, arguments.repeats)
        print(f"\nMAF, D={features}, batch {size.batch}, {size.layers} layers, 2x{size.width}; ms")
        for name, row in rows.items():
            ratio = row["sample"]["median"] / row["log_prob"]["median"]
            shown = "  ".join(f"{what} {t['median']:8.2f}" for what, t in row.items())
            print(f"{name:12} {shown}  sample / log_prob {ratio:6.2f}")
        tables.append(
            {
                "features": features,
                "log_likelihood": {n: value for n, (_, value) in fitted.items()},
                "rows": rows,
            }
        )
    if arguments.out:
        document = {"machine": processor(), "torch": torch.__version__, "tables": tables}
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
