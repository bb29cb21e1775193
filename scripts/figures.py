"""Draw the figures of the tutorial into docs/images/ and store its numbers in results/tutorial.json.

    python scripts/figures.py                   all
    python scripts/figures.py maths             those that need no training, in seconds
    python scripts/figures.py depth moons digits    those that train, on one thread: a minute or two each

The documentation shows what is stored and trains nothing.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from stored import IMAGES, provenance, read, write
from torch import Tensor

import diffeo
from diffeo import families, nets, transforms
from diffeo.report import figures as paint
from diffeo.testing import randomize

SEED = 0


def draw(name: str, size: tuple[float, float], painter: Callable[[Any], None]) -> None:
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / f"{name}.svg").write_bytes(paint._render(size, painter))


def store(name: str, values: dict[str, Any]) -> None:
    document = read("tutorial")
    document[name] = values | {"seed": SEED} | provenance(f"python scripts/figures.py {name}")
    write("tutorial", dict(sorted(document.items())))


# -- without training -------------------------------------------------------------------------------------------------


def line() -> None:
    """z = log x: slices of equal probability, and the density that their widths imply."""
    x = torch.linspace(0.02, 6, 500)
    z = torch.linspace(-3.2, 3.2, 400)
    normal = torch.distributions.Normal(0.0, 1.0)
    edges = normal.icdf(torch.linspace(0, 1, 11)[1:-1])

    def painter(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        left.plot(z, normal.log_prob(z).exp(), color=paint.MODEL, linewidth=1.8)
        left.set_xlabel("z = log x")
        left.set_title("base density of z, N(0, 1)")
        log_p = normal.log_prob(x.log()) - x.log()
        right.plot(x, log_p.exp(), color=paint.REAL, linewidth=1.8)
        right.set_xlabel("x = exp z")
        right.set_title("density of x, which is N(log x; 0, 1) / x")
        for e in edges:
            left.plot([e, e], [0, normal.log_prob(e).exp()], color=paint.GREY, linewidth=0.8)
            height = (normal.log_prob(e) - e).exp()
            right.plot([e.exp()] * 2, [0, height], color=paint.GREY, linewidth=0.8)
        for ax in (left, right):
            ax.set_ylim(0, None)

    draw("tutorial-line", (8.0, 2.6), painter)


def outline(ax: Any, corners: Tensor, color: str) -> None:
    ax.fill(corners[:, 0], corners[:, 1], facecolor=color, alpha=0.25, edgecolor="none")
    closed = torch.cat((corners, corners[:1]))
    ax.plot(closed[:, 0], closed[:, 1], color=color, linewidth=1.4)


def volume() -> None:
    """The unit square, its image under a matrix, and under one with a negative determinant."""
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    panels = (
        ("the unit square, area 1", torch.eye(2)),
        ("A = (2 1; 0.5 1.5), det A = 2.5", torch.tensor([[2.0, 1.0], [0.5, 1.5]])),
        ("columns swapped, det = −2.5", torch.tensor([[1.0, 2.0], [1.5, 0.5]])),
    )

    def painter(figure: Any) -> None:
        for ax, (title, a) in zip(figure.subplots(1, 3), panels, strict=True):
            outline(ax, square @ a.T, paint.MODEL)
            for i, color in ((0, paint.REAL), (1, "#3f9c74")):
                x, y = a[:, i].tolist()
                arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 1.8}
                ax.annotate("", (x, y), (0, 0), arrowprops=arrow)
            ax.set_title(title)
            ax.set_xlim(-0.3, 3.3)
            ax.set_ylim(-0.3, 2.3)
            ax.set_aspect("equal")

    draw("tutorial-volume", (9.0, 2.5), painter)


def bend(x: Tensor) -> tuple[Tensor, Tensor]:
    """A map of the plane that is one coupling by hand, and its log|det|."""
    s = 0.6 * (1.2 * x[..., 0]).sin()
    return torch.stack((x[..., 0], x[..., 1] * s.exp() + 0.3 * x[..., 0].square()), -1), s


def cells() -> None:
    """The cells of a grid and their images, coloured by the Jacobian's determinant."""
    side = torch.linspace(-1.5, 1.5, 13)

    def painter(figure: Any) -> None:
        from matplotlib import colormaps

        axes = figure.subplots(1, 2)
        low, high = -0.6, 0.6
        for i in range(len(side) - 1):
            for j in range(len(side) - 1):
                a, b, c, d = side[i], side[i + 1], side[j], side[j + 1]
                t = torch.linspace(0, 1, 5)[:-1, None]
                corners = torch.tensor([[a, c], [b, c], [b, d], [a, d]])
                ends = corners.roll(-1, 0)
                path = torch.cat([p + t * (q - p) for p, q in zip(corners, ends, strict=True)])
                ladj = bend(corners.mean(0))[1]
                color = colormaps["coolwarm"](float((ladj - low) / (high - low)))
                for ax, points in zip(axes, (corners, bend(path)[0]), strict=True):
                    ax.fill(*points.T, facecolor=color, edgecolor="#222222", linewidth=0.3)
        x = torch.tensor([0.625, 0.625])
        h = 0.125
        corners = x + h * torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
        j = torch.autograd.functional.jacobian(lambda v: bend(v)[0], x)
        image = bend(x)[0] + (corners - x) @ j.T
        for ax, points in zip(axes, (corners, image), strict=True):
            closed = torch.cat((points, points[:1]))
            ax.plot(closed[:, 0], closed[:, 1], color="#111111", linewidth=2.2)
            ax.set_aspect("equal")
        axes[0].set_title("cells of equal area")
        axes[1].set_title("their images; red: stretched, blue: shrunk")

    draw("tutorial-cells", (8.0, 4.0), painter)


