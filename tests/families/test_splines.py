"""Splines where numbers are hard: sharp parameters, knots, bounds, far outside; and what they are at zero."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from tests.conformance.shared import CONTEXT, mlp

from diffeo.errors import ConfigError
from diffeo.families import (
    CubicSpline,
    Family,
    LinearRationalSpline,
    LinearSpline,
    QuadraticSpline,
    RationalQuadraticSpline,
)
from diffeo.families.splines.binning import ends, find, knots, shares
from diffeo.nets import MADE
from diffeo.testing import check_transform
from diffeo.transforms import Autoregressive, Coupling, Elementwise

SPLINES = {
    "rational_quadratic": RationalQuadraticSpline,
    "circular": partial(RationalQuadraticSpline, tails="circular"),
    "linear_rational": LinearRationalSpline,
    "linear": LinearSpline,
    "quadratic": QuadraticSpline,
    "cubic": CubicSpline,
}
every_spline = pytest.mark.parametrize("name", SPLINES)


def draw(family: Family, n: int, scale: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return scale * torch.randn(n, family.num_params, generator=g, dtype=dtype)


def points(n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return 6.4 * torch.rand(n, generator=g, dtype=dtype) - 3.2


def sharp(name: str, n: int, scale: float = 20.0) -> None:
    """Values, inverses and gradients of n points with parameters of that scale."""
    family = SPLINES[name]()
    params = draw(family, n, scale).requires_grad_()
    x = points(n).requires_grad_()
    for apply in (family, family.inverse):
        y, ladj = apply(x, params)
        grads = torch.autograd.grad(y.sum() + ladj.sum(), (x, params))
        for value in (y, ladj, *grads):
            assert bool(value.isfinite().all())
    with torch.no_grad():
        wide = family.double()
        exact, slope = wide(x.double(), params.double())
        y, ladj = family(x, params)
        assert y.dtype == torch.float32
        back = wide.inverse(exact, params.double())[0]
        turn = 6.0 if name == "circular" else float("inf")
        error = (back - x.double()).abs()
        error = torch.minimum(error, (turn - error).abs())
        # A float64 rounding of y, divided by the slope, which reaches 1e-9 here.
        assert bool((error <= 1e-11 + 1e-14 * (-slope).exp()).all())
        found = family.inverse(y, params)[0].double()
        error = (found - x.double()).abs()
        error = torch.minimum(error, (turn - error).abs())
        steep = (-slope).exp().clamp(min=1)
        assert float((error / steep).quantile(0.999)) < 1e-4


@every_spline
def test_sharp_parameters(name: str) -> None:
    sharp(name, 2_000)


@pytest.mark.slow
@every_spline
def test_sharp_parameters_of_a_million_points(name: str) -> None:
    sharp(name, 10**6)


@every_spline
def test_values_of_scale_1000_give_no_nan(name: str) -> None:
    family = SPLINES[name]()
    params = draw(family, 500, 1000.0).requires_grad_()
    y, ladj = family(points(500), params)
    (grad,) = torch.autograd.grad(y.sum() + ladj.sum(), params)
    for value in (y, ladj, grad):
        assert bool(value.isfinite().all())


@every_spline
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_params_are_the_identity(name: str, dtype: torch.dtype) -> None:
    family = SPLINES[name](bins=7)
    x = points(500, dtype).clamp(-2.99, 2.99)
    eps = torch.finfo(dtype).eps
    for apply in (family, family.inverse):
        y, ladj = apply(x, torch.zeros(family.num_params, dtype=dtype))
        assert float((y - x).abs().max()) <= 100 * eps
        assert float(ladj.abs().max()) <= 50 * eps


@pytest.mark.parametrize("name", [n for n in SPLINES if n != "circular"])
def test_tails_are_the_identity(name: str) -> None:
    family = SPLINES[name]()
    x = torch.tensor([-3e38, -1e4, -3.0001, -3.0, 3.0, 3.0001, 1e4, 3e38, torch.inf, -torch.inf])
    for scale in (1.0, 20.0):
        for apply in (family, family.inverse):
            y, ladj = apply(x, draw(family, len(x), scale))
            assert torch.equal(y, x)
            assert not bool(ladj.any())


def test_the_circle_goes_on() -> None:
    family = RationalQuadraticSpline(bins=4, bound=2.0, tails="circular")
    params = draw(family, 1, 2.0, torch.float64)
    x = torch.linspace(-1.9, 1.9, 9, dtype=torch.float64)
    here, there = family(x, params), family(x + 8.0, params)
    torch.testing.assert_close(here, there)
    # The slope is the same at both ends of the interval.
    ladj = family(torch.tensor([-2.0, 2.0 - 1e-13], dtype=torch.float64), params)[1]
    torch.testing.assert_close(ladj[0], ladj[1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["rational_quadratic", "linear_rational", "quadratic", "cubic"])
def test_the_slope_is_continuous_at_knots_and_one_at_the_bounds(name: str) -> None:
    family = SPLINES[name](bins=5)
    params = draw(family, 20, 1.0, torch.float64)
    edge = torch.tensor([[-3.0 + 1e-10], [3.0 - 1e-10]], dtype=torch.float64).expand(2, 20)
    assert float(family(edge, params)[1].abs().max()) < 1e-5
    if name != "cubic":
        key = shares(params.movedim(-1, 0)[:5], 1e-3)
        inner = knots(key, 3.0)[1:-1]
        before, after = (family(inner + s, params.expand(4, 20, -1))[1] for s in (-1e-9, 1e-9))
        torch.testing.assert_close(before, after, atol=1e-4, rtol=0)


def test_knots_are_met_exactly() -> None:
    family = RationalQuadraticSpline()
    params = draw(family, 300, 5.0)
    raw = params.movedim(-1, 0)
    xs, ys = (knots(shares(r, 1e-3), 3.0) for r in (raw[:8], raw[8:16]))
    assert bool((xs[0] == -3).all())
    assert bool((xs[-1] == 3).all())
    assert bool((xs.diff(dim=0) > 0).all())
    for k in range(8):
        assert torch.equal(family(xs[k], params)[0], ys[k])
        assert torch.equal(family.inverse(ys[k], params)[0], xs[k])
        assert bool((find(xs[k], xs) == k).all())


def test_gradients_of_the_ends_of_a_bin() -> None:
    torch.manual_seed(0)
    x = torch.rand(7, 2, dtype=torch.float64) * 4 - 2
    raw = torch.randn(5, 7, 2, dtype=torch.float64, requires_grad=True)

    def both(raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = shares(raw, 1e-2)
        at = knots(parts, 2.0)
        return ends(parts, at, find(x, at), 2.0)

    assert torch.autograd.gradcheck(both, (raw,))
    assert torch.autograd.gradgradcheck(lambda r: tuple(v.sin() for v in both(r)), (raw,))


def test_number_of_params() -> None:
    assert RationalQuadraticSpline(8).num_params == 23
    assert RationalQuadraticSpline(8, tails="circular").num_params == 24
    assert [f(8).num_params for f in (LinearSpline, QuadraticSpline, CubicSpline)] == [8, 15, 16]
    assert LinearRationalSpline(8).num_params == 31


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"bins": 1}, "at least 2 bins, got 1"),
        ({"bound": 0.0}, "positive bound, got 0"),
        ({"bins": 20, "min_width": 0.06}, "min_width between 0 and 0.05, got 0.06"),
        ({"tails": "square"}, "tails must be linear or circular, got 'square'"),
    ],
)
def test_settings_that_cannot_be(bad: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RationalQuadraticSpline(**bad)


@pytest.mark.slow
@every_spline
def test_in_every_transform(name: str) -> None:
    make = partial(SPLINES[name], bins=3, bound=2.0)
    for transform in (
        Coupling((3,), make(), mlp),
        Coupling((1,), make(), mlp, context_shape=CONTEXT),
        Elementwise((2,), make()),
        Elementwise((2,), make(), mlp, context_shape=CONTEXT),
        Autoregressive((3,), make(), partial(MADE, hidden=(8,)), context_shape=CONTEXT),
    ):
        check_transform(transform)
