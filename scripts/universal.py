"""The runs of the tables `splines` and `families`: models that claim to come as near to any density as one likes."""

from __future__ import annotations

from functools import partial
from typing import Any

Task = tuple[str, str, int, float]
SEEDS = (0,)
PLACES = ("moons", "8gaussians", "pinwheel")
TRAINING: dict[str, Any] = {"batch_size": 512, "ema": 0.99, "threads": 1}
Settings = tuple[dict[str, Any], dict[str, Any]]
# Of the model, and of its training: chosen by the validation loss of runs of 20 seconds on one density or two. Smooth
# activations and large rates decide: naf has 0.045 nats with relu and 0.008 with elu after 20 seconds of 8gaussians.
ZOO: dict[str, Settings] = {
    "bernstein": (
        {"layers": 5, "activation": "elu"},
        {"lr": 5e-3, "steps": 1500, "batch_size": 256},
    ),
    # At the rate 0.2 and without clipping, longer runs ended 0.08 to 0.28 nats away.
    "bnaf": ({"layers": 2}, {"lr": 0.1, "steps": 2500, "batch_size": 256, "clip": 0.1}),
    "gaussianization": ({}, {"lr": 0.1, "steps": 1000}),
    "naf": ({"layers": 2, "units": 16, "activation": "elu"}, {"lr": 1e-2, "steps": 1500}),
    "sos": (
        {"polynomials": 2, "bound": 3.0, "activation": "elu"},
        {"lr": 5e-3, "steps": 6000, "batch_size": 256, "clip": 1.0},
    ),
    "umnn": (
        {"layers": 2, "hidden": [32, 32], "activation": "elu"},
        {"lr": 1e-2, "steps": 2500, "batch_size": 256},
    ),
}
SPLINES: dict[str, Settings] = {
    "nsf_autoregressive": (
        {"layers": 3, "blocks": 1, "bins": 16, "activation": "silu"},
        {"lr": 5e-3, "steps": 2000},
    ),
}
# Where these settings end above the aim of their table: once more, larger and for longer, under another rate.
LONGER: dict[tuple[str, str], Settings] = {
    ("nsf_autoregressive", "rings"): (
        # Eight narrow modes on a line: with 16 bins, five layers and 5000 steps end at 0.032 nats as well.
        {"layers": 3, "blocks": 1, "bins": 48, "activation": "silu"},
        {"lr": 6e-3, "steps": 3500},
    ),
    ("bnaf", "pinwheel"): (
        {"layers": 2},
        {"lr": 0.05, "steps": 8000, "batch_size": 256, "clip": 0.1},
    ),
    ("gaussianization", "pinwheel"): ({"layers": 12}, {"lr": 6e-2, "steps": 4000}),
    ("GaussianMixtureCDF", "8gaussians"): (
        {"layers": 3, "hidden": [64, 64], "activation": "elu"},
        {"lr": 8e-3, "steps": 3000},
    ),
} | {
    # With 32 pieces, four layers and 4000 steps end at 0.051 (moons) and 0.094 nats (8gaussians).
    ("LinearSpline", place): (
        {"layers": 3, "hidden": [64, 64], "activation": "elu", "pieces": 128},
        {"lr": 5e-3, "steps": 3000},
    )
    for place in PLACES
}
# Families without a zoo model of their own: how many pieces or components each has, in two autoregressive layers.
STACKED: dict[str, int] = {
    "LinearSpline": 32,
    "QuadraticSpline": 16,
    "CubicSpline": 16,
    "LinearRationalSpline": 16,
    "LogisticMixtureCDF": 8,
    "GaussianMixtureCDF": 8,
}
STACK: Settings = (
    {"layers": 2, "hidden": [64, 64], "activation": "elu"},
    {"lr": 1e-2, "steps": 1000},
)


def tasks(table: str) -> list[Task]:
    """All runs of a table."""
    from diffeo.data import density_names

    if table == "splines":
        runs = [(m, p, SEEDS[0], rate(m)) for m in SPLINES for p in density_names()]
        return runs + longer(SPLINES)
    runs = [(m, p, s, rate(m)) for s in SEEDS for m in ZOO for p in PLACES]
    others = [(m, p, SEEDS[0], rate(m)) for m in STACKED for p in PLACES]
    return sorted(
        runs + longer(ZOO | dict.fromkeys(STACKED, STACK)) + others, key=lambda task: task[2]
    )


def longer(models: dict[str, Settings]) -> list[Task]:
    """The runs of LONGER that are of these models."""
    return [(m, p, SEEDS[0], s[1]["lr"]) for (m, p), s in LONGER.items() if m in models]


def settings(name: str, place: str, lr: float) -> Settings:
    """Of a model or a family on a density, and of its training, but for the seed."""
    hyper, training = (ZOO | SPLINES).get(name, STACK)
    if lr != rate(name):
        hyper, training = LONGER[name, place]
    return hyper, TRAINING | training


def rate(name: str) -> float:
    """The learning rate."""
    found: float = (ZOO | SPLINES).get(name, STACK)[1]["lr"]
    return found


def stacked(name: str, hyper: dict[str, Any], seed: int) -> Any:
    """Standardization and autoregressive layers of a family, orders in turn; the random start is under the seed."""
    import torch

    from diffeo import families
    from diffeo.zoo.stacks import autoregressive_stack

    hyper = dict(hyper)
    family = partial(getattr(families, name), hyper.pop("pieces", STACKED[name]))
    unused: dict[str, Any] = {"levels": None, "alpha": None, "standardize": None}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return autoregressive_stack((2,), None, family, **hyper, **unused)


def refine(flow: Any, nodes: int = 200) -> bool:
    """Give the integrals in a flow so many nodes that they count as exact; says whether there are any."""
    from diffeo.families import UMNN
    from diffeo.families.umnn import clenshaw_curtis

    found = [m for m in flow.modules() if isinstance(m, UMNN)]
    for family in found:
        family.rule = clenshaw_curtis(nodes)
    return bool(found)
