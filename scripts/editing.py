"""What edits by latents do to pictures, measured: into results/editing.json and docs/images/editing-*.png.

    python scripts/editing.py [digits] [mnist] [faces]

Of the models that come with the package or stand in results/models. A support vector classifier, trained on real
training pictures, judges what pictures show; log p is that of whole pictures, in bits/dim, so lower is likelier.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stored import IMAGES, MODELS, provenance, read, write

TEMPERATURES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FRACTIONS = (1.0, 0.75, 0.5, 0.25, 0.125, 0.0625)
STRENGTHS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
PAIRS, STEPS = 200, 9
DRAWS = 4


# People of the ORL faces who wear glasses in all ten pictures, and in none (seen by eye; the other six do in some).
GLASSES = (1, 5, 13, 16, 26, 27, 30, 33, 36)
NO_GLASSES = (0, 2, 4, *range(7, 12), 14, 15, 17, *range(20, 26), 28, 29, 31, 32, 34, 37, 38, 39)


@dataclass(frozen=True)
class Subject:
    """A model and the pictures that it is tried on.

    train, test: the first so many of these parts. taught: of every class of the test part, so many pictures that teach
    the classifier and are not tried on, where the parts have other classes. having, lacking: the classes with the
    attribute that is moved, and those without. samples: at every temperature.
    """

    model: str
    data: str
    train: int
    test: int
    bits: int | None = None
    taught: int = 0
    having: tuple[int, ...] = (0,)
    lacking: tuple[int, ...] = tuple(range(1, 10))
    samples: int = 512


SUBJECTS = {
    "digits": Subject("digits-glow", "digits", 1297, 360),
    "mnist": Subject(str(MODELS / "glow-mnist"), "mnist", 10_000, 500),
    "faces": Subject(
        str(MODELS / "glow-faces"),
        "orl_faces",
        300,
        60,
        bits=5,
        taught=5,
        having=GLASSES,
        lacking=NO_GLASSES,
        samples=96,
    ),
}


@dataclass(frozen=True)
class Pictures:
    """Integers [n, C, H, W] below `levels` and their classes; `taught`: of those that teach the classifier."""

    train: Any
    train_labels: Any
    test: Any
    test_labels: Any
    taught: Any
    taught_labels: Any
    levels: int

    @classmethod
    def of(cls, subject: Subject) -> Pictures:
        import torch

        import diffeo

        data = diffeo.data.load(subject.data, bits=subject.bits)
        labels: Any = data.labels
        train, train_labels = data.train[: subject.train], labels[0][: subject.train]
        test, test_labels = data.test[: subject.test], labels[2][: subject.test]
        classes = test_labels.unique()
        teaching = torch.zeros(len(test), dtype=torch.bool)
        for c in classes:
            teaching[(test_labels == c).nonzero()[: subject.taught, 0]] = True
        return cls(
            train,
            train_labels,
            test[~teaching],
            test_labels[~teaching],
            torch.cat((train, test[teaching])),
            torch.cat((train_labels, test_labels[teaching])),
            data.levels or 0,
        )


def bits(flow: Any, x: Any) -> Any:
    """Bits/dim of every picture, the mean over draws of the noise."""
    import torch

    with torch.no_grad():
        draws = [flow.bits_per_dim(x, batch_size=512) for _ in range(DRAWS)]
    return torch.stack(draws).mean(0)


def flat(x: Any) -> Any:
    return x.reshape(len(x), -1).double().numpy()


def classifier(data: Any) -> Any:
    """Trained on pictures that are not tried on; its accuracy on test pictures goes with every number."""
    from sklearn.svm import SVC

    return SVC(C=10, gamma="scale").fit(flat(data.taught), data.taught_labels.numpy())


def temperatures(flow: Any, samples: int) -> list[dict[str, float]]:
    """Likelihood and spread of samples."""
    import torch

    from diffeo.report.drawing import sample

    rows = []
    for t in TEMPERATURES:
        x = sample(flow, samples, 0, t)
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
    pairs = min(PAIRS, len(x) // 2)
    first, second = x[order[:pairs]], x[order.flip(0)[:pairs]]
    t = torch.linspace(0, 1, STEPS)[:, None, None, None]
    ways: dict[str, Any] = {
        "pixels": lambda a, b: ((1 - t) * a + t * b).round().to(x.dtype),
        "linear": lambda a, b: interpolate(flow, a, b, STEPS, path="linear"),
        "spherical": lambda a, b: interpolate(flow, a, b, STEPS),
    }
    out: dict[str, dict[str, Any]] = {}
    for name, way in ways.items():
        along = torch.cat([way(a, b) for a, b in zip(first, second, strict=True)])
        found = bits(flow, along).reshape(pairs, STEPS)
        inside = found[:, 1:-1].mean(1)
        error = inside.std() / pairs**0.5
        out[name] = {
            "along": found.mean(0).tolist(),
            "inside": inside.mean().item(),
            "error": error.item(),
        }
    return out


def among(labels: Any, classes: Sequence[int]) -> Any:
    import torch

    return torch.isin(labels, torch.tensor(classes))


def attribute_judge(data: Pictures, subject: Subject) -> Any:
    """A classifier of having the attribute, or lacking it."""
    from sklearn.svm import SVC

    has, lacks = (among(data.taught_labels, c) for c in (subject.having, subject.lacking))
    known = has | lacks
    return SVC(C=10, class_weight="balanced").fit(flat(data.taught[known]), has[known].numpy())


def attribute_accuracy(data: Pictures, subject: Subject) -> float:
    """On the pictures that are tried on."""
    has, lacks = (among(data.test_labels, c) for c in (subject.having, subject.lacking))
    known = has | lacks
    judge = attribute_judge(data, subject)
    return float(judge.score(flat(data.test[known]), has[known].numpy()))


def attributes(
    flow: Any, data: Pictures, judge: Any, subject: Subject
) -> dict[str, list[dict[str, float]]]:
    """An attribute of labels, and the sum of the pixels (quarter with most, with least), by the same strengths."""
    import torch

    from diffeo.applications import attribute, shift

    x, labels, train = data.test, data.test_labels, data.train
    ink = flat(train).sum(1)
    low, high = torch.tensor(ink).quantile(torch.tensor([0.25, 0.75]).double()).tolist()
    has, lacks = (among(data.train_labels, c) for c in (subject.having, subject.lacking))
    without = among(labels, subject.lacking)
    second = attribute_judge(data, subject)
    found = {
        "class": (train[has], train[lacks], x[without], labels[without]),
        "ink": (train[ink >= high], train[ink <= low], x, labels),
    }
    out: dict[str, list[dict[str, float]]] = {}
    for name, (having, lacking, moved, same) in found.items():
        made = shift(flow, moved, attribute(flow, having, lacking), STRENGTHS)
        out[name] = []
        for k, strength in enumerate(STRENGTHS):
            seen = torch.as_tensor(judge.predict(flat(made[:, k])))
            row = {
                "strength": strength,
                "class": second.predict(flat(made[:, k])).mean().item(),
                "class_kept": (seen == same).double().mean().item(),
                "ink": flat(made[:, k]).sum(1).mean().item() / (data.levels - 1),
                "bits": bits(flow, made[:, k]).mean().item(),
            }
            out[name].append(row)
    return out


def levels(flow: Any, data: Pictures, judge: Any) -> list[dict[str, float]]:
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


def draw(flow: Any, data: Pictures, subject: Subject, name: str) -> None:
    """One picture for each edit."""
    import torch

    from diffeo.applications import attribute, interpolate, keep, manifold, shift
    from diffeo.report.drawing import sample
    from diffeo.report.pictures import Scaling, image_grid

    x, scaling = data.test, Scaling(0.0, data.levels - 1.0)
    generator = torch.Generator().manual_seed(1)
    has, lacks = (among(data.train_labels, c) for c in (subject.having, subject.lacking))
    direction = attribute(flow, data.train[has], data.train[lacks])
    without = x[among(data.test_labels, subject.lacking)]
    sheets = {
        "temperature": (torch.cat([sample(flow, 8, 3, t) for t in (0.5, 0.7, 1.0)]), 8),
        "path": (torch.cat([interpolate(flow, x[i], x[i + 7], STEPS) for i in (0, 4, 8)]), STEPS),
        "manifold": (manifold(flow, x[[1, 7, 13, 19]], 8).flatten(0, 1), 8),
        "attribute": (
            shift(flow, without[1::5][:4], direction, STRENGTHS).flatten(0, 1),
            len(STRENGTHS),
        ),
        "levels": (
            torch.cat(
                [keep(flow, x[::3][:9], f, generator=generator) for f in (1, 0.5, 0.25, 0.0625)]
            ),
            9,
        ),
    }
    for kind, (pictures, columns) in sheets.items():
        content = image_grid(pictures, scaling, columns, cell=max(40, pictures.shape[-1]))
        (IMAGES / f"editing-{name}-{kind}.png").write_bytes(content)


def measured(name: str) -> dict[str, Any]:
    """All numbers of a subject; draws its pictures."""
    import torch

    import diffeo

    torch.manual_seed(0)
    subject = SUBJECTS[name]
    data, flow = Pictures.of(subject), diffeo.load(subject.model)
    judge = classifier(data)
    found = {
        "pictures": len(data.test),
        "accuracy": judge.score(flat(data.test), data.test_labels.numpy()),
        "attribute_accuracy": attribute_accuracy(data, subject),
        "test_bits": bits(flow, data.test).mean().item(),
        "temperatures": temperatures(flow, subject.samples),
        "paths": paths(flow, data.test),
        "attributes": attributes(flow, data, judge, subject),
        "levels": levels(flow, data, judge),
    }
    draw(flow, data, subject, name)
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