def stacked(depth: int, size: int = 8, seed: int = SEED) -> transforms.Chain:
    """Additive couplings over alternating halves, with random weights."""
    torch.manual_seed(seed)
    net = partial(nets.MLP, hidden=(16,), activation="tanh")
    parts = [
        partial(
            transforms.Coupling,
            family=families.Additive(),
            net=net,
            partition=partial(transforms.Halves, flip=i % 2 == 1),
        )
        for i in range(depth)
    ]
    return randomize(transforms.Chain((size,), parts), seed)


def sparsity() -> None:
    """Which output depends on which input after 1, 2 and 3 couplings."""

    def painter(figure: Any) -> None:
        for depth, ax in zip((1, 2, 3), figure.subplots(1, 3), strict=True):
            chain = stacked(depth)
            x = torch.randn(1, 8, generator=torch.Generator().manual_seed(SEED))
            j = torch.autograd.functional.jacobian(lambda v, f=chain: f(v)[0][0], x)[:, 0]
            n = j.shape[0]
            for row in range(n):
                for column in range(n):
                    if j[row, column] != 0:
                        color = paint.REAL if row == column else paint.MODEL
                        area = (
                            [column, column + 1, column + 1, column],
                            [row, row] + [row + 1] * 2,
                        )
                        ax.fill(*area, facecolor=color, alpha=0.85, edgecolor="none")
            for k in range(n + 1):
                ax.plot([0, n], [k, k], color=paint.HAIR, linewidth=0.6)
                ax.plot([k, k], [0, n], color=paint.HAIR, linewidth=0.6)
            ax.set_ylim(n, 0)
            ax.set_aspect("equal")
            ax.set_title(f"{depth} coupling{'s' if depth > 1 else ''}")
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_xlabel("input entry")
            if depth == 1:
                ax.set_ylabel("output entry")

    draw("tutorial-sparsity", (7.2, 2.7), painter)


def maths() -> None:
    line()
    volume()
    cells()
    sparsity()


# -- with training ----------------------------------------------------------------------------------------------------


def plane_flow(layers: int) -> diffeo.Flow:
    torch.manual_seed(SEED)
    return diffeo.zoo.build("realnvp", (2,), layers=layers, hidden=(32, 32))


def fitted(flow: diffeo.Flow, data: Any, **settings: Any) -> diffeo.training.Run:
    return diffeo.fit(flow, data, progress=False, seed=SEED, threads=1, **settings)


PLANE = {"batch_size": 512, "lr": 5e-3, "ema": 0.99}


@torch.no_grad()
def kl(flow: diffeo.Flow, data: Any) -> tuple[float, float]:
    """KL(true || model) in nats on the test points, with its standard error."""
    test = data.test
    gap = data.density.log_prob(test.double()) - flow.log_prob(test).double()
    return float(gap.mean()), float(gap.std() / math.sqrt(len(gap)))


def depth() -> None:
    """KL to moons against the number of couplings."""
    data = diffeo.data.load("moons")
    depths = (1, 2, 3, 4, 6, 8)
    steps = 400
    rows = []
    for n in depths:
        flow = plane_flow(n)
        fitted(flow, data, steps=steps, **PLANE)
        value, error = kl(flow, data)
        rows.append({"couplings": n, "kl": value, "kl_error": error})
    store("depth", {"rows": rows, "steps": steps})
    depth_curve(rows)


def depth_curve(rows: list[dict[str, Any]]) -> None:
    def painter(figure: Any) -> None:
        ax = figure.add_subplot()
        ax.grid(axis="y")
        depths, values = [r["couplings"] for r in rows], [r["kl"] for r in rows]
        ax.plot(depths, values, color=paint.MODEL, marker="o", ms=5, linewidth=1.8)
        ax.set_ylim(0, None)
        ax.set_xticks(depths)
        ax.set_xlabel("couplings")
        ax.set_ylabel("KL, nats")

    draw("tutorial-depth", (5.0, 2.6), painter)


BOX = (-1.6, 2.6, -1.1, 1.6)


