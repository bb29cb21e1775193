"""Plots of mixed columns: marginals, pairs and associations, with dates and categories by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..columns import Column
from . import figures
from .figures import MODEL, REAL

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEVELS = 6
"""Categories that have their own place; others are one, and so are missing ones."""
_NAMED = 20

short = figures._short


def shown(value: float, column: Column) -> str:
    """A value as in the file, a date without its time where the range is long."""
    import numpy as np

    if column.kind == "ordinal":
        return column.values[max(0, min(len(column.values) - 1, round(value)))]
    if column.kind == "date":
        return str(np.datetime64(round(value), "D"))
    if column.kind == "datetime":
        low, high = column.bounds
        moment = np.datetime64(round(value), "s")
        return str(moment.astype("datetime64[D]")) if high - low > 3 * 86400 else str(moment)
    return f"{value:.6g}"


def marginals(real: Array, model: Array, columns: Sequence[Column]) -> bytes:
    """Each column alone: bars of categories, histograms of the others; [n, columns] each."""
    across = min(4, len(columns))
    down = -(-len(columns) // across)

    def paint(figure: Figure) -> None:
        from matplotlib.patches import Patch

        for i, column in enumerate(columns):
            ax = figure.add_subplot(down, across, i + 1)
            ax.set_title(short(column.name, 26))
            if _few(column):
                _bars(ax, real[:, i], model[:, i], column)
            else:
                _histograms(ax, real[:, i], model[:, i], column)
        handles: list[Any] = [
            Patch(color=REAL, alpha=0.45, label="real"),
            Patch(facecolor="none", edgecolor=MODEL, linewidth=1.6, label="samples"),
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=2)

    return figures._render((2.55 * across, 1.9 * down), paint)


def _few(column: Column) -> bool:
    return column.kind == "categorical" or (
        column.kind == "ordinal" and len(column.values) <= LEVELS
    )


def _places(column: Column, like: Array) -> tuple[list[str], Any]:
    """Names of the places of a category, and the place of each value; those of `like` are by frequency."""
    import numpy as np

    k = len(column.values)
    counts = np.bincount(like[~np.isnan(like)].astype(int), minlength=k)
    order = np.arange(k) if column.kind == "ordinal" else (-counts).argsort(kind="stable")
    kept = order if k <= LEVELS + 1 else order[:LEVELS]
    names = [column.values[i] for i in kept]
    place = np.full(k + 1, len(kept))
    place[kept] = np.arange(len(kept))
    if len(kept) < k:
        names.append(f"{k - len(kept)} others")
    if column.missing:
        place[k] = len(names)
        names.append("missing")

    def at(values: Array) -> Array:
        codes = np.where(np.isnan(values), k, values).astype(int)
        return np.asarray(place[codes], dtype=np.float64)

    return names, at


def _bars(ax: Axes, real: Array, model: Array, column: Column) -> None:
    import numpy as np

    names, at = _places(column, real)
    y = list(range(len(names)))
    styles: list[tuple[Array, dict[str, Any]]] = [
        (real, {"color": REAL, "alpha": 0.45}),
        (model, {"facecolor": "none", "edgecolor": MODEL, "linewidth": 1.4}),
    ]
    for values, style in styles:
        share = np.bincount(at(values).astype(int), minlength=len(names)) / max(1, len(values))
        ax.barh(y, share.tolist(), height=0.72, **style)
    ax.set_yticks(y, [short(name, 14) for name in names], fontsize=7.5)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=4)


def _histograms(ax: Axes, real: Array, model: Array, column: Column) -> None:
    import numpy as np

    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    real, model = (x[~np.isnan(x)] for x in (real, model))
    if not len(real):
        ax.text(0.5, 0.5, "no value in test rows", ha="center", transform=ax.transAxes)
        return
    edges = figures._bins(torch.from_numpy(real), column.kind in ("integer", "ordinal", "date"))
    ax.hist(real, bins=edges, density=True, color=REAL, alpha=0.45)
    inside = (model >= edges[0]) & (model <= edges[-1])
    if inside.any():
        ax.hist(model, bins=edges, density=True, color=MODEL, histtype="step", linewidth=1.6)
    _ticks(ax, column)


def _ticks(ax: Axes, column: Column, axis: Literal["x", "y"] = "x") -> None:
    """Few ticks, dates and ordinal values as they are written."""
    named = column.kind in ("date", "datetime", "ordinal")
    low, high = ax.get_xlim() if axis == "x" else ax.get_ylim()
    ax.locator_params(axis=axis, nbins=2 if named else 3 if max(-low, high) >= 1e5 else 4)
    if named:
        side = ax.xaxis if axis == "x" else ax.yaxis
        side.set_major_formatter(lambda value, _: short(shown(value, column), 12))


def pair(real: Array, model: Array, columns: Sequence[Column], seed: int = 0) -> bytes:
    """Two columns against each other, real [n, 2] beside samples [n, 2] in the same window."""
    import numpy as np

    rng = np.random.default_rng(seed)
    sides: list[tuple[list[Array], tuple[float, float], list[str] | None]] = []
    for k, column in enumerate(columns):
        if _few(column):
            names, at = _places(column, real[:, k])
            points = [at(t[:, k]) + rng.uniform(-0.32, 0.32, len(t)) for t in (real, model)]
            sides.append((points, (-0.6, len(names) - 0.4), names))
        else:
            there = real[:, k][~np.isnan(real[:, k])]
            edges = figures._bins(torch.from_numpy(there), False) if len(there) else [0.0, 1.0]
            sides.append(([real[:, k], model[:, k]], (edges[0], edges[-1]), None))

    def paint(figure: Figure) -> None:
        area = min(16.0, max(3.0, 2000 / max(1, len(real))))
        for m, (color, title) in enumerate(((REAL, "real"), (MODEL, "samples"))):
            ax = figure.add_subplot(1, 2, m + 1)
            x, y = sides[0][0][m], sides[1][0][m]
            ax.scatter(x, y, s=area, color=color, alpha=0.5, linewidths=0, rasterized=True)
            ax.set_title(title)
            axes: tuple[Literal["x", "y"], ...] = ("x", "y")
            for axis, (_, window, names), column in zip(axes, sides, columns, strict=True):
                (ax.set_xlim if axis == "x" else ax.set_ylim)(window)
                side = ax.xaxis if axis == "x" else ax.yaxis
                if names is None:
                    _ticks(ax, column, axis)
                else:
                    side.set_ticks(list(range(len(names))), [short(n, 14) for n in names])
                    side.set_tick_params(length=0, labelsize=7.5)
            if sides[0][2] is not None:
                ax.tick_params(axis="x", rotation=35)
                for label in ax.get_xticklabels():
                    label.set_horizontalalignment("right")
            ax.set_xlabel(short(columns[0].name, 24))
            if m == 0:
                ax.set_ylabel(short(columns[1].name, 24))
            else:
                ax.tick_params(labelleft=False)

    return figures._render((5.4, 2.9), paint)


def associations(real: Array, model: Array, names: Sequence[str]) -> bytes:
    """Matrices of associations: real, samples, and their difference; with names where there is room."""
    room = len(names) <= _NAMED

    def paint(figure: Figure) -> None:
        matrices = (("real", real), ("samples", model), ("samples − real", model - real))
        axes = [figure.add_subplot(1, 3, k + 1) for k in range(3)]
        for k, (ax, (title, matrix)) in enumerate(zip(axes, matrices, strict=True)):
            drawn = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
            ax.set_title(title)
            ticks = list(range(len(names))) if room else []
            written = [short(n, 16) for n in names] if room else []
            ax.set_xticks(ticks, written, rotation=90, fontsize=7)
            ax.set_yticks(ticks, written if k == 0 else [""] * len(ticks), fontsize=7)
            ax.tick_params(length=0)
        bar = figure.colorbar(drawn, ax=axes, shrink=0.85, ticks=[-1, 0, 1])
        bar.outline.set_visible(False)

    return figures._render((10, 4.0 if room else 3.1), paint)
