"""The candidates of scripts/tables.py: neural spline flows of two libraries and ours, four settings each."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from contest import Rival
from torch import Tensor, nn

BOUND = 5.0
GRID: tuple[dict[str, Any], ...] = (
    {"layers": 3, "width": 64, "bins": 8, "lr": 6e-3, "weight_decay": 0.3},
    {"layers": 3, "width": 64, "bins": 8, "lr": 1e-2, "weight_decay": 0.3},
    {"layers": 3, "width": 128, "bins": 8, "lr": 6e-3, "weight_decay": 0.3},
    {"layers": 5, "width": 64, "bins": 8, "lr": 6e-3, "weight_decay": 0.3, "coupling": True},
)
"""Of the peers. Autoregressive, as zuko has it by default, but for the last."""
GRID_LARGE: tuple[dict[str, Any], ...] = (
    {"layers": 3, "width": 64, "bins": 8, "lr": 1e-2},
    {"layers": 3, "width": 128, "bins": 8, "lr": 6e-3},
    {"layers": 3, "width": 256, "bins": 8, "lr": 1e-2},
    {"layers": 5, "width": 128, "bins": 8, "lr": 6e-3, "coupling": True},
)
OURS: tuple[dict[str, Any], ...] = (
    {"splines": 1, "width": 128, "dropout": 0.1, "lr": 6e-3, "weight_decay": 0.3},
    {"splines": 1, "width": 128, "dropout": 0.2, "lr": 1e-2, "weight_decay": 0.3},
    {"splines": 1, "width": 256, "dropout": 0.3, "lr": 1e-2, "weight_decay": 1.0},
    {"splines": 2, "width": 128, "dropout": 0.2, "lr": 1e-2, "weight_decay": 0.3},
)
OURS_LARGE: tuple[dict[str, Any], ...] = (
    {"splines": 1, "width": 256, "lr": 1e-2},
    {"splines": 2, "width": 256, "lr": 6e-3},
    {"splines": 1, "below": 1, "width": 256, "lr": 1e-2},
    {"splines": 2, "width": 128, "dropout": 0.1, "lr": 1e-2, "weight_decay": 0.3},
)
LARGE = 5000
"""Training rows from which on there are the other candidates: overfitting no longer decides."""
COMPONENTS = 16


class Density(nn.Module):
    """A flow of another library with log_prob as its forward."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        flow: Any = self.flow
        out: Tensor = flow.log_prob(x) if hasattr(flow, "log_prob") else flow().log_prob(x)
        return out


def zuko(d: int, *, layers: int, width: int, bins: int, coupling: bool = False) -> nn.Module:
    """As zuko has it: spline bound 5, orders reversed from layer to layer, no layers between."""
    validate = torch.distributions.Distribution._validate_args
    import zuko as library

    # zuko switches this off for all of torch when it is imported.
    torch.distributions.Distribution.set_default_validate_args(validate)
    passes = {"passes": 2} if coupling else {}
    hidden = (width, width)
    return Density(
        library.flows.NSF(d, bins=bins, transforms=layers, hidden_features=hidden, **passes)
    )


def nflows(d: int, *, layers: int, width: int, bins: int, coupling: bool = False) -> nn.Module:
    """As its authors' experiments on tables: permutation and LU-linear layer before each, residual nets, dropout."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets import ResidualNet
    from nflows.transforms import autoregressive, lu, permutations
    from nflows.transforms import coupling as couplings
    from nflows.transforms.base import CompositeTransform

    spline = {"num_bins": bins, "tails": "linear", "tail_bound": BOUND}
    parts: list[Any] = []
    for i in range(layers):
        parts += [permutations.RandomPermutation(d), lu.LULinear(d, identity_init=True)]
        if coupling:
            net = partial(ResidualNet, hidden_features=width, num_blocks=2, dropout_probability=0.1)
            mask = (torch.arange(d) + i) % 2
            parts.append(
                couplings.PiecewiseRationalQuadraticCouplingTransform(
                    mask, net, apply_unconditional_transform=True, **spline
                )
            )
        else:
            parts.append(
                autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                    d, hidden_features=width, num_blocks=2, dropout_probability=0.1, **spline
                )
            )
    parts += [permutations.RandomPermutation(d), lu.LULinear(d, identity_init=True)]
    return Density(Flow(CompositeTransform(parts), StandardNormal([d])))


def diffeo(d: int, *, splines: int, width: int, dropout: float = 0.0, below: int = 0) -> nn.Module:
    """p(x_i | x_<i) a mixture of Gaussians by a MADE, and spline layers on its latents, the order reversed in turn.

    below: spline layers on the side of the data.
    """
    from diffeo.distributions import StandardNormal
    from diffeo.families import Family, GaussianMixtureCDF, RationalQuadraticSpline
    from diffeo.flow import Flow
    from diffeo.nets import MADE
    from diffeo.transforms import Autoregressive, Chain

    net = partial(MADE, hidden=(width, width), dropout=dropout)
    families: list[Family] = [RationalQuadraticSpline(8, BOUND) for _ in range(below + splines)]
    families.insert(below, GaussianMixtureCDF(COMPONENTS))
    orders = ("given", "reverse")
    layers = [
        partial(Autoregressive, family=family, net=net, order=orders[i % 2])
        for i, family in enumerate(families)
    ]
    return Flow(Chain((d,), layers), StandardNormal((d,)))


def rival(build: Any, settings: dict[str, Any]) -> Rival:
    """A line of a grid as a candidate."""
    network = {k: v for k, v in settings.items() if k not in ("lr", "weight_decay")}
    label = ", ".join(f"{k} {v}" for k, v in settings.items())
    return Rival(
        label, partial(build, **network), settings["lr"], settings.get("weight_decay", 0.0)
    )


FLOWS = ("zuko", "nflows", "diffeo")


def candidates(model: str, rows: int) -> tuple[Rival, ...]:
    """The settings that a library's flow may choose from, given the number of training rows."""
    if model == "diffeo":
        return tuple(rival(diffeo, line) for line in (OURS if rows < LARGE else OURS_LARGE))
    build = zuko if model == "zuko" else nflows
    return tuple(rival(build, line) for line in (GRID if rows < LARGE else GRID_LARGE))
