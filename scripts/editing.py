"""What edits by latents do to pictures, measured: into results/editing.json and docs/images/editing-*.png.

    python scripts/editing.py [digits] [mnist]

Of the models that come with the package or stand in results/models. A support vector classifier, trained on real
training pictures, judges what pictures show; log p is that of whole pictures, in bits/dim, so lower is likelier.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from stored import IMAGES, MODELS, provenance, read, write

TEMPERATURES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FRACTIONS = (1.0, 0.75, 0.5, 0.25, 0.125, 0.0625)
STRENGTHS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
PAIRS, STEPS, SAMPLES = 200, 9, 512
DRAWS = 4


@dataclass(frozen=True)
class Subject:
    """A model and the pictures that it is tried on: the first so many of the training and of the test part."""

    model: str
    train: int
    test: int


SUBJECTS = {
    "digits": Subject("digits-glow", 1297, 360),
    "mnist": Subject(str(MODELS / "glow-mnist"), 10_000, 500),
}


@dataclass(frozen=True)
class Pictures:
    """Integers [n, C, H, W] below `levels`, and their classes."""

    train: Any
    train_labels: Any
    test: Any
    test_labels: Any
    levels: int


def bits(flow: Any, x: Any) -> Any:
    """Bits/dim of every picture, the mean over draws of the noise."""
    import torch

    with torch.no_grad():
        draws = [flow.bits_per_dim(x, batch_size=512) for _ in range(DRAWS)]
    return torch.stack(draws).mean(0)


def flat(x: Any) -> Any:
    return x.reshape(len(x), -1).double().numpy()


def classifier(data: Any) -> Any:
    """Trained on the training pictures; its accuracy on test pictures goes with every number."""
    from sklearn.svm import SVC

    return SVC(C=10, gamma="scale").fit(flat(data.train), data.train_labels.numpy())


def temperatures(flow: Any) -> list[dict[str, float]]:
    """Likelihood and spread of samples."""
    import torch

    from diffeo.report.drawing import sample

    rows = []
    for t in TEMPERATURES:
        x = sample(flow, SAMPLES, 0, t)
        # Samples at temperature zero are one picture.
        pairs = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
        distance = (x.double() - pairs.double()).flatten(1).norm(dim=1).mean()
        rows.append(
            {"temperature": t, "bits": bits(flow, x).mean().item(), "distance": distance.item()}
        )
    return rows


def paths(flow: Any, x: Any) -> dict[str, dict[str, Any]]:
    """Bits/dim between two test pictures: pixels blended, and both paths of the latents."""
    import torch

    from diffeo.applications import interpolate

    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    first, second = x[order[:PAIRS]], x[order.flip(0)[:PAIRS]]
    t = torch.linspace(0, 1, STEPS)[:, None, None, None]
    ways: dict[str, Any] = {
        "pixels": lambda a, b: ((1 - t) * a + t * b).round().to(x.dtype),
        "linear": lambda a, b: interpolate(flow, a, b, STEPS, path="linear"),
        "spherical": lambda a, b: interpolate(flow, a, b, STEPS),
    }
    out: dict[str, dict[str, Any]] = {}
    for name, way in ways.items():
        along = torch.cat([way(a, b) for a, b in zip(first, second, strict=True)])
        found = bits(flow, along).reshape(PAIRS, STEPS)
        inside = found[:, 1:-1].mean(1)
        error = inside.std() / PAIRS**0.5
        out[name] = {
            "along": found.mean(0).tolist(),
            "inside": inside.mean().item(),
            "error": error.item(),
        }
    return out


def attributes(flow: Any, data: Any, judge: Any) -> dict[str, list[dict[str, float]]]:
    """A class (zero against all others) and the thickness of strokes (sum of ink), moved by the same strengths."""
    import torch

    from diffeo.applications import attribute, shift

    x, labels, train = data.test, data.test_labels, data.train
    ink = flat(train).sum(1)
    low, high = torch.tensor(ink).quantile(torch.tensor([0.25, 0.75]).double()).tolist()
    found = {
        "zero": (
            train[data.train_labels == 0],
            train[data.train_labels != 0],
            x[labels != 0],
        ),
        "thickness": (train[ink >= high], train[ink <= low], x),
    }
    out: dict[str, list[dict[str, float]]] = {}
    for name, (having, lacking, moved) in found.items():
        same = labels[labels != 0] if name == "zero" else labels
        made = shift(flow, moved, attribute(flow, having, lacking), STRENGTHS)
        out[name] = []
        for k, strength in enumerate(STRENGTHS):
            seen = torch.as_tensor(judge.predict(flat(made[:, k])))
            row = {
                "strength": strength,
                "zero": (seen == 0).double().mean().item(),
                "class_kept": (seen == same).double().mean().item(),
                "ink": flat(made[:, k]).sum(1).mean().item() / (data.levels - 1),
                "bits": bits(flow, made[:, k]).mean().item(),
            }
            out[name].append(row)
    return out


def levels(flow: Any, data: Any, judge: Any) -> list[dict[str, float]]:
    """How often the class stays when a fraction of the latents does: the coarsest, and, beside it, the finest."""
    import torch

    from diffeo.applications.compression import keep, keep_first, latent_order

    x, labels = data.test, data.test_labels
    order = latent_order(flow)
    rows = []
    for fraction in FRACTIONS:
        row: dict[str, float] = {"fraction": fraction}
        for name, first in (("coarse", order), ("fine", order.flip(0))):
            generator = torch.Generator().manual_seed(0)
            made = keep(flow, x, keep_first(first, fraction), generator=generator)
            right = torch.as_tensor(judge.predict(flat(made))) == labels
            row[name] = right.double().mean().item()
            row[f"{name}_error"] = (right.double().std() / len(right) ** 0.5).item()
        rows.append(row)
    return rows


def draw(flow: Any, data: Any, name: str) -> None:
    """One picture for each edit."""
    import torch

    from diffeo.applications import attribute, interpolate, keep, manifold, shift
    from diffeo.report.drawing import sample
    from diffeo.report.pictures import Scaling, image_grid

    x, scaling = data.test, Scaling(0.0, data.levels - 1.0)
    generator = torch.Generator().manual_seed(1)
    direction = attribute(
        flow, data.train[data.train_labels == 0], data.train[data.train_labels != 0]
    )
    sheets = {
        "temperature": (torch.cat([sample(flow, 8, 3, t) for t in (0.5, 0.7, 1.0)]), 8),
        "path": (torch.cat([interpolate(flow, x[i], x[i + 1], STEPS) for i in (0, 4, 8)]), STEPS),
        "manifold": (manifold(flow, x[[1, 3, 5, 7]], 8).flatten(0, 1), 8),
        "attribute": (shift(flow, x[1:5], direction, STRENGTHS).flatten(0, 1), len(STRENGTHS)),
        "levels": (
            torch.cat([keep(flow, x[:9], f, generator=generator) for f in (1, 0.5, 0.25, 0.0625)]),
            9,
        ),
    }
    for kind, (pictures, columns) in sheets.items():
        content = image_grid(pictures, scaling, columns, cell=40)
        (IMAGES / f"editing-{name}-{kind}.png").write_bytes(content)


def measured(name: str) -> dict[str, Any]:
    """All numbers of a subject; draws its pictures."""
    import torch

    import diffeo

    torch.manual_seed(0)
    subject, data = SUBJECTS[name], diffeo.data.load(name)
    labels: Any = data.labels
    seen = Pictures(
        data.train[: subject.train],
        labels[0][: subject.train],
        data.test[: subject.test],
        labels[2][: subject.test],
        data.levels or 0,
    )
    flow = diffeo.load(subject.model)
    judge = classifier(seen)
    found = {
        "pictures": len(seen.test),
        "accuracy": judge.score(flat(seen.test), seen.test_labels.numpy()),
        "test_bits": bits(flow, seen.test).mean().item(),
        "temperatures": temperatures(flow),
        "paths": paths(flow, seen.test),
        "attributes": attributes(flow, seen, judge),
        "levels": levels(flow, seen, judge),
    }
    draw(flow, seen, name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("subjects", nargs="*", help=", ".join(SUBJECTS))
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    for name in arguments.subjects or SUBJECTS:
        found = {name: measured(name)}
        write("editing", read("editing") | provenance("python scripts/editing.py") | found)


if __name__ == "__main__":
    main()
