"""Monotone families at sharp parameters, at extreme inputs, at their special cases, and in every kind of transform."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from tests.conformance.monotone import MONOTONE, made
from tests.conformance.shared import CONTEXT, mlp
from torch import Tensor

from diffeo.errors import ConfigError, DomainError
from diffeo.families import (
    Affine,
    Bernstein,
    Composition,
    Family,
    GaussianMixtureCDF,
    LeakySoftplus,
    LogisticMixtureCDF,
    LogisticToNormal,
    Logit,
    SinhArcsinh,
    SumOfSquares,
    activations,
)
from diffeo.families.mixture import log_hazard, log_ndtr, ndtri_of_log
from diffeo.testing import check_transform
from diffeo.transforms import Autoregressive, Coupling, Elementwise, MarginalGaussianization

DTYPES = (torch.float32, torch.float64)
NORMAL = torch.distributions.Normal(0.0, 1.0)


def _numbers(family: Family, n: int, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Points near and far, at parameters N(0, scale^2) of their own."""
    g = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(n, generator=g, dtype=torch.float64)
    x[: n // 4] *= 1e3
    x[:4] = torch.tensor([1e4, -1e4, 0.0, 1e-30])
    params = scale * torch.randn((n, family.num_params), generator=g, dtype=torch.float64)
    return x.to(dtype), params.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("name", MONOTONE)
def test_sharp_parameters_and_extreme_inputs(name: str, scale: float, dtype: torch.dtype) -> None:
    """All finite, with finite gradients, and the inverse maps back to the same value."""
    family = MONOTONE[name]()
    x, params = _numbers(family, 400, scale, dtype)
    x.requires_grad_(), params.requires_grad_()
    y, ladj = family(x, params)
    assert y.isfinite().all()
    assert ladj.isfinite().all()
    for grad in torch.autograd.grad(y.sum() + ladj.sum(), (x, params)):
        assert grad.isfinite().all()
    y = y.detach()
    with torch.no_grad():
        found, back = family.inverse(y, params)
        again, slope = family(found, params)
    # Where the map is flat no x is nearer than another; where it is steep a rounding of x is one of y, times the slope.
    eps = torch.finfo(dtype).eps
    error = (again - y).abs() / (1 + y.abs() + slope.exp() * (1 + found.abs()))
    assert float(error.max()) < 2000 * eps
    steep = slope > -3
    gap = (back + slope).abs() / (1 + slope.abs())
    assert float(gap[steep].max()) < (2e-2 if dtype == torch.float32 else 1e-6)


@pytest.mark.parametrize("name", MONOTONE)
def test_the_inverse_has_finite_gradients_at_sharp_parameters(name: str) -> None:
    family = MONOTONE[name]()
    x, params = _numbers(family, 100, 5.0, torch.float64)
    y = family(x, params)[0].detach().requires_grad_()
    params.requires_grad_()
    found, ladj = family.inverse(y, params)
    for grad in torch.autograd.grad(found.sum() + ladj.sum(), (y, params)):
        assert not grad.isnan().any()


@pytest.mark.parametrize(
    "family",
    [
        LogisticMixtureCDF(1),
        LogisticMixtureCDF(4, spread=0.0),
        GaussianMixtureCDF(4, spread=0.0),
        SumOfSquares(3, 4),
        Bernstein(40, bound=3.0),
        activations(2),
        SinhArcsinh(),
        LeakySoftplus(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_identity_at_zero_params(family: Family, dtype: torch.dtype) -> None:
    x = torch.tensor([-1e4, -7.0, -0.2, 0.0, 1.0, 4.9, 12.0, 1e4], dtype=dtype)
    y, ladj = family(x, torch.zeros(family.num_params, dtype=dtype))
    eps = torch.finfo(dtype).eps
    assert torch.allclose(y, x, rtol=20 * eps, atol=20 * eps)
    assert torch.allclose(ladj, torch.zeros_like(x), atol=40 * eps)


def test_mixture_cdfs_against_their_definition() -> None:
    for family, base in (
        (LogisticMixtureCDF(3), torch.sigmoid),
        (GaussianMixtureCDF(3), NORMAL.cdf),
    ):
        params = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        logits, means, raw = params.reshape(3, 3)
        scales = (7 * (raw / 7).tanh()).exp()
        x = torch.linspace(-6, 6, 41, dtype=torch.float64)
        parts = base((x[:, None] - means - torch.tensor([-2.0, 0.0, 2.0])) / scales)
        cdf = (logits.softmax(0) * parts).sum(-1)
        quantile = torch.logit(cdf) if base is torch.sigmoid else NORMAL.icdf(cdf)
        assert torch.allclose(family(x, params)[0], quantile, rtol=1e-9, atol=1e-9)


def test_the_family_of_flow_plus_plus_with_one_component_is_affine() -> None:
    family = Composition([LogisticMixtureCDF(1), Affine("clamp", bound=1.0)])
    assert family.num_params == 5
    params = torch.tensor([0.0, 0.0, 0.0, 0.3, -0.4], dtype=torch.float64)
    x = torch.tensor([-1e4, -2.0, 0.0, 3.0, 1e4], dtype=torch.float64)
    scale = math.exp(math.tanh(-0.4))
    assert torch.allclose(family(x, params)[0], scale * x + 0.3, rtol=1e-14)


def test_normal_tails() -> None:
    special = pytest.importorskip("scipy.special")
    u = torch.tensor([-1e4, -40.0, -8.0, -1.0, -0.1, 0.0, 0.1, 3.0, 9.0], dtype=torch.float64)
    truth = torch.from_numpy(special.log_ndtr(u.numpy()))
    assert torch.allclose(log_ndtr(u), truth, rtol=1e-13, atol=1e-17)
    assert torch.allclose(ndtri_of_log(truth[:6]), u[:6], rtol=1e-13, atol=1e-15)
    hazard = -0.5 * u * u - 0.5 * math.log(2 * math.pi) - truth
    assert torch.allclose(log_hazard(u)[1:], hazard[1:], rtol=1e-12)
    assert float(log_hazard(u)[0]) == pytest.approx(math.log(1e4), rel=1e-8)
    u.requires_grad_()
    torch.autograd.gradgradcheck(log_ndtr, u[1:6].detach().requires_grad_())
    torch.autograd.gradgradcheck(ndtri_of_log, truth[1:5].requires_grad_())


def test_logistic_to_normal() -> None:
    x = torch.tensor([-1e4, -30.0, -1.0, 0.0, 1e-9, 2.0, 1e4], dtype=torch.float64)
    none = torch.zeros(7, 0, dtype=torch.float64)
    y, ladj = LogisticToNormal()(x, none)
    back, inverse = LogisticToNormal().inverse(y, none)
    assert torch.allclose(back, x, rtol=1e-12)
    assert torch.allclose(inverse, -ladj, rtol=1e-12)
    middle = slice(1, 6)
    assert torch.allclose(y[middle], NORMAL.icdf(x[middle].sigmoid()), atol=1e-9)


def test_sum_of_squares_is_the_integral() -> None:
    family = SumOfSquares(2, 3)
    params = torch.randn(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = torch.tensor([-4.0, -0.5, 2.5], dtype=torch.float64)
    nodes = torch.linspace(0, 1, 2001, dtype=torch.float64)
    slope = family(x[:, None] * nodes, params)[1].exp()
    integral = params[0] + x * torch.trapezoid(slope, nodes)
    assert torch.allclose(family(x, params)[0], integral, rtol=1e-5)
    a = params[1:].reshape(2, 4).clone()
    a[:, 0] += torch.tensor([2.0, 1.0]).double() * math.sqrt((1 - 1e-3) / 5)
    basis = torch.stack([torch.special.legendre_polynomial_p(x / 5, n) for n in range(4)], -1)
    assert torch.allclose(family(x, params)[1].exp(), 1e-3 + (basis @ a.mT).square().sum(-1))


def test_bernstein_coefficients() -> None:
    """With degree 2 and increments in the ratio 1 to 3, a parabola through its ends."""
    family = Bernstein(2, bound=1.0, minimum_slope=1e-6)
    raw = math.log(math.expm1(3 * math.log(2)))
    params = torch.tensor([0.5, 0.0, raw], dtype=torch.float64)
    x = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    a = torch.tensor([0.0, 1.0, 4.0]) - 5 / 3 + 0.5
    expected = torch.tensor([a[0], 0.25 * a[0] + 0.5 * a[1] + 0.25 * a[2], a[2], a[2] + 3])
    assert torch.allclose(family(x, params)[0], expected.double(), atol=1e-4)


def test_composition_of_families_checks_its_parts() -> None:
    with pytest.raises(ConfigError, match="list of families"):
        Composition([])
    with pytest.raises(DomainError, match="Logit takes values in"):
        Composition([Affine(), Logit(0.0)])
    assert Composition([Logit(0.0), Affine()]).properties.domain == Logit(0.0).properties.domain


@pytest.mark.parametrize(
    "make",
    [
        lambda: LogisticMixtureCDF(0),
        lambda: GaussianMixtureCDF(2, bound=0.0),
        lambda: SumOfSquares(0),
        lambda: SumOfSquares(bound=-1.0),
        lambda: Bernstein(0),
        lambda: Bernstein(minimum_slope=0.0),
        lambda: SinhArcsinh(2.0),
        lambda: LeakySoftplus(0.0),
        lambda: activations(0),
    ],
)
def test_bad_settings(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"must be|got"):
        make()


def test_marginal_gaussianization_starts_from_the_data() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.cat(
        [torch.randn(400, 1, generator=g) - 5, 0.3 * torch.randn(200, 1, generator=g) + 20]
    )
    for kernel in ("logistic", "gaussian"):
        layer = MarginalGaussianization((1,), 16, kernel)
        before = layer(x)[0].detach().std()
        z = layer.initialize(x)
        assert abs(float(z.mean())) < 0.1
        assert abs(float(z.std()) - 1) < 0.35 < abs(float(before) - 1)
        params = layer.params.clone()
        layer.initialize(10 * x)
        assert torch.equal(layer.params, params)


def _in_transforms() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, make in MONOTONE.items():
        for context in (None, CONTEXT):
            where = name + ("" if context is None else "/context")
            options = {"context_shape": context}
            found[f"coupling/{where}"] = partial(Coupling, (3,), make(), mlp, **options)
            found[f"autoregressive/{where}"] = partial(
                Autoregressive, (3,), make(), made, **options
            )
            net = None if context is None else mlp
            found[f"elementwise/{where}"] = partial(Elementwise, (3,), make(), net, **options)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_TRANSFORMS := _in_transforms())
def test_every_family_in_every_transform(name: str) -> None:
    torch.manual_seed(0)
    check_transform(IN_TRANSFORMS[name]())
