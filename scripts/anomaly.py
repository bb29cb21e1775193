"""How well statistics of a flow tell strange pictures: results/anomaly.json and docs/images/anomaly-*; resumable.

    python scripts/anomaly.py [RUN ...]             `digits-glow` (the shipped one) by default; others need DIFFEO_DATA
    python scripts/anomaly.py --omniglot FILE.npz   the drawings in three parts, to train a flow on

RUN: a run folder of a flow over pictures, of one or three channels. Ordinary pictures are the run's test data, the
reference its validation data; strange ones are all the sets below that are not the run's own, brought to its size,
channels and levels. A row, one set beside one run, that is stored is not repeated: --again does that.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from stored import IMAGES, provenance, read, write

MOST, EACH, SHOWN = 1000, 500, 10
DRAWS = 4
ALPHA = 0.05
BIN, BINS = 0.1, 160  # of the histograms, in bits/dim
# Drawn on black, so that a frame of black changes nothing.
FRAMED = ("mnist", "omniglot")


def data(name: str, file: str) -> Any:
    """Images [n, H, W, C] of DIFFEO_DATA."""
    import numpy as np

    return np.load(Path(os.environ["DIFFEO_DATA"]) / name / file)["images"]


@cache
def pictures(name: str) -> Any:
    """At most EACH pictures [n, H, W, C] of 256 levels, from fixed seeds."""
    import numpy as np

    random = np.random.RandomState(0)
    if name == "bsds300":
        return crops(random)
    files = {
        "mnist": "test.npz",
        "cifar10": "test.npz",
        "omniglot": "omniglot_small_28x28.npz",
        "orl_faces": "orl_faces_64x64.npz",
    }
    x = data(name, files[name])
    return x[np.sort(random.permutation(len(x))[:EACH])]


def crops(random: Any, side: int = 32) -> Any:
    """Five places of each test picture."""
    import numpy as np
    from PIL import Image

    folder = Path(os.environ["DIFFEO_DATA"]) / "bsds300" / "bsds300_test"
    found = []
    for path in sorted(folder.rglob("*.jpg")):
        picture = np.asarray(Image.open(path).convert("RGB"))
        for _ in range(EACH // 100):
            top, left = (random.randint(0, n - side + 1) for n in picture.shape[:2])
            found.append(picture[top : top + side, left : left + side])
    return np.stack(found)


def fitted(x: Any, shape: tuple[int, ...], levels: int, *, framed: bool) -> Any:
    """Pictures [n, H, W, C] of 256 levels as events: framed in black or resized, grey or colour, of fewer levels."""
    import numpy as np
    import torch
    from PIL import Image

    channels, height, width = shape
    made = []
    for picture in x:
        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        image = image.convert("L" if channels == 1 else "RGB")
        if framed and image.width <= width:
            frame = Image.new(image.mode, (width, height))
            frame.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
            image = frame
        elif image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BOX)
        array = np.asarray(image).reshape(height, width, channels).astype(int)
        made.append((array * levels // 256).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(made).astype("uint8"))


def blurred(x: Any) -> Any:
    """The mean of every pixel and its neighbours, three times."""
    import torch.nn.functional as F

    y = x.double()
    for _ in range(3):
        y = F.avg_pool2d(F.pad(y, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return y.round().to(x.dtype)


def strange(run: Any) -> dict[str, Callable[[], Any]]:
    """The strange sets of a run, by name."""
    import torch

    shape, levels = tuple(run.data.event_shape), run.data.levels

    def real(name: str) -> Any:
        return fitted(pictures(name), shape, levels, framed=name in FRAMED)

    def drawn(*size: int) -> Any:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, levels, (EACH, *size), generator=generator).to(torch.uint8)

    names = ("orl_faces", "mnist", "omniglot", "cifar10", "bsds300")
    sets: dict[str, Callable[[], Any]] = {}
    if "DIFFEO_DATA" in os.environ:
        sets = {n: (lambda n=n: real(n)) for n in names if not run.name.startswith(n)}
    blank = (shape[0], 1, 1)
    return sets | {
        "blurred": lambda: blurred(run.ordinary),
        "flat": lambda: drawn(*blank).expand(-1, *shape).contiguous(),
        "noise": lambda: drawn(*shape),
    }


class Run:
    """A flow with its reference and its ordinary pictures; what it says of them is computed when it is asked for."""

    def __init__(self, folder: str) -> None:
        from diffeo.pretrained import located
        from diffeo.training.run import open_run, read_data

        flow, chosen, results = open_run(located(folder))
        # Stored weights may be of half precision.
        self.flow = flow.float()
        self.data = read_data(chosen)
        self.name = self.data.name
        self.model = f"{chosen.model}, {self.flow.num_parameters:,} parameters"
        self.bits = results["rows"][0]["bits"]
        self.reference = some(self.data.validation, MOST)
        self.ordinary = some(self.data.test, MOST)

    def evidence(self, x: Any) -> Any:
        from diffeo.applications.anomaly import evidence

        return evidence(self.flow, x, draws=DRAWS)

    @property
    def known(self) -> Any:
        """Detectors by statistic, and the ordinary evidence."""
        from diffeo.applications.anomaly import STATISTICS, Detector

        if not hasattr(self, "_known"):
            reference = self.evidence(self.reference)
            detectors = {name: Detector(reference, name) for name in STATISTICS}
            self._known = detectors, self.evidence(self.ordinary)
        return self._known


def some(x: Any, most: int) -> Any:
    import torch

    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[:most].sort().values]


def measure(run: Run, x: Any = None) -> dict[str, Any]:
    """A row: of strange pictures, or (None) of the ordinary ones."""
    from diffeo.applications.anomaly import auroc

    detectors, ordinary = run.known
    found = ordinary if x is None else run.evidence(x)
    total = found.bits.sum(1)
    row: dict[str, Any] = {
        "pictures": len(found),
        "bits": total.mean().item(),
        "code": found.code.mean().item(),
        "histogram": (total / BIN).long().clamp(0, BINS - 1).bincount(minlength=BINS).tolist(),
        "flagged": {
            name: (d.p_value(found) <= ALPHA).double().mean().item()
            for name, d in detectors.items()
        },
    }
    if x is not None:
        row["auroc"] = {n: auroc(d.score(found), d.score(ordinary)) for n, d in detectors.items()}
    return row


def picture_sheet(run: Run, sets: dict[str, Callable[[], Any]]) -> None:
    """Some pictures of every set, a row each, the ordinary ones first."""
    import torch

    from diffeo.report.pictures import Scaling, image_grid

    rows = [run.ordinary, *(make() for make in sets.values())]
    sheet = torch.cat([some(x, SHOWN) for x in rows])
    content = image_grid(sheet, Scaling(0.0, run.data.levels - 1.0), SHOWN, cell=32)
    (IMAGES / f"anomaly-{run.name}.png").write_bytes(content)


def histograms(name: str, found: dict[str, Any]) -> None:
    """Raw likelihoods: the ordinary pictures and each strange set."""
    from diffeo.report import figures as paint

    others = [k for k in found["sets"] if k not in ("noise", "flat", "blurred")]
    shown = others or list(found["sets"])

    def painter(figure: Any) -> None:
        axes = figure.subplots(1, len(shown), sharex=True, squeeze=False)[0]
        counts = [found["ordinary"]["histogram"], *(found["sets"][k]["histogram"] for k in shown)]
        last = max(i for c in counts for i, n in enumerate(c) if n > 0.01 * sum(c)) + 2
        for ax, key in zip(axes, shown, strict=True):
            rows = ((name, found["ordinary"], paint.GREY), (key, found["sets"][key], paint.REAL))
            for label, row, color in rows:
                heights = [n / row["pictures"] for n in row["histogram"]]
                edges = [i * BIN for i in range(len(heights) + 1)]
                ax.stairs(heights, edges, fill=True, alpha=0.55, color=color, label=label)
            ax.set_xlim(0, last * BIN)
            ax.set_yticks([])
            ax.set_title(key)
            ax.set_xlabel("bits/dim")
        axes[0].set_ylabel(f"share; grey: {name}")

    (IMAGES / f"anomaly-{name}.svg").write_bytes(paint._render((1.9 * len(shown), 2.1), painter))


def add(folder: str, again: bool) -> None:
    """The rows of a run that are not stored yet, one after the other, and its figures."""
    run = Run(folder)
    document = read("anomaly")
    found = {} if again else document.get("runs", {}).get(run.name, {})
    facts = {"folder": folder, "model": run.model, "test_bits": run.bits}
    facts["reference"] = len(run.reference)
    if found.get("test_bits") != run.bits:
        found = {}
    sets = strange(run)

    def store() -> None:
        runs = read("anomaly").get("runs", {}) | {run.name: found}
        command = "python scripts/anomaly.py " + " ".join(r["folder"] for r in runs.values())
        write("anomaly", provenance(command) | {"alpha": ALPHA, "draws": DRAWS, "runs": runs})

    if "ordinary" not in found:
        found = facts | {"ordinary": measure(run), "sets": {}}
        store()
    for name, make in sets.items():
        if name not in found["sets"]:
            found["sets"][name] = measure(run, make())
            print(run.name, name, found["sets"][name]["auroc"], flush=True)
            store()
    histograms(run.name, found)
    picture_sheet(run, sets)


def omniglot(file: Path) -> None:
    """4,840 drawings of 28x28, in an order of a fixed seed: 3,840 to train, 500 for validation, 500 for test."""
    import numpy as np

    x = data("omniglot", "omniglot_small_28x28.npz")
    x = x[np.random.RandomState(0).permutation(len(x))]
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, train=x[:-1000], validation=x[-1000:-500], test=x[-500:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("runs", nargs="*", default=["digits-glow"])
    parser.add_argument("--again", action="store_true", help="measure what is stored, too")
    parser.add_argument("--omniglot", type=Path, metavar="FILE", help="write the drawings")
    arguments = parser.parse_args()
    if arguments.omniglot is not None:
        omniglot(arguments.omniglot)
        return
    import torch

    torch.set_num_threads(1)
    for folder in arguments.runs:
        add(folder, arguments.again)


if __name__ == "__main__":
    main()
