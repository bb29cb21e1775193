"""The nearest training example of every shown sample: has the model learned the data, or learned them by heart?"""

from __future__ import annotations

import torch
from torch import Tensor

from ..data import Data
from ..flow import Flow
from . import figures
from .drawing import sample, some_rows
from .page import Picture, Section
from .pictures import Scaling, image_grid, is_image

_TRAIN, _CHUNK = 20_000, 2048


def nearest(queries: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square difference to the nearest row of train, and its number, [n] each; train is read in chunks."""
    q = queries.flatten(1).float()
    best = torch.full((len(q),), torch.inf)
    index = torch.zeros(len(q), dtype=torch.long)
    for start in range(0, len(train), _CHUNK):
        rows = train[start : start + _CHUNK].flatten(1).float()
        distance, at = torch.cdist(q, rows).min(1)
        closer = distance < best
        best = torch.where(closer, distance, best)
        index = torch.where(closer, at + start, index)
    # The search cancels digits where the two are almost equal, which is where they matter most.
    gap = q.double() - train[index].flatten(1).double()
    return gap.square().mean(1).sqrt().float(), index


def neighbours(flow: Flow, data: Data, seed: int) -> Section:
    """Samples beside their nearest training examples, and how far samples and test data are from training data."""
    images = is_image(flow.event_shape)
    train = some_rows(data.train, _TRAIN, seed)
    count = 1000 if flow.event_size <= 128 else 256
    drawn, test = sample(flow, count, seed).float(), some_rows(data.test, count, seed).float()
    drawn = drawn[drawn.flatten(1).isfinite().all(1)]
    if images:
        scale: Tensor | float = 1.0
        unit = "grey levels" if data.levels is not None else "units of the data"
    else:
        spread = train.flatten(1).double().std(0).float()
        scale = torch.where(spread > 0, spread, torch.ones_like(spread)).reshape(train.shape[1:])
        unit = "standard deviations of a column"
    of_samples, which = nearest(drawn / scale, train / scale)
    of_test, _ = nearest(test / scale, train / scale)
    low, a, b = (
        torch.quantile(of_test, 0.05).item(),
        of_samples.median().item(),
        of_test.median().item(),
    )
    close = (of_samples < low).double().mean().item()
    searched = (
        f"{len(train):,} of the {len(data.train):,}"
        if len(train) < len(data.train)
        else f"the {len(train):,}"
    )
    text = (
        f"The nearest of {searched} training examples, by the root mean square difference in {unit}. Half of "
        f"the samples are within {a:.3g} of one, half of the test examples within {b:.3g}. "
        f"{100 * close:.1f} % of the samples are closer than the closest 5 % of the test examples: far more than 5 % "
        "would mean that the model repeats what it was trained on."
    )
    histogram = Picture(
        figures.distances(of_test, of_samples, unit),
        "histograms of distances to the nearest training example, of test data and of samples",
    )
    if not images:
        return Section("Nearest training examples", text, [histogram])
    scaling = Scaling.of(data.train, data.levels)
    pairs = [
        Picture(
            image_grid(torch.stack((x, train[k].to(x))), scaling, 2),
            f"a sample and its nearest training image, {d:.3g} apart",
            f"{d:.3g}",
        )
        for x, k, d in zip(drawn[:16], which[:16].tolist(), of_samples[:16].tolist(), strict=True)
    ]
    shown = Section(
        "Samples, each with its nearest training image",
        "Left the sample (temperature 1), right the training image, below their distance.",
        pairs,
        "tiles",
    )
    return Section("Nearest training examples", text, [histogram], more=(shown,))
