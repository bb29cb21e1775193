"""Plots of inference by simulation: coverage curves and posterior predictive histograms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .figures import GREY, MODEL, REAL, _render, _short

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def coverage_curve(levels: Tensor, covered: Tensor, band: Tensor) -> bytes:
    """Share of true parameters in a region against its level; the diagonal is ideal."""

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        at = [0.0, *levels.tolist(), 1.0]
        half = [0.0, *band.tolist(), 0.0]
        low = [a - b for a, b in zip(at, half, strict=True)]
        high = [a + b for a, b in zip(at, half, strict=True)]
        ax.fill_between(at, low, high, color=GREY, alpha=0.35, linewidth=0)
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        ax.plot(levels, covered, color=MODEL, linewidth=1.8, marker="o", ms=3.5)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_aspect("equal")
        ax.set_xlabel("probability of the credible region")
        ax.set_ylabel("holds the true parameters")

    return _render((3.6, 3.6), paint)


def predictive_histograms(simulated: Tensor, observed: Tensor, names: Sequence[str]) -> bytes:
    """Per entry, simulations [n, k] at posterior draws, and the observation [k] as a line."""
    across = min(4, len(names))
    down = -(-len(names) // across)

    def paint(figure: Figure) -> None:
        for i, name in enumerate(names):
            ax = figure.add_subplot(down, across, i + 1)
            ax.hist(simulated[:, i].tolist(), bins=30, density=True, color=MODEL, alpha=0.6)
            ax.axvline(observed[i].item(), color=REAL, linewidth=1.8)
            ax.set_title(_short(name, 26))
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
            ax.locator_params(axis="x", nbins=4)

    return _render((2.55 * across, 1.9 * down), paint)