@torch.no_grad()
def density_on(flow: Callable[[Tensor], Tensor], n: int = 140) -> Tensor:
    xs, ys = torch.linspace(*BOX[:2], n), torch.linspace(*BOX[2:], n)
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)
    return flow(grid.reshape(-1, 2)).exp().reshape(n, n)


def moons() -> None:
    """Real NVP on moons: the density at three times, and samples."""
    data = diffeo.data.load("moons")
    steps = 1500
    panels: list[tuple[str, Tensor]] = []
    for n in (0, 150):
        flow = plane_flow(8)
        if n:
            fitted(flow, data, steps=n, **PLANE)
        else:
            flow.initialize(data.train[:4096])
        panels.append((f"after {n} steps" if n else "before training", density_on(flow)))
    flow = plane_flow(8)
    run = fitted(flow, data, steps=steps, **PLANE)
    panels.append((f"after {steps} steps", density_on(flow)))
    value, error = kl(flow, data)
    nats = -flow.log_prob(data.test).detach()
    z = flow.encode(data.test).detach()
    back = flow.decode(z).detach()
    store(
        "moons",
        {
            "steps": int(run.metrics["steps"]),
            "parameters": flow.num_parameters,
            "nats": float(nats.mean()),
            "nats_error": float(nats.std() / math.sqrt(len(nats))),
            "kl": value,
            "kl_error": error,
            "round_trip": float((back - data.test).abs().max()),
        },
    )
    samples = flow.sample((3000,), generator=torch.Generator().manual_seed(SEED))

    def painter(figure: Any) -> None:
        axes = figure.subplots(1, 4)
        top = float(panels[-1][1].max())
        for ax, (title, values) in zip(axes, panels, strict=False):
            ax.imshow(values, extent=BOX, origin="lower", cmap="magma", vmax=top, vmin=0)
            ax.set_title(title)
        axes[3].scatter(
            samples[:, 0], samples[:, 1], s=2, color=paint.MODEL, linewidths=0, rasterized=True
        )
        axes[3].set_title("samples")
        for ax in axes:
            ax.set_xlim(*BOX[:2])
            ax.set_ylim(*BOX[2:])
            ax.set_aspect("equal")
            ax.set_xticks([])
            ax.set_yticks([])

    draw("tutorial-moons", (10.0, 2.0), painter)


@torch.no_grad()
def digits() -> None:
    """A two-level Real NVP on digits: samples, and pictures whose fine level is drawn anew."""
    data = diffeo.data.load("digits")
    torch.manual_seed(SEED)
    flow = diffeo.zoo.build("realnvp", (1, 8, 8), levels=17, alpha=0.01, **DIGITS)
    with torch.enable_grad():
        run = fitted(flow, data, steps=DIGITS_STEPS, lr=3e-3, ema=0.98)
    g = torch.Generator().manual_seed(SEED)
    bits = torch.stack([flow.bits_per_dim(data.test, generator=g) for _ in range(10)]).mean(0)
    store(
        "digits",
        {
            "steps": int(run.metrics["steps"]),
            "parameters": flow.num_parameters,
            "bits": float(bits.mean()),
            "bits_error": float(bits.std() / math.sqrt(len(bits))),
            "test": len(data.test),
        },
    )
    shown = data.test[:10]
    z = flow.encode(shown)
    fine = flow.levels[0].slice
    coarse = slice(flow.levels[1].slice.start, flow.levels[-1].slice.stop)
    noise = torch.randn(z.shape, generator=g)
    new_fine, new_coarse = z.clone(), z.clone()
    new_fine[:, fine] = noise[:, fine]
    new_coarse[:, coarse] = noise[:, coarse]
    rows = [
        ("data", shown),
        ("fine level drawn anew", flow.decode(new_fine)),
        ("coarse level drawn anew", flow.decode(new_coarse)),
        ("samples, T = 1", flow.sample((10,), generator=g)),
        ("samples, T = 0.7", flow.sample((10,), temperature=0.7, generator=g)),
    ]
    pictures(rows)


DIGITS: dict[str, Any] = {"width": 16, "dropout": 0.2}
DIGITS_STEPS = 500


def pictures(rows: Sequence[tuple[str, Tensor]]) -> None:
    def painter(figure: Any) -> None:
        axes = figure.subplots(len(rows), 1)
        for ax, (title, images) in zip(axes, rows, strict=True):
            strip = torch.full((8, 9 * len(images) - 1), math.nan)
            for i, image in enumerate(images):
                strip[:, 9 * i : 9 * i + 8] = image[0].float()
            ax.imshow(strip, cmap="gray", vmin=0, vmax=16, interpolation="nearest")
            ax.set_title(title, loc="left")
            ax.axis("off")

    draw("tutorial-digits", (6.4, 4.6), painter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    jobs = {"maths": maths, "depth": depth, "moons": moons, "digits": digits}
    parser.add_argument("figure", choices=list(jobs), nargs="*")
    torch.set_num_threads(1)
    for name in parser.parse_args().figure or jobs:
        torch.manual_seed(SEED)
        jobs[name]()


if __name__ == "__main__":
    main()
