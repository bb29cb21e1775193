"""Plots as SVG: learning curves, densities, point clouds, warped grids, histograms, correlations.

Drawn on a bare `matplotlib.figure.Figure`, never through pyplot. Ink and hairlines are CSS variables inside the SVG, so
that a plot follows the page between light and dark.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .calibration import Ranks

Box = tuple[float, float, float, float]
"""A window on the plane: left, right, bottom, top."""

INK, HAIR = "#20242c", "#dde1e8"
REAL, MODEL, GREY = "#e07a2f", "#3b6fd4", "#8a93a3"
_COLORS = (MODEL, REAL, "#3f9c74", "#a35bc2", GREY)
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": HAIR,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.grid": False,
    "grid.color": HAIR,
    "grid.linewidth": 0.7,
    "xtick.color": HAIR,
    "ytick.color": HAIR,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "diffeo",
    "figure.dpi": 72,
    "savefig.dpi": 150,
    "path.simplify": True,
    "path.simplify_threshold": 0.25,
    "text.parse_math": False,
}
_THEME = (
    f"<style>svg{{--ink:{INK};--hair:{HAIR}}}"
    "@media (prefers-color-scheme:dark){svg{--ink:#e4e8ef;--hair:#3a4250}}</style>"
)
_FONT = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"


def _render(size: tuple[float, float], paint: Callable[[Figure], None]) -> bytes:
    """Draw with `paint` on a figure of `size` inches of 72 points; SVG bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams  # typed as a closed list of names, which grows
        settings.update(_STYLE)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue().decode()
    svg = svg.replace(INK, "var(--ink)").replace(HAIR, "var(--hair)")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", rf"font-size:\1;{_FONT}", svg)
    return re.sub(r"(<svg [^>]*>)", rf"\1{_THEME}", svg, count=1).encode()


# -- learning curves ------------------------------------------------------------------------------------------------


