"""Denoising and inpainting beside classical methods: results/restoring.json and docs/images/restoring-*.png; resumable.

    python scripts/restoring.py [RUN] [--pictures 24]          `digits-glow` (the shipped one) by default

RUN: a run folder of a flow over pictures; they are the first ones of its test data, and what is tuned is tuned on its
validation data. Rows named drawn- are of pictures that the flow drew itself, and test the draws alone. PSNR takes the
range of the levels as the peak, and for inpainting the hidden pixels alone. A row that is stored with the same settings
is not repeated. Needs scikit-image.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

from stored import IMAGES, provenance, read, write

NOISES = (0.125, 0.25, 0.375)
"""Deviations of the noise, in parts of the range of levels."""
MASKS = ("centre", "half", "random")
SIMULATED = (0.25, "half")
"""Kinds that are also measured with pictures that the flow drew itself."""
WEIGHTS = tuple(0.02 * 2 ** (i / 2) for i in range(16))
"""Of total variation, tried on validation pictures."""
COVERED = 0.9
SHOWN, CELL = 4, 40
Row = dict[str, Any]


def opened(folder: str) -> tuple[str, Any, Any]:
    """The name of the data, the flow, and the data of a run."""
    import diffeo
    from diffeo.pretrained import located
    from diffeo.training.recipe import read_recipe, recipe
    from diffeo.training.run import read_data

    data = read_data(recipe(read_recipe(located(folder) / "recipe.yaml")))
    return Path(data.name).stem, diffeo.load(folder), data


def noisy(x: Any, sigma: float, seed: int) -> Any:
    import torch

    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def hidden(kind: str, x: Any) -> Any:
    """True where nothing is known, [n, 1, H, W]: the middle, the right half, or every second pixel at random."""
    import torch

    n, _, h, w = x.shape
    mask = torch.zeros(n, 1, h, w, dtype=torch.bool)
    if kind == "centre":
        mask[..., h // 4 : h - h // 4, w // 4 : w - w // 4] = True
    elif kind == "half":
        mask[..., w // 2 :] = True
    else:
        mask = torch.rand(mask.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    return mask.expand(x.shape)


def psnr(found: Any, x: Any, where: Any, peak: float) -> Any:
    """Decibels of every picture, over the entries `where`."""
    squares = (found.clamp(0, peak) - x).square() * where
    mse = squares.flatten(1).sum(1) / where.flatten(1).sum(1)
    return 10 * (peak**2 / mse.clamp(min=1e-6)).log10()


def median(y: Any) -> Any:
    """The median of 3x3 pixels, by channel."""
    import torch
    from scipy.ndimage import median_filter

    return torch.from_numpy(median_filter(y.numpy(), (1, 1, 3, 3)))


def variation(y: Any, weight: float, peak: float) -> Any:
    """Total variation by Chambolle's algorithm."""
    import torch
    from skimage.restoration import denoise_tv_chambolle

    made = [
        denoise_tv_chambolle((p / peak).double().numpy(), weight=weight, channel_axis=0) for p in y
    ]
    return torch.stack([torch.from_numpy(m) for m in made]).float() * peak


def biharmonic(x: Any, where: Any, peak: float) -> Any:
    """The smoothest fill: the biharmonic equation within the hidden pixels."""
    import torch
    from skimage.restoration import inpaint_biharmonic

    made = []
    for picture, mask in zip(x, where, strict=True):
        known = (picture / peak * ~mask).double().numpy()
        made.append(inpaint_biharmonic(known, mask[0].numpy(), channel_axis=0))
    return torch.stack([torch.from_numpy(m) for m in made]).float() * peak


def mean_error(values: Any) -> list[float]:
    """The mean, and its standard error."""
    return [values.mean().item(), (values.std() / len(values) ** 0.5).item()]


