"""What the report shows of a model: samples beside real data, the plane and its warped grid, and compression."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..applications.compression import (
    FRACTIONS,
    has_spatial_levels,
    keep,
    keep_first,
    latent_order,
)
from ..data import Data
from ..errors import DiffeoError
from ..flow import Flow
from . import figures
from .calibration import columns, latents
from .checked import audited
from .drawing import BATCH, generator, on_flow, sample, some_rows
from .given import given_samples
from .neighbours import neighbours
from .page import Picture, Section, number, spread
from .pictures import Scaling, image_grid, is_image
from .typed import typed_makers

TEMPERATURES = (0.5, 0.7, 0.85, 1.0)
_GRID = 160
_POINTS = 1500
_ROWS = 20_000


Maker = Callable[[Flow, Data, int], Section]


def model_sections(flow: Flow, data: Data, seed: int) -> tuple[list[Section], list[Section]]:
    """What the model makes, and how it is checked; a section that a model cannot give says why in its place."""
    if flow.context_shape is not None and data.context_shape is None:
        text = "This model needs a context, which this page does not choose: see `diffeo sample`."
        return [Section("Samples", text)], []
    check: dict[str, Maker] = {"Nearest training examples": neighbours}
    shown: dict[str, Maker]
    if data.schema is not None:
        shown, check = typed_makers()
    elif data.given is not None:
        shown, check = {"Samples": given_samples}, {}
    elif is_image(flow.event_shape):
        shown = {"Samples": image_samples, "Conceptual compression": compression}
    else:
        check["Calibration of the columns"] = columns
        shown = {"Samples against real rows": table}
        if flow.event_shape == (2,) and not flow.discrete:
            shown = {"Density and samples": plane, "The warped grid": warped}
    check |= {"Latents": latents, "Audit": audited}
    first, second = (
        [_attempt(title, make, flow, data, seed) for title, make in makers.items()]
        for makers in (shown, check)
    )
    return first, second


def _attempt(title: str, make: Maker, flow: Flow, data: Data, seed: int) -> Section:
    try:
        return make(flow, data, seed)
    except DiffeoError as error:
        return Section(title, f"Not shown for this model: {error}")


# -- images ---------------------------------------------------------------------------------------------------------


def image_samples(flow: Flow, data: Data, seed: int) -> Section:
    side = 5 if max(flow.event_shape[1:]) <= 32 else 4
    n = side * side
    scaling = Scaling.of(data.train, data.levels)
    real = Picture(
        image_grid(data.test[:n], scaling, side),
        f"{min(n, len(data.test))} real test images",
        "real test images",
    )
    pictures = [real]
    for t in TEMPERATURES:
        grid = image_grid(sample(flow, n, seed, t), scaling, side)
        pictures.append(Picture(grid, f"{n} samples at temperature {t:g}", f"temperature {t:g}"))
    text = (
        "Real test images, then images drawn from the model. Each panel uses the same random latents, multiplied by "
        "the temperature: 1 is the model itself; less gives tidier and less varied images."
    )
    return Section("Samples", text, pictures, "row")


def compression(flow: Flow, data: Data, seed: int) -> Section:
    scaling = Scaling.of(data.train, data.levels)
    x = on_flow(flow, data.test[:12])
    order = latent_order(flow, x, seed=seed)
    size = len(order)
    pictures = [
        Picture(image_grid(x.cpu(), scaling, len(x)), f"{len(x)} test images", "test images")
    ]
    for fraction in FRACTIONS:
        which = keep_first(order, fraction)
        # The same draws for every fraction.
        back = keep(flow, x, which, generator=generator(flow, seed))
        kept = int(which.sum())
        pictures.append(
            Picture(
                image_grid(back.cpu(), scaling, len(x)),
                f"the same images decoded from {kept} of their {size} latents, the others drawn anew",
                f"{100 * fraction:g} %\n{kept} of {size}",
            )
        )
    if has_spatial_levels(flow):
        how = (
            "The coarsest latents are kept: coarse levels before fine ones, and inside a level every other place of a "
            "checkerboard, again and again (Real NVP, appendix D)."
        )
    else:
        how = (
            "This model's latent has no coarse and fine levels, so latents are ranked by importance instead: the mean "
            "squared change of the image when that one latent is drawn anew, measured on a few of these images."
        )
    text = (
        "Each image is encoded, part of its latents is kept, the rest is drawn at random, and the result is decoded. "
        f"{how} At 100 % the image comes back; what survives further down is what the kept latents stand for."
    )
    return Section("Conceptual compression", text, pictures, "strips")


# -- the plane ------------------------------------------------------------------------------------------------------


def plane(flow: Flow, data: Data, seed: int) -> Section:
    box = _data_box(data)
    grid = _grid_points(box)
    model = flow.log_prob(on_flow(flow, grid), batch_size=BATCH).cpu().double().exp()
    model = model.nan_to_num(nan=0.0, posinf=0.0)
    area = (box[1] - box[0]) * (box[3] - box[2]) / _GRID**2
    pictures = []
    top = torch.quantile(model, 0.998).item() or 1.0
    text = "Brighter is more probable. "
    if data.density is not None:
        truth = data.density.log_prob(grid.double()).exp()
        top = truth.max().item()
        image = figures.density(truth.reshape(_GRID, _GRID), box, top)
        pictures.append(Picture(image, f"true density of {data.name}", "true density"))
        text += f"Both densities share one colour scale. {_gap(flow, data)} "
    image = figures.density(model.reshape(_GRID, _GRID), box, top)
    pictures.append(Picture(image, "density of the model", "density of the model"))
    n = min(2 * _POINTS, len(data.test))
    real = figures.points(data.test[:n].cpu(), box, figures.REAL)
    drawn = figures.points(sample(flow, n, seed), box, figures.MODEL)
    pictures += [
        Picture(real, f"{n} test points", f"{n} test points"),
        Picture(drawn, f"{n} samples of the model", f"{n} samples of the model"),
    ]
    text += (
        f"The model puts {100 * (model.sum().item() * area):.1f} % of its mass into this window."
    )
    return Section("Density and samples", text, pictures, "row")


def _gap(flow: Flow, data: Data) -> str:
    """The divergence from the true density, as a sentence."""
    assert data.density is not None
    x = data.test[:5000]
    truth = data.density.log_prob(x.double())
    model = flow.log_prob(on_flow(flow, x), batch_size=BATCH).cpu().double()
    gap = truth - model
    error = gap.std().item() / math.sqrt(len(gap))
    return (
        "On test points the truth is more probable than the model by "
        f"{number(gap.mean().item(), error)} ± {spread(error)} nats on average, an estimate of the "
        "Kullback-Leibler divergence, whose ideal is 0."
    )


def warped(flow: Flow, data: Data, seed: int) -> Section:
    """Figure 1 of Dinh et al., Real NVP, 2016: both directions of the map, with a grid."""
    box = _data_box(data)
    x = data.test[:_POINTS]
    z = flow.encode(on_flow(flow, x), batch_size=BATCH).cpu()
    drawn = flow.base.sample(_POINTS, generator=generator(flow, seed))
    made = flow.decode(drawn, batch_size=BATCH).cpu()
    drawn = drawn.cpu()
    reach = torch.quantile(torch.cat((z, drawn)).abs().nan_to_num(nan=0.0), 0.999).item()
    edge = max(3.5, 1.1 * reach)
    square = (-edge, edge, -edge, edge)
    data_lines, latent_lines = _grid_lines(box), _grid_lines(square)
    forward = _through(lambda v: flow.encode(v, batch_size=BATCH), flow, data_lines)
    backward = _through(lambda v: flow.decode(v, batch_size=BATCH), flow, latent_lines)
    hue, latent_hue = _hue(x.cpu()), _hue(drawn)
    pictures = [
        Picture(
            figures.warped_grid(data_lines, x.cpu(), hue, box),
            "test points on a square grid in data space",
            "test data x …",
        ),
        Picture(
            figures.warped_grid(forward, z, hue, square),
            "the same points and the warped grid in latent space",
            "… and their latents z = f(x)",
        ),
        Picture(
            figures.warped_grid(latent_lines, drawn, latent_hue, square),
            "latents drawn from the base on a square grid",
            "latents z drawn from the base …",
        ),
        Picture(
            figures.warped_grid(backward, made, latent_hue, box),
            "the samples they decode to and the warped grid in data space",
            "… and the samples x = f⁻¹(z)",
        ),
    ]
    text = (
        "The model is one invertible map, drawn here in both directions, as figure 1 of the Real NVP paper. A point "
        "keeps its colour, and every line of the left grid is carried to the right: it bends, but never folds. "
        "Above, data become latents that should look like one round cloud; below, latents become samples."
    )
    return Section("The warped grid", text, pictures, "pairs")


def _data_box(data: Data) -> figures.Box:
    if data.density is not None:
        e = data.density.extent
        return (-e, e, -e, e)
    x = some_rows(data.train, _ROWS, 0).double()
    low, high = x.amin(0), x.amax(0)
    middle, half = (low + high) / 2, 0.54 * (high - low).max().clamp(min=1e-6)
    (a, b), (c, d) = (middle - half).tolist(), (middle + half).tolist()
    return (a, c, b, d)


def _grid_points(box: figures.Box) -> Tensor:
    """Centres of the cells of the window, row by row from below, [_GRID^2, 2]."""
    share = (torch.arange(_GRID) + 0.5) / _GRID
    xs = box[0] + share * (box[1] - box[0])
    ys = box[2] + share * (box[3] - box[2])
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack((x, y), -1).reshape(-1, 2)


def _grid_lines(box: figures.Box, count: int = 21, along: int = 300) -> list[Tensor]:
    xs, ys = torch.linspace(box[0], box[1], count), torch.linspace(box[2], box[3], count)
    x, y = torch.linspace(box[0], box[1], along), torch.linspace(box[2], box[3], along)
    upright = [torch.stack((v.expand(along), y), -1) for v in xs]
    level = [torch.stack((x, v.expand(along)), -1) for v in ys]
    return upright + level


def _through(map_rows: Callable[[Tensor], Tensor], flow: Flow, lines: list[Tensor]) -> list[Tensor]:
    mapped = map_rows(on_flow(flow, torch.cat(lines))).cpu().double()
    mapped = torch.where(mapped.isfinite(), mapped, math.nan).clamp(-1e4, 1e4)
    return list(torch.split(mapped, [len(line) for line in lines]))


def _hue(x: Tensor) -> Tensor:
    """Angle about the mean, in [0, 1]."""
    away = x - x.mean(0)
    return (torch.atan2(away[:, 1], away[:, 0]) / (2 * math.pi) + 0.5).clamp(0, 1)


# -- tables ---------------------------------------------------------------------------------------------------------


def table(flow: Flow, data: Data, seed: int) -> Section:
    real = some_rows(data.test, _ROWS, seed).flatten(1).double()
    model = sample(flow, max(len(real), 2000), seed).flatten(1).double()
    kept = model.isfinite().all(1)
    lost, model = int((~kept).sum()), model[kept]
    names = data.columns or tuple(f"x{i + 1}" for i in range(real.shape[1]))
    shown = min(12, real.shape[1])
    pictures = [
        Picture(
            figures.histograms(
                real[:, :shown], model[:, :shown], names[:shown], data.levels is not None
            ),
            f"histograms of {shown} columns, test rows and samples",
            "each column alone" if shown == real.shape[1] else f"the first {shown} columns",
        )
    ]
    text = (
        "Test rows (orange) against rows drawn from the model (blue). Where the model is right, outlines follow the "
        "filled shapes, the clouds look alike, and the right-hand correlation matrix is pale."
    )
    if lost:
        text += f" {lost} samples held NaN or infinity and are left out."
    if real.shape[1] == 1 or len(model) < 2:
        return Section("Samples against real rows", text, pictures)
    pictures.append(_correlation_picture(real, model))
    n = min(len(real), len(model), 1500)
    pairs = []
    for i, j in _strongest_pairs(_correlation(real)):
        at = [i, j]
        image = figures.pair(real[:n, at], model[:n, at], (names[i], names[j]))
        pairs.append(Picture(image, f"{names[j]} against {names[i]}, real and sampled"))
    more = Section("Pairs of columns", "The most strongly correlated ones.", pairs, "pairs")
    return Section("Samples against real rows", text, pictures, more=(more,))


def _correlation_picture(real: Tensor, model: Tensor) -> Picture:
    a, b = _correlation(real), _correlation(model)
    worst = (b - a).abs().max().item()
    return Picture(
        figures.correlations(a, b),
        "correlation matrices of test rows, of samples, and their difference",
        f"correlations between columns; the largest difference is {worst:.2f}",
    )


def _correlation(x: Tensor) -> Tensor:
    return torch.corrcoef(x.T).nan_to_num(nan=0.0)


def _strongest_pairs(correlation: Tensor, count: int = 4) -> list[tuple[int, int]]:
    d = len(correlation)
    rows, columns = torch.triu_indices(d, d, 1)
    best = correlation[rows, columns].abs().argsort(descending=True, stable=True)[:count]
    return [(int(rows[k]), int(columns[k])) for k in best]
