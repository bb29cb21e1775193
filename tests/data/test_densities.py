"""Each density integrates to 1, agrees with brute force, and is what its sampler draws from."""

from __future__ import annotations

import dataclasses
import functools
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from diffeo.data import density, density_names
from diffeo.errors import DataError, InputError

NAMES = density_names()
CELLS, ORDER = 40, 5  # a cell of the checkerboard grid never crosses an edge of a square


@functools.cache
def mass_and_entropy(name: str) -> tuple[np.ndarray[Any, Any], float]:
    """Probability of each of 40 x 40 cells over the extent, and the entropy, by Gauss-Legendre."""
    d = density(name)
    nodes, weights = np.polynomial.legendre.leggauss(ORDER)
    half = d.extent / CELLS
    centers = -d.extent + half * (2 * np.arange(CELLS) + 1)
    axis = torch.from_numpy((centers[:, None] + half * nodes).ravel())
    log_p = d.log_prob(torch.cartesian_prod(axis, axis)).numpy()
    weight = np.tile(weights * half, CELLS)
    mass = np.exp(log_p) * np.outer(weight, weight).ravel()
    entropy = -float(np.sum(mass * np.where(mass > 0, log_p, 0.0)))
    cells = mass.reshape(CELLS, ORDER, CELLS, ORDER).sum((1, 3))
    return cells, entropy


def test_names() -> None:
    assert NAMES == (
        "moons",
        "circles",
        "rings",
        "8gaussians",
        "checkerboard",
        "spirals",
        "pinwheel",
        "swissroll",
    )


@pytest.mark.parametrize("name", NAMES)
def test_integrates_to_one(name: str) -> None:
    assert mass_and_entropy(name)[0].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_samples_match_density(name: str) -> None:
    """Chi-square over the cells that expect 10 points or more, the rest as one; p > 1e-3."""
    d, n = density(name), 50_000
    x = d.sample(n, generator=torch.Generator().manual_seed(1)).double().numpy()
    edges = np.linspace(-d.extent, d.extent, CELLS + 1)
    counts = np.histogram2d(x[:, 0], x[:, 1], bins=(edges, edges))[0]
    expected = n * mass_and_entropy(name)[0]
    large = expected >= 10
    observed_all = np.append(counts[large], n - counts[large].sum())
    expected_all = np.append(expected[large], n - expected[large].sum())
    if expected_all[-1] < 10:  # too few for the chi-square law: into the last cell
        observed_all[-2] += observed_all[-1]
        expected_all[-2] += expected_all[-1]
        observed_all, expected_all = observed_all[:-1], expected_all[:-1]
    assert stats.chisquare(observed_all, expected_all).pvalue > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_entropy_is_mean_of_minus_log_prob(name: str) -> None:
    """Within 4 standard errors."""
    score = -density(name).log_prob(
        density(name).sample(10_000, generator=torch.Generator().manual_seed(2))
    )
    error = score.std().item() / 100
    assert score.mean().item() == pytest.approx(mass_and_entropy(name)[1], abs=4 * error + 1e-5)


def test_entropy_of_checkerboard() -> None:
    assert mass_and_entropy("checkerboard")[1] == pytest.approx(math.log(32), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_extent_holds_the_samples(name: str) -> None:
    x = density(name).sample(100_000, generator=torch.Generator().manual_seed(3))
    assert x.abs().max().item() <= density(name).extent


# (name, s -> points of each arm [n, arms, 2], density of s) written out again, in numpy.
CURVES: dict[str, Any] = {
    "moons": (
        lambda s: [
            (np.cos(np.pi * s), np.sin(np.pi * s)),
            (1 - np.cos(np.pi * s), 0.5 - np.sin(np.pi * s)),
        ],
        lambda s: np.ones_like(s),
    ),
    # u = s^2, a = 3 pi s: the square root would spoil the Simpson rule at 0.
    "spirals": (
        lambda s: [
            (sign * 3 * s * np.cos(3 * np.pi * s), sign * 3 * s * np.sin(3 * np.pi * s))
            for sign in (1, -1)
        ],
        lambda s: 2 * s,
    ),
    "swissroll": (
        lambda s: [
            (
                1.5 * np.pi * (1 + 2 * s) * np.cos(1.5 * np.pi * (1 + 2 * s)) / 5,
                1.5 * np.pi * (1 + 2 * s) * np.sin(1.5 * np.pi * (1 + 2 * s)) / 5,
            )
        ],
        lambda s: np.ones_like(s),
    ),
}


def edge_and_inner_points(name: str, n: int = 40) -> torch.Tensor:
    """Points all over the square, its corners, and samples."""
    d, generator = density(name), torch.Generator().manual_seed(4)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 2)
    spread = 2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1
    samples = d.sample(n, generator=generator, dtype=torch.float64)
    return torch.cat((d.extent * corners, d.extent * spread, samples))