def calibration(found: Any, truth: Any, where: Any) -> Row:
    """How often central intervals of the draws hold the truth, real numbers, and whether deviations follow errors."""
    import torch

    edge = (1 - COVERED) / 2
    ends = torch.tensor([edge, 1 - edge])
    # Picture by picture: quantile refuses large tensors.
    low, high = torch.stack(
        [found.draws[:, :, i].flatten(0, 1).quantile(ends, dim=0) for i in range(len(truth))], 1
    )
    inside = ((low <= truth) & (truth <= high) & where).flatten(1).sum(1) / where.flatten(1).sum(1)
    pairs = torch.stack((found.deviation[where], (found.mean - truth).abs()[where]))
    return {"coverage": mean_error(inside), "correlation": torch.corrcoef(pairs)[0, 1].item()}


def in_bins(x: Any) -> Any:
    """Integers as the real numbers that draws are: each gets the uniform noise of its bin."""
    import torch

    return x + torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) - 0.5


def from_model(flow: Any, n: int, levels: int) -> Any:
    """Draws of the flow as real numbers, of which the integers are the nearest; those within all levels."""
    import torch

    generator, kept, count = torch.Generator().manual_seed(4), [], 0
    with torch.no_grad():
        while count < n:
            x = flow.continuous.sample((4 * n,), generator=generator)
            kept.append(x[((x > 0) & (x < levels)).flatten(1).all(1)])
            count += len(kept[-1])
    return torch.cat(kept)[:n] - 0.5


def observed(kind: float | str, x: Any, peak: float) -> tuple[Any, Any, Any]:
    """What is to be found [n, ...], what is seen of pictures, and its deviations."""
    import torch

    if isinstance(kind, str):
        where = hidden(kind, x)
        return where, x, torch.where(where, math.inf, 0.0)
    return torch.ones_like(x, dtype=torch.bool), noisy(x, kind * peak, 0), kind * peak


def sampled(flow: Any, y: Any, sigma: Any, settings: Row) -> tuple[Any, Row]:
    """Draws, and what they are worth."""
    import torch

    from diffeo.applications import posterior

    chosen = {k: settings[k] for k in ("chains", "draws", "warmup", "leapfrog")}
    clock = time.perf_counter()
    found = posterior(flow, y, sigma, generator=torch.Generator().manual_seed(0), **chosen)
    return found, {
        "seconds": time.perf_counter() - clock,
        "converged": found.converged.double().mean().item(),
        "rhat": found.rhat.quantile(torch.tensor([0.5, 0.9, 1.0]).to(found.rhat)).tolist(),
        "effective": found.effective.quantile(
            torch.tensor([0.5, 0.1, 0.0]).to(found.effective)
        ).tolist(),
        "accepted": found.accepted.mean().item(),
        "by_picture": {"rhat": found.rhat.tolist(), "effective": found.effective.tolist()},
    }


def simulated(flow: Any, data: Any, kind: float | str, settings: Row) -> tuple[Row, None]:
    """A row for pictures that the flow drew: intervals and ranks are then right if the draws are.

    Talts and others, Validating Bayesian inference algorithms with simulation-based calibration, 2018,
    arXiv:1804.06788; the ranks are those of the sum of what was to be found, one of each picture.
    """
    from scipy.stats import kstest

    truth = from_model(flow, settings["pictures"], data.levels)
    where, y, sigma = observed(kind, truth.round(), data.levels - 1.0)
    found, row = sampled(flow, y, sigma, settings)
    sums = (found.draws * where).flatten(3).sum(-1).flatten(0, 1)
    ranks = (sums < (truth * where).flatten(1).sum(1)).double().mean(0)
    told = {"ranks": ranks.tolist(), "uniform": float(kstest(ranks.numpy(), "uniform").pvalue)}
    deviation = 0.0 if isinstance(kind, str) else sigma
    row = {"kind": kind, "drawn": True, "sigma": deviation} | row | told
    return row | calibration(found, truth, where), None


