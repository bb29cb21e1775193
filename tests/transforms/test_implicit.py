"""Implicit transforms: the equation, slopes beyond a residual transform's, gradients, unbiased log-determinants."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo.errors import ConfigError, ConvergenceError
from diffeo.fixed_points import recording
from diffeo.nets import LipschitzConvNet, LipschitzMLP, LipschitzNet
from diffeo.parts import refresh
from diffeo.testing import randomize
from diffeo.transforms import Exact, Implicit, Inverse, PowerSeries, Residual, Roulette

mlp = partial(LipschitzMLP, hidden=(5,), coeff=0.8)


def _made(d: int, **settings: Any) -> Implicit:
    torch.manual_seed(0)
    settings = {"net_x": mlp, "estimator": Exact()} | settings
    return randomize(Implicit((d,), **settings).double().eval(), seed=1)


def _x(n: int, *shape: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(2)).double()


@torch.no_grad()
def _silence(net: LipschitzNet) -> None:
    """g = 0."""
    for p in net.parameters():
        p.zero_()
    refresh(net)


@pytest.mark.parametrize("method", ["picard", "anderson", "broyden"])
def test_the_equation_holds_in_both_directions(method: Any) -> None:
    t = _made(3, method=method)
    x = _x(6, 3)
    with torch.no_grad():
        z, _ = t(x)
        assert (z + t.net_z(z) - x - t.net_x(x)).abs().max() < 1e-13
        back, _ = t.inverse(x)
        assert (back + t.net_x(back) - x - t.net_z(x)).abs().max() < 1e-13


def test_without_one_side_it_is_a_residual_transform_or_its_inverse() -> None:
    x = _x(5, 3)
    for silent in ("net_z", "net_x"):
        t = _made(3)
        _silence(getattr(t, silent))
        other = t.net_x if silent == "net_z" else t.net_z
        residual: Any = Residual((3,), other, estimator=Exact())
        expected = residual if silent == "net_z" else Inverse(residual)
        for found, wanted in zip(t(x), expected(x), strict=True):
            assert torch.allclose(found, wanted, rtol=0, atol=1e-13)


def _line(slope_x: float, slope_z: float, coeff: float = 0.99) -> Implicit:
    """g_x = slope_x x, g_z = slope_z z, by networks of one matrix."""
    t = Implicit((1,), partial(LipschitzMLP, hidden=(), coeff=coeff), estimator=Exact()).double()
    with torch.no_grad():
        for net, slope in ((t.net_x, slope_x), (t.net_z, slope_z)):
            for p in net.parameters():
                p.fill_(slope if p.ndim == 2 else 0.0)
            refresh(net)
    return t


@pytest.mark.parametrize(("a", "b"), [(0.5, -0.25), (-0.5, 0.75), (0.0, 0.5)])
def test_slopes_of_lines(a: float, b: float) -> None:
    z, ladj = _line(a, b)(_x(4, 1))
    slope = torch.tensor((1 + a) / (1 + b), dtype=torch.float64)
    assert torch.allclose(z, slope * _x(4, 1), rtol=1e-12)
    assert torch.allclose(ladj, slope.log().expand(4), rtol=0, atol=1e-12)


def test_the_range_of_slopes_is_that_of_the_constants() -> None:
    """At coeff 0.99, one layer reaches slopes near 199 and near 1/199, where a residual one stays in (0.01, 1.99)."""
    for sign in (1, -1):
        t = _line(sign * 5.0, -sign * 5.0)
        z, ladj = t(_x(4, 1))
        factor = (z / _x(4, 1)).log().detach()
        assert torch.allclose(ladj, factor, rtol=0, atol=1e-9)
        # The networks stay a thousandth below their coefficient.
        assert float(sign * factor[0]) > 0.9 * 5.293
        bound = t.properties.lipschitz if sign > 0 else t.properties.inverse_lipschitz
        assert float((sign * factor).exp().max()) <= bound == pytest.approx(199)


def test_gradients_are_those_of_an_unrolled_iteration() -> None:
    t = _made(2)
    x = _x(3, 2).requires_grad_()

    def loss(z: Tensor, ladj: Tensor) -> Tensor:
        return (z.sin().sum(1) + ladj).square().sum()

    def unrolled() -> tuple[Tensor, Tensor]:
        right = x + t.net_x(x)
        z = right
        for _ in range(100):
            z = right - t.net_z(z)
        exact = t.estimator
        return z, exact(t.net_x, x)[1] - exact(t.net_z, z)[1]

    inputs = [x, *t.parameters()]
    found = torch.autograd.grad(loss(*t(x)), inputs)
    expected = torch.autograd.grad(loss(*unrolled()), inputs)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-10 * max(1.0, float(b.abs().max()))


def _every_probe(roulette: Roulette, d: int, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """All signs with all numbers of terms: probes [n, 1, d], weights [n, terms], probabilities [n]."""
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=d))).double()
    survival = torch.tensor(roulette.survival(least)).double()
    p = survival - torch.cat((survival[1:], survival.new_zeros(1)))
    tail = torch.ones(len(p), len(p)).double().tril() / survival
    # In eval mode there are many exact terms.
    exact = torch.ones(len(p), roulette.exact_terms).double()
    weights = torch.cat((exact, tail), 1)
    n = len(signs)
    return (
        signs.repeat_interleave(len(p), 0)[:, None],
        weights.repeat(n, 1),
        p.repeat(n) / n,
    )


@pytest.mark.parametrize("d", [1, 3])
def test_the_estimate_is_unbiased_with_its_gradients(d: int) -> None:
    """The expectation over every sign vector and number of terms is the exact value, for both determinants at once."""
    roulette = Roulette(exact_terms=1)
    exact, t = _made(d), _made(d, estimator=roulette)
    x = _x(1, d)
    # L = 0.64: the remainder of the series is below 1e-13.
    probes, weights, p = _every_probe(roulette, d, 2.0**-56)
    assert abs(float(p.sum()) - 1) < 1e-15

    def value(t: Implicit, *noise: Any) -> list[Tensor]:
        n = len(p) if noise else 1
        chance = p if noise else torch.ones(1).double()
        given = x.clone().requires_grad_()
        _, ladj = t(given.expand(n, d), None, *noise)
        total = (chance * ladj).sum()
        return [total.detach(), *torch.autograd.grad(total, [given, *t.parameters()])]

    # Each determinant is linear in its own noise: one draw may serve both.
    found = value(t, ((probes, weights), (probes, weights)))
    for a, b in zip(found, value(exact), strict=True):
        assert (a - b).abs().max() < 1e-8


def test_noise_decides_the_estimate_alone() -> None:
    t = _made(3, estimator=Roulette())
    x = _x(4, 3)
    noise = t.draw(4, generator=torch.Generator().manual_seed(0), like=x)
    first, again = t(x, None, noise), t(x, None, noise)
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], t(x)[1])
    assert torch.equal(first[0], t(x)[0])
    back, ladj = t.inverse(first[0])
    assert torch.allclose(back, x, rtol=0, atol=1e-12)
    assert bool(ladj.isnan().all())
    (probes, _), (others, _) = noise
    assert not torch.equal(probes, others)


def test_declared_bias_and_kind() -> None:
    t = _made(2, estimator=PowerSeries(3))
    assert t.properties.kind == "estimate"
    assert "power series of 3 terms" in t.properties.bias
    assert _made(2).properties.kind == "exact"
    assert _made(2).properties.bias == "fixed points to 32 roundings of the dtype"


def test_a_stale_constant_is_an_error_that_names_the_layer() -> None:
    t = _line(0.5, 0.9)
    t.method = "picard"
    with torch.no_grad():
        for p in t.net_z.parameters():
            p.mul_(4)
    refresh(t)
    # The vectors of the search are turned away from the weights: nothing holds the norm at 0.99.
    for name, b in t.net_z.named_buffers():
        if name.endswith(".u"):
            b.neg_()
    with pytest.raises(
        ConvergenceError, match=r"Implicit\(1,\): the fixed point of 3 of 3 examples"
    ):
        t(_x(3, 1))
    refresh(t)
    assert bool(t(_x(3, 1))[0].isfinite().all())


def test_images_in_float32_and_their_iterations() -> None:
    torch.manual_seed(0)
    t = Implicit((2, 4, 3), partial(LipschitzConvNet, width=4), estimator=PowerSeries(2))
    x = _x(3, 2, 4, 3).float()
    with torch.no_grad(), recording() as found:
        back = t.inverse(t(x)[0])[0]
    assert torch.allclose(back, x, atol=1e-5)
    assert [name for name, _ in found] == [t.name, t.name]
    assert all(int(s.steps.max()) < 40 for _, s in found)


def test_networks_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="below 1"):
        Implicit((2,), partial(LipschitzMLP, hidden=(2,), coeff=1.0))
    with pytest.raises(ConfigError, match="LipschitzMLP, got Linear"):
        Implicit((2,), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="needs a network for z"):
        Implicit((2,), mlp((2,), (2,)))
