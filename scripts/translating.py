"""Colorization and super-resolution by flows given a picture, into results/translating.json and docs/images/.

    python scripts/translating.py [colours faces crops] [--runs FOLDER] [--steps N]

Of the models in results/models. With --runs FOLDER each trains its recipe (11 minutes on one core) and a twin that is
given nothing, with as many steps; runs that are there are not repeated, and one that was stopped goes on. Needs
DIFFEO_DATA. Errors are standard errors over test
pictures: over people for the faces, and over photographs, of each of which one crop is used.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stored import IMAGES, MODELS, ROOT, provenance, read, write

TASKS = {
    "colours": "glow-cifar10-grey-small",
    "faces": "glow-orl_faces-quarter-small",
    "crops": "glow-bsds300_crops-quarter-small",
}
PICTURES, SAMPLES, DRAWS, SHOWN = 200, 16, 4, 6
TEMPERATURES = (0.0, 0.7, 1.0)
MIDDLE = 17  # of the 35 crops of a photograph


@dataclass(frozen=True)
class Chosen:
    """Test pictures [n, C, H, W], what is given of them, and groups [n] that are drawn independently."""

    x: Any
    context: Any
    groups: Any
    levels: int


def trained(name: str, recipe: str, folder: Path | None, settings: list[str]) -> Path:
    """The stored run, or in a folder that of a recipe with these settings, trained, resumed or there already."""
    run = (MODELS if folder is None else folder) / f"translating-{name}"
    if folder is None:
        return run
    command = [sys.executable, "-m", "diffeo", "train", str(ROOT / "recipes" / f"{recipe}.yaml")]
    subprocess.run([*command, *settings, "--out", str(run), "--resume", "--quiet"], check=True)
    return run


def steps_of(run: Path) -> int:
    return int(json.loads((run / "results.json").read_text())["metrics"]["steps"])


def choose(task: str, data: Any) -> Chosen:
    import torch

    x, labels = data.test, data.labels[2]
    if task == "crops":
        x = x[MIDDLE :: len(x) // len(labels.unique())]
    groups = labels if task == "faces" else torch.arange(len(x))
    x, groups = x[:PICTURES], groups[:PICTURES]
    return Chosen(x, data.context(x), groups, data.levels)


def summary(values: Any, groups: Any) -> dict[str, float]:
    """The mean over groups, and its standard error."""
    import torch

    values = values.double()
    means = torch.stack([values[groups[: len(values)] == g].mean() for g in groups.unique()])
    return {"mean": means.mean().item(), "error": (means.std() / math.sqrt(len(means))).item()}


def bits(flow: Any, x: Any, context: Any = None) -> Any:
    """Bits/dim of every picture, the mean over draws of the noise, the same draws for every model."""
    import torch

    with torch.no_grad():
        draws = [
            flow.bits_per_dim(
                x, context, batch_size=100, generator=torch.Generator().manual_seed(k)
            )
            for k in range(DRAWS)
        ]
    return torch.stack(draws).double().mean(0)


def likelihood(flow: Any, twin: Any, test: Chosen) -> dict[str, Any]:
    """Of the truth: given what is given of it, of another picture, and nothing (the twin)."""
    own = bits(flow, test.x, test.context)
    other = bits(flow, test.x, test.context.roll(len(test.x) // 2, 0))
    alone = bits(twin, test.x)
    found = {"given": own, "shuffled": other, "twin": alone}
    found |= {"shuffled_gap": other - own, "twin_gap": alone - own}
    return {k: summary(v, test.groups) for k, v in found.items()}


def psnr(made: Any, truth: Any, levels: int) -> Any:
    """10 log10(peak^2 / mean squared error), in dB, over the last three axes."""
    square = (made.double() - truth.double()).square().mean((-3, -2, -1))
    # An exact copy of 8-bit values would be infinite: a tenth of a level off everywhere is 68 dB.
    return 10 * ((levels - 1) ** 2 / square.clamp(min=0.01)).log10()


def baselines(task: str, data: Any, test: Chosen) -> dict[str, Any]:
    """What needs no flow: pictures [n, C, H, W] by name."""
    import torch.nn.functional as F

    c, size = test.context.double(), test.x.shape[-2:]
    top = data.levels - 1
    if task == "colours":
        train = data.train.double()
        shift = (train - data.context(data.train).double()).mean((0, 2, 3), keepdim=True)
        return {
            "grey, repeated": c.expand_as(test.x),
            "grey and the mean colour": (c + shift).round().clamp(0, top),
        }
    made = {
        "nearest": F.interpolate(c, size, mode="nearest"),
        "bicubic": F.interpolate(c, size, mode="bicubic", align_corners=False),
    }
    return {k: v.round().clamp(0, top) for k, v in made.items()}


def samples(flow: Any, data: Any, test: Chosen) -> dict[str, Any]:
    """PSNR, diversity and consistency of samples, by temperature; and of the mean of the samples."""
    import torch

    out: dict[str, Any] = {}
    for t in TEMPERATURES:
        generator = torch.Generator().manual_seed(0)
        n = SAMPLES if t else 1
        y = torch.cat(
            [
                flow.sample(n, c, t, generator=generator, batch_size=100)
                for c in test.context.split(20)
            ],
            1,
        )
        pairs = (y.double() - y.roll(1, 0).double()).square().mean((2, 3, 4)).sqrt().mean(0)
        found = {
            "mean": psnr(y.double().mean(0), test.x, test.levels),
            "sample": psnr(y, test.x, test.levels).mean(0),
            "distance": pairs * 255 / (test.levels - 1),
            "consistency": psnr(data.context(y), test.context, test.levels).mean(0),
        }
        out[f"{t:g}"] = {k: summary(v, test.groups) for k, v in found.items()}
    return out


def draw(task: str, flow: Any, test: Chosen) -> None:
    """For each of some pictures: given, truth, four samples at temperature 0.7, the mean of 16 at 1."""
    import torch
    import torch.nn.functional as F

    from diffeo.report.pictures import Scaling, image_grid

    at = torch.linspace(0, len(test.x) - 1, SHOWN).long()
    x, context = test.x[at], test.context[at]
    generator = torch.Generator().manual_seed(1)
    four = flow.sample(4, context, 0.7, generator=generator)
    mean = flow.sample(SAMPLES, context, generator=generator, batch_size=100).double().mean(0)
    given = F.interpolate(context.double(), x.shape[-2:]).expand_as(x)
    columns = torch.stack([given, x.double(), *four.double(), mean], 1)
    sheet = image_grid(columns.flatten(0, 1), Scaling(0.0, test.levels - 1.0), 7, cell=96)
    (IMAGES / f"translating-{task}.png").write_bytes(sheet)


def measure(task: str, run: Path, alone: Path) -> dict[str, Any]:
    import torch

    import diffeo
    from diffeo.training.run import open_run, read_data

    flow, chosen, results = open_run(run)
    twin = diffeo.load(alone)
    data = read_data(chosen)
    test = choose(task, data)
    torch.manual_seed(0)
    found = {
        "recipe": TASKS[task],
        "pictures": len(test.x),
        "groups": len(test.groups.unique()),
        "levels": data.levels,
        "parameters": flow.num_parameters,
        "twin_parameters": twin.num_parameters,
        "steps": steps_of(run),
        "twin_steps": steps_of(alone),
        "seconds": results["metrics"]["seconds"],
        "likelihood": likelihood(flow, twin, test),
        "baselines": {
            k: summary(psnr(v, test.x, test.levels), test.groups)
            for k, v in baselines(task, data, test).items()
        },
        "samples": samples(flow, data, test),
    }
    draw(task, flow, test)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("tasks", nargs="*", default=list(TASKS), metavar="TASK")
    parser.add_argument("--runs", type=Path, help="train here; without it, the stored models")
    parser.add_argument("--steps", type=int, help="fewer, to try the script")
    arguments = parser.parse_args()
    if unknown := set(arguments.tasks) - set(TASKS):
        parser.error(f"there is no task {unknown.pop()!r}, only {', '.join(TASKS)}")
    import torch

    torch.set_num_threads(1)
    for task in arguments.tasks:
        short = ["training.minutes=null", f"training.steps={arguments.steps}"]
        run = trained(task, TASKS[task], arguments.runs, short if arguments.steps else [])
        same = ["data.given=null", "training.minutes=null", f"training.steps={steps_of(run)}"]
        alone = trained(f"{task}-alone", TASKS[task], arguments.runs, same)
        found = {task: measure(task, run, alone)}
        facts = provenance("python scripts/translating.py")
        write("translating", facts | read_others(task) | found)


def read_others(task: str) -> dict[str, Any]:
    return {k: v for k, v in read("translating").items() if k in TASKS and k != task}


if __name__ == "__main__":
    main()