@pytest.mark.parametrize("name", CURVES)
def test_curve_quadrature_against_simpson(name: str) -> None:
    """To 1e-6 everywhere in the square, against 40001 Simpson nodes on formulas of its own."""
    curve, weight = CURVES[name]
    s = np.linspace(0, 1, 40_001)
    arms = curve(s)
    x = edge_and_inner_points(name)
    expected = []
    for px, py in x.numpy():
        exponent = np.stack([-((px - cx) ** 2 + (py - cy) ** 2) / (2 * 0.1**2) for cx, cy in arms])
        top = exponent.max()
        total = integrate.simpson(np.exp(exponent - top).mean(0) * weight(s), x=s)
        expected.append(top + math.log(total) - math.log(2 * math.pi * 0.1**2))
    difference = density(name).log_prob(x).numpy() - np.array(expected)
    assert np.abs(difference).max() < 1e-6


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize(("scale", "tolerance"), [(1, 1e-6), (3, 1e-3)])
def test_curve_quadrature_against_finer(name: str, scale: float, tolerance: float) -> None:
    d = density(name)
    fine = dataclasses.replace(d, panels=100, halvings=6, order=24)  # type: ignore[call-arg]
    axis = scale * torch.linspace(-d.extent, d.extent, 15, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    torch.testing.assert_close(d.log_prob(x), fine.log_prob(x), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "radii", "noise"), [("circles", (1, 0.5), 0.08), ("rings", (1, 2, 3, 4), 0.1)]
)
def test_bessel_form_against_trapezoid(name: str, radii: Any, noise: float) -> None:
    """The average over the angle of a smooth periodic function: the trapezoid rule is exact."""
    x = edge_and_inner_points(name)
    angle = torch.arange(4096, dtype=torch.float64) * (2 * math.pi / 4096)
    circle = torch.stack((angle.cos(), angle.sin()), -1)
    centers = torch.cat([r * circle for r in radii])
    square = (x[:, None] - centers).square().sum(-1)
    expected = (-square / (2 * noise**2)).logsumexp(-1) - math.log(
        len(centers) * 2 * math.pi * noise**2
    )
    torch.testing.assert_close(density(name).log_prob(x), expected, rtol=0, atol=1e-9)


def test_gaussians_against_scipy() -> None:
    x = edge_and_inner_points("8gaussians")
    p = sum(
        stats.multivariate_normal(
            [2 * math.cos(k * math.pi / 4), 2 * math.sin(k * math.pi / 4)], 0.04
        ).pdf(x.numpy())
        for k in range(8)
    )
    log_p = density("8gaussians").log_prob(x)
    torch.testing.assert_close(log_p, torch.from_numpy(np.log(p / 8)), rtol=0, atol=1e-9)


def test_pinwheel_against_autograd_change_of_variables() -> None:
    """log p(x) from the inverse warp of each arm with its Jacobian determinant by autograd."""
    x = edge_and_inner_points("pinwheel")
    base = torch.distributions.Normal(
        torch.tensor([1.0, 0.0]).double(), torch.tensor([0.3, 0.1], dtype=torch.float64)
    )

    def unwarp(point: torch.Tensor, k: int) -> torch.Tensor:
        turn = 2 * math.pi * k / 5 + 0.25 * point.square().sum().sqrt().exp()
        c, s = torch.cos(-turn), torch.sin(-turn)
        return torch.stack((c * point[0] - s * point[1], s * point[0] + c * point[1]))

    for point, log_p in zip(x, density("pinwheel").log_prob(x), strict=True):
        if not point.any():
            continue  # the distance has no derivative at 0
        terms = [
            base.log_prob(unwarp(point, k)).sum()
            + torch.autograd.functional.jacobian(lambda p, k=k: unwarp(p, k), point)
            .det()
            .abs()
            .log()
            for k in range(5)
        ]
        expected = torch.stack(terms).logsumexp(0) - math.log(5)
        torch.testing.assert_close(log_p, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_checkerboard_support(dtype: torch.dtype) -> None:
    d = density("checkerboard")
    x = d.sample(200_000, generator=torch.Generator().manual_seed(5), dtype=dtype)
    assert (d.log_prob(x) == torch.tensor(-math.log(32), dtype=dtype)).all()
    outside = torch.tensor([[-1.0, 1.0], [4.0, 1.0], [-4.1, 1.0], [math.inf, 0.0]], dtype=dtype)
    assert (d.log_prob(outside) == -math.inf).all()
    assert d.log_prob(torch.full((1, 2), math.nan, dtype=dtype)).isnan().all()


@pytest.mark.parametrize("name", NAMES)
def test_generator_reproduces(name: str) -> None:
    d = density(name)
    first, again, other = (
        d.sample(50, generator=torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(name: str, dtype: torch.dtype) -> None:
    d = density(name)
    for n in (0, 1, 5):
        x = d.sample(n, dtype=dtype)
        assert x.shape == (n, 2)
        assert x.dtype == dtype
        assert d.log_prob(x).shape == (n,)
        assert d.log_prob(x).dtype == dtype
    assert d.log_prob(torch.zeros(3, 4, 2, dtype=dtype)).shape == (3, 4)
    assert d.sample(1).dtype == torch.get_default_dtype()


@pytest.mark.parametrize("name", NAMES)
def test_chunks_do_not_change_the_score(name: str) -> None:
    x = density(name).sample(20_000 if name not in CURVES else 300)
    score = density(name).log_prob(x)
    assert torch.equal(score[-5:], density(name).log_prob(x[-5:]))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_finite(name: str) -> None:
    x = torch.cat((density(name).sample(20, dtype=torch.float64), torch.zeros(1, 2).double()))
    (gradient,) = torch.autograd.grad(density(name).log_prob(x.requires_grad_()).sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_pickle(name: str) -> None:
    assert pickle.loads(pickle.dumps(density(name))) == density(name)


@pytest.mark.parametrize(("name", "message"), [("moon", "'moons'"), ("zzz", "known: moons")])
def test_unknown_name(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        density(name)


@pytest.mark.parametrize("n", [-1, 1.5, True])
def test_bad_number_of_samples(n: Any) -> None:
    with pytest.raises(InputError, match="number of samples"):
        density("moons").sample(n)


@pytest.mark.parametrize("x", [torch.zeros(3), torch.zeros(2, 3), torch.zeros(1, 2).long()])
def test_bad_points(x: torch.Tensor) -> None:
    with pytest.raises(InputError, match="shape"):
        density("moons").log_prob(x)