def measured(flow: Any, data: Any, kind: float | str, settings: Row) -> tuple[Row, list[Any]]:
    """A row: a noise level or a mask; and the columns of its figure."""
    import torch

    from diffeo.applications import most_likely

    x = data.test[: settings["pictures"]].float()
    peak = data.levels - 1.0
    where, y, sigma = observed(kind, x, peak)
    estimates: dict[str, Any] = {}
    more: Row = {}
    if isinstance(kind, str):
        estimates["biharmonic"] = biharmonic(x, where, peak)
        estimates["mean of training pictures"] = data.train.float().mean(0).expand_as(x)
    else:
        valid = data.validation[:64].float()
        score = {
            w: psnr(variation(noisy(valid, sigma, 1), w, peak), valid, valid == valid, peak).mean()
            for w in WEIGHTS
        }
        more["weight"] = max(score, key=lambda w: score[w].item())
        estimates |= {"median": median(y), "total variation": variation(y, more["weight"], peak)}
        estimates["noisy"] = y
    clock = time.perf_counter()
    best = most_likely(flow, y, sigma, steps=settings["steps"])
    more["map_seconds"] = time.perf_counter() - clock
    found, told = sampled(flow, y, sigma, settings)
    estimates |= {"posterior mean": found.mean, "most likely": best}
    row = {
        "kind": kind,
        "drawn": False,
        "sigma": 0.0 if isinstance(kind, str) else sigma,
        "psnr": {k: mean_error(psnr(v, x, where, peak)) for k, v in estimates.items()},
    }
    gap = psnr(found.mean, x, where, peak) - psnr(
        estimates["biharmonic" if isinstance(kind, str) else "total variation"], x, where, peak
    )
    row["gain"] = mean_error(gap)
    seen = torch.where(where, peak / 2, x) if isinstance(kind, str) else y
    pasted = [torch.where(where, v, x) for v in (best, found.mean, *found.draws[:3, -1])]
    columns = [seen, *pasted, 2 * found.deviation * where, x]
    return row | told | more | calibration(found, in_bins(x), where), columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("run", nargs="?", default="digits-glow")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--leapfrog", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200, help="of Adam, for the most likely")
    parser.add_argument("--rows", nargs="+", help="some of them: 0.125 ... centre ... drawn-half")
    parser.add_argument("--as", dest="name", help="name in the results instead of the data's")
    arguments = vars(parser.parse_args())
    import torch

    from diffeo.report.pictures import Scaling, image_grid

    torch.set_num_threads(1)
    run, rows, name = (arguments.pop(k) for k in ("run", "rows", "name"))
    data_name, flow, data = opened(run)
    name = name or data_name
    settings = arguments | {"run": Path(run).name}
    todo: dict[str, tuple[Any, float | str]] = {str(k): (measured, k) for k in (*NOISES, *MASKS)}
    todo |= {f"drawn-{k}": (simulated, k) for k in SIMULATED}
    for key, (measure, kind) in todo.items():
        if rows and key not in rows:
            continue
        stored = read("restoring").get(name, {})
        if stored.get(key, {}).get("settings") == settings:
            continue
        row, columns = measure(flow, data, kind, settings)
        print(key, {k: v for k, v in row.items() if k != "by_picture"}, flush=True)
        if columns:
            sheet = torch.stack([c[:SHOWN] for c in columns], 1).flatten(0, 1)
            scaling = Scaling(0.0, data.levels - 1.0)
            word = key if isinstance(kind, str) else f"noise-{1000 * kind:.0f}"
            (IMAGES / f"restoring-{name}-{word}.png").write_bytes(
                image_grid(sheet, scaling, len(columns), cell=CELL)
            )
        found = stored | {key: row | {"settings": settings}}
        command = "python scripts/restoring.py"
        write("restoring", read("restoring") | provenance(command) | {name: found})


if __name__ == "__main__":
    main()
