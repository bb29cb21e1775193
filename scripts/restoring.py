"""Denoising and inpainting beside classical methods: results/restoring.json and docs/images/restoring-*.png; resumable.

    python scripts/restoring.py [RUN] [--pictures 24]          `digits-glow` (the shipped one) by default

RUN: a run folder of a flow over pictures; they are the first ones of its test data, and what is tuned is tuned on its
validation data. PSNR takes the range of the levels as the peak, and for inpainting the hidden pixels alone. A row that
is stored with the same settings is not repeated. Needs scikit-image.
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


def calibration(found: Any, x: Any, where: Any) -> Row:
    """How often the central intervals of the draws hold the truth, and whether deviations follow errors.

    The truth is an integer, and draws are real numbers: it gets the uniform noise of its bin.
    """
    import torch

    truth = x + torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) - 0.5
    edge = (1 - COVERED) / 2
    ends = torch.tensor([edge, 1 - edge])
    # Picture by picture: quantile refuses large tensors.
    low, high = torch.stack(
        [found.draws[:, :, i].flatten(0, 1).quantile(ends, dim=0) for i in range(len(x))], 1
    )
    inside = ((low <= truth) & (truth <= high) & where).flatten(1).sum(1) / where.flatten(1).sum(1)
    pairs = torch.stack((found.deviation[where], (found.mean - x).abs()[where]))
    return {"coverage": mean_error(inside), "correlation": torch.corrcoef(pairs)[0, 1].item()}


def measured(flow: Any, data: Any, kind: float | str, settings: Row) -> tuple[Row, list[Any]]:
    """A row: a noise level or a mask; and the columns of its figure."""
    import torch

    from diffeo.applications import most_likely, posterior

    x = data.test[: settings["pictures"]].float()
    peak = data.levels - 1.0
    estimates: dict[str, Any] = {}
    more: Row = {}
    if isinstance(kind, str):
        where, y, deviation = hidden(kind, x), x, 0.0
        sigma: Any = torch.where(where, math.inf, 0.0)
        estimates["biharmonic"] = biharmonic(x, where, peak)
        estimates["mean of training pictures"] = data.train.float().mean(0).expand_as(x)
    else:
        deviation = sigma = kind * peak
        where, y = torch.ones_like(x, dtype=torch.bool), noisy(x, sigma, 0)
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
    chosen = {k: settings[k] for k in ("chains", "draws", "warmup", "leapfrog")}
    clock = time.perf_counter()
    found = posterior(flow, y, sigma, generator=torch.Generator().manual_seed(0), **chosen)
    more["seconds"] = time.perf_counter() - clock
    estimates |= {"posterior mean": found.mean, "most likely": best}
    row = {
        "kind": kind,
        "sigma": deviation,
        "psnr": {k: mean_error(psnr(v, x, where, peak)) for k, v in estimates.items()},
        "converged": found.converged.double().mean().item(),
        "rhat": found.rhat.quantile(torch.tensor([0.5, 0.9, 1.0]).to(found.rhat)).tolist(),
        "effective": found.effective.quantile(
            torch.tensor([0.5, 0.1, 0.0]).to(found.effective)
        ).tolist(),
        "accepted": found.accepted.mean().item(),
        "by_picture": {"rhat": found.rhat.tolist(), "effective": found.effective.tolist()},
    }
    gap = psnr(found.mean, x, where, peak) - psnr(
        estimates["biharmonic" if isinstance(kind, str) else "total variation"], x, where, peak
    )
    row["gain"] = mean_error(gap)
    observed = torch.where(where, peak / 2, x) if isinstance(kind, str) else y
    pasted = [torch.where(where, v, x) for v in (best, found.mean, *found.draws[:3, -1])]
    columns = [observed, *pasted, 2 * found.deviation, x]
    return row | more | calibration(found, x, where), columns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("run", nargs="?", default="digits-glow")
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=160)
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--leapfrog", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200, help="of Adam, for the most likely")
    parser.add_argument("--rows", nargs="+", help="some of them: 0.125 ... centre ...")
    parser.add_argument("--as", dest="name", help="name in the results instead of the data's")
    arguments = vars(parser.parse_args())
    import torch

    from diffeo.report.pictures import Scaling, image_grid

    torch.set_num_threads(1)
    run, rows, name = (arguments.pop(k) for k in ("run", "rows", "name"))
    data_name, flow, data = opened(run)
    name = name or data_name
    settings = arguments | {"run": Path(run).name}
    for kind in (*NOISES, *MASKS):
        key = str(kind)
        if rows and key not in rows:
            continue
        stored = read("restoring").get(name, {})
        if stored.get(key, {}).get("settings") == settings:
            continue
        row, columns = measured(flow, data, kind, settings)
        print(key, {k: v for k, v in row.items() if k != "by_picture"}, flush=True)
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