def learning_curves(curves: Mapping[str, Sequence[tuple[int, float]]], unit: str) -> bytes:
    """Each named curve over the steps; long noisy ones faint, with their running mean on top."""

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        ax.grid(axis="y")
        late: list[float] = []
        for i, (name, points) in enumerate(curves.items()):
            kept = [(s, v) for s, v in points if math.isfinite(v)]
            if not kept:
                continue
            steps, values = [s for s, _ in kept], [v for _, v in kept]
            color = _COLORS[i % len(_COLORS)]
            smooth = _running_mean(values) if len(values) > 60 else values
            if smooth is not values:
                ax.plot(steps, values, color=color, alpha=0.25, linewidth=0.8)
            marker = "o" if len(values) < 40 else None
            label = name
            if name == "validation" and len(values) > 1:
                best = min(range(len(values)), key=values.__getitem__)
                ax.plot(steps[best], values[best], "o", ms=8, mfc="none", mec=color, mew=1.4)
                label = f"{name}, best {values[best]:.4g} at step {steps[best]:,}"
            ax.plot(steps, smooth, color=color, linewidth=1.8, marker=marker, ms=3.5, label=label)
            late += smooth[len(smooth) // 10 :]
        if late:  # the plunge of the first steps would flatten everything after it
            low, high = min(late), max(late)
            pad = 0.08 * (high - low) or 0.5
            ax.set_ylim(low - pad, high + pad)
            figure.legend(loc="outside upper right", ncols=len(curves))
        ax.set_xlabel("optimizer step")
        ax.set_ylabel(unit)

    return _render((10, 3.4), paint)


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean over a window about each value, a thirtieth of the curve wide, cut off at the ends."""
    sums = [0.0, *itertools.accumulate(values)]
    n, reach = len(values), max(2, len(values) // 60)
    # Symmetric at the start, where the curve plunges and a one-sided window would look into its future.
    spans = [(k - min(reach, k), min(k + min(reach, k), n - 1) + 1) for k in range(n)]
    return [(sums[stop] - sums[start]) / (stop - start) for start, stop in spans]


# -- the plane ------------------------------------------------------------------------------------------------------


def _window(figure: Figure, box: Box) -> Axes:
    ax = figure.add_subplot()
    ax.set_xlim(box[0], box[1])
    ax.set_ylim(box[2], box[3])
    ax.set_aspect("equal")
    ax.locator_params(nbins=5)
    ax.tick_params(labelsize=8, length=2.5)
    for spine in ax.spines.values():
        spine.set_visible(True)
    return ax


def density(values: Tensor, box: Box, top: float) -> bytes:
    """A density on a regular grid of the window, values[row, column] from the bottom left; `top` is the brightest."""

    def paint(figure: Figure) -> None:
        ax = _window(figure, box)
        ax.imshow(
            values.numpy(),
            extent=box,
            origin="lower",
            cmap="magma",
            vmin=0,
            vmax=top,
            interpolation="bilinear",
        )

    return _render((2.9, 2.9), paint)


def points(x: Tensor, box: Box, color: str) -> bytes:
    """A cloud of points [n, 2]."""

    def paint(figure: Figure) -> None:
        ax = _window(figure, box)
        ax.scatter(x[:, 0], x[:, 1], s=2.5, color=color, alpha=0.5, linewidths=0, rasterized=True)

    return _render((2.9, 2.9), paint)


def warped_grid(lines: Sequence[Tensor], x: Tensor, hue: Tensor, box: Box) -> bytes:
    """Grid lines, each [k, 2], under points [n, 2] with a hue in [0, 1) each."""

    def paint(figure: Figure) -> None:
        from matplotlib import colormaps

        ax = _window(figure, box)
        for line in lines:
            ax.plot(line[:, 0], line[:, 1], color=GREY, linewidth=0.6, alpha=0.75)
        colors = colormaps["hsv"](hue.numpy())
        colors[:, :3] *= 0.88  # yellow and cyan would drown in a white page
        ax.scatter(x[:, 0], x[:, 1], s=4.5, c=colors, alpha=0.75, linewidths=0, rasterized=True)

    return _render((4.4, 4.4), paint)


# -- tables ---------------------------------------------------------------------------------------------------------


def histograms(real: Tensor, model: Tensor, names: Sequence[str], integers: bool) -> bytes:
    """Per column, the histogram of real rows and of samples on common bins."""
    across = min(4, len(names))
    down = -(-len(names) // across)

    def paint(figure: Figure) -> None:
        for i, name in enumerate(names):
            ax = figure.add_subplot(down, across, i + 1)
            edges = _bins(real[:, i], integers)
            common: dict[str, Any] = {"bins": edges, "density": True}
            ax.hist(real[:, i], **common, color=REAL, alpha=0.45, label="real")
            ax.hist(
                model[:, i], **common, color=MODEL, histtype="step", linewidth=1.6, label="samples"
            )
            ax.set_title(_short(name, 26))
            ax.set_yticks([])
            ax.spines["left"].set_visible(False)
            ax.locator_params(axis="x", nbins=4)
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)

    return _render((2.55 * across, 1.9 * down), paint)


def _bins(column: Tensor, integers: bool) -> list[float]:
    column = column.double()
    low, high = torch.quantile(column[:10000], torch.tensor([0.002, 0.998]).double()).tolist()
    if integers and high - low < 60:
        return [v - 0.5 for v in range(math.floor(low), math.ceil(high) + 2)]
    pad = 0.05 * (high - low) or 0.5
    count = min(40, 4 + round(2 * len(column) ** (1 / 3)))  # about Rice's rule
    edges: list[float] = torch.linspace(low - pad, high + pad, count + 1).tolist()
    return edges


def pair(real: Tensor, model: Tensor, names: tuple[str, str]) -> bytes:
    """Two columns against each other, real [n, 2] beside samples [n, 2] in the same window."""

    def paint(figure: Figure) -> None:
        x, y = (_bins(real[:, k], False) for k in (0, 1))
        area = min(16.0, max(3.0, 2000 / len(real)))
        for k, (rows, color, title) in enumerate(
            ((real, REAL, "real"), (model, MODEL, "samples")), start=1
        ):
            ax = figure.add_subplot(1, 2, k)
            ax.scatter(
                rows[:, 0],
                rows[:, 1],
                s=area,
                color=color,
                alpha=0.5,
                linewidths=0,
                rasterized=True,
            )
            ax.set_xlim(x[0], x[-1])
            ax.set_ylim(y[0], y[-1])
            ax.set_title(title)
            ax.set_xlabel(_short(names[0], 24))
            ax.locator_params(nbins=4)
            if k == 1:
                ax.set_ylabel(_short(names[1], 24))
            else:
                ax.tick_params(labelleft=False)

    return _render((5.0, 2.6), paint)


def correlations(real: Tensor, model: Tensor) -> bytes:
    """Correlation matrices of the columns: real, samples, and their difference."""

    def paint(figure: Figure) -> None:
        matrices = (("real", real), ("samples", model), ("samples − real", model - real))
        axes = [figure.add_subplot(1, 3, k + 1) for k in range(3)]
        for ax, (title, matrix) in zip(axes, matrices, strict=True):
            drawn = ax.imshow(matrix.numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
            ax.set_title(title)
            ax.set_xticks([])
            ax.set_yticks([])
        bar = figure.colorbar(drawn, ax=axes, shrink=0.85, ticks=[-1, 0, 1])
        bar.outline.set_visible(False)

    return _render((10, 3.1), paint)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


# -- checks ---------------------------------------------------------------------------------------------------------


def distances(test: Tensor, samples: Tensor, unit: str) -> bytes:
    """Histograms of the distances to the nearest training example."""

    def paint(figure: Figure) -> None:
        ax = figure.add_subplot()
        both = torch.cat((test, samples)).double()
        top = torch.quantile(both, 0.99).item() or 1.0
        edges: list[float] = torch.linspace(min(0.0, both.min().item()), top, 41).tolist()
        common: dict[str, Any] = {"bins": edges, "density": True}
        ax.hist(test, **common, color=REAL, alpha=0.45, label="test data")
        ax.hist(samples, **common, color=MODEL, histtype="step", linewidth=1.6, label="samples")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set_xlabel(f"distance to the nearest training example, {unit}")
        figure.legend(loc="outside upper right", ncols=2)

    return _render((10, 2.4), paint)


def rank_histograms(found: Sequence[Ranks]) -> bytes:
    """Histograms of ranks, which are uniform where the model is right, with their band."""
    across = max(1, min(4, len(found)))
    down = -(-len(found) // across)

    def paint(figure: Figure) -> None:
        for i, r in enumerate(found):
            ax = figure.add_subplot(down, across, i + 1)
            n = len(r.heights)
            ax.axhspan(1 - r.band, 1 + r.band, color=GREY, alpha=0.35, linewidth=0)
            ax.axhline(1, color=GREY, linewidth=0.8)
            at = [(k + 0.5) / n for k in range(n)]
            ax.bar(at, r.heights.tolist(), width=0.9 / n, color=MODEL, alpha=0.75)
            ax.set_title(_short(r.name, 26))
            ax.set_xlim(0, 1)
            ax.set_ylim(0, max(1.6, 1 + 1.6 * r.band, 1.05 * r.heights.max().item()))
            ax.set_xticks([0, 0.5, 1])
            ax.set_yticks([0, 1])

    return _render((10.2, 1.8 * max(1, down)), paint)
