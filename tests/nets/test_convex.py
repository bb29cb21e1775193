"""Input-convex networks: convex everywhere, with the gradient and the Hessian of their own values."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from diffeo.errors import ConfigError, InputError, ShapeError
from diffeo.nets import ICNN, ConvICNN, InputConvex
from diffeo.nets.convex import CONVEX_ACTIVATIONS
from diffeo.testing import randomize
from diffeo.testing.randomize import draw_context

IMAGE = (2, 2, 3)
NETS = {
    "softplus": partial(ICNN, (3,), hidden=(6, 5, 4)),
    "gaussian": partial(ICNN, (3,), hidden=(4, 4), activation="gaussian", symmetric=False),
    "laplace": partial(ICNN, (3,), hidden=(4, 4), activation="laplace", augmented=False),
    "cauchy": partial(ICNN, (3,), hidden=(4, 4), activation="cauchy", actnorm=False),
    "context": partial(ICNN, (1, 3), {"a": (2,), "b": (1,)}, hidden=(5, 4)),
    "conv": partial(ConvICNN, IMAGE, hidden=(3, 4)),
    "conv/context": partial(ConvICNN, IMAGE, (2,), hidden=(3, 2), size=1),
}


def example(
    name: str, seed: int, scale: float = 3.0, n: int = 5
) -> tuple[InputConvex, Tensor, object]:
    net = randomize(NETS[name]().double(), seed, scale)
    g = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(n, *net.in_shape, generator=g, dtype=torch.float64)
    context = draw_context(net.context_shape, n, seed)
    return net, x, context


@pytest.mark.parametrize("name", NETS)
def test_gradient_and_hessian_are_those_of_the_value(name: str) -> None:
    net, x, context = example(name, 0, scale=1.0)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, context).sum(), x, create_graph=True)
    rows = [torch.autograd.grad(g.sum(), x, retain_graph=True)[0] for g in gradient.flatten(1).T]
    hessian = torch.stack([r.flatten(1) for r in rows], 1)
    at = net.linearize(x.detach(), context)
    assert torch.allclose(at.gradient, gradient, rtol=1e-10, atol=1e-12)
    assert torch.allclose(at.dense(), hessian, rtol=1e-9, atol=1e-12)
    v = torch.randn(len(x), 2, hessian.shape[1], dtype=torch.float64)
    assert torch.allclose(at.product(v), v @ hessian, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NETS)
def test_convex_far_from_initialization(name: str) -> None:
    """No eigenvalue below zero, and the value between two points below its chord, for parameters of size 3 and 10."""
    for seed, scale in enumerate((1.0, 3.0, 10.0)):
        net, x, context = example(name, seed, scale, n=20)
        with torch.no_grad():
            values = torch.linalg.eigvalsh(net.linearize(x, context).dense())
            assert bool((values[:, 0] >= -1e-12 * values[:, -1]).all())
            assert bool((values[:, -1] > 0).any())
            y = x.roll(1, 0) if context is None else x + torch.randn_like(x)
            ends = 0.5 * (net(x, context) + net(y, context))
            assert bool((net(0.5 * (x + y), context) <= ends + 1e-9 * (1 + ends.abs())).all())


@pytest.mark.parametrize("name", CONVEX_ACTIVATIONS)
def test_activations_have_their_derivatives(name: str) -> None:
    h = torch.tensor([-30.0, -3.0, -0.4, 0.3, 2.0, 30.0], dtype=torch.float64, requires_grad=True)
    value, slope, curvature = CONVEX_ACTIVATIONS[name](h)
    (first,) = torch.autograd.grad(value.sum(), h, retain_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), h)
    assert torch.allclose(first, slope, rtol=1e-9, atol=1e-14)
    assert torch.allclose(second, curvature, rtol=1e-9, atol=1e-14)
    assert bool((curvature > 0).all() and (slope >= 0).all() and (slope <= 1).all())


def test_initialization_standardizes_every_layer() -> None:
    torch.manual_seed(0)
    net = ConvICNN(IMAGE, hidden=(4, 4, 4)).double()
    x = 5 + 2 * torch.randn(50, *IMAGE, dtype=torch.float64)
    net.initialize(x)
    layers, _ = net._layers(None)
    z = None
    for k, layer in enumerate(layers):
        h = layer.drive(x, z) + layer.bias
        if k:
            assert torch.allclose(h.mean((0, 2, 3)), torch.zeros(4).double(), atol=1e-9)
            assert torch.allclose(h.var((0, 2, 3), correction=0), torch.ones(4).double())
        z = net._jet(k, h)[0]
    before = net.bias[1].clone()
    net.initialize(x + 1)
    assert torch.equal(net.bias[1], before)
    with pytest.raises(InputError, match="0 rows"):
        ConvICNN(IMAGE).initialize(x[:0].float())


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="relu"):
        ICNN((2,), activation="relu")
    with pytest.raises(ConfigError, match="2 units"):
        ICNN((2,), hidden=(4, 1))
    with pytest.raises(ShapeError, match="images"):
        ConvICNN((4,))
    with pytest.raises(ConfigError, match="odd"):
        ConvICNN(IMAGE, size=2)
