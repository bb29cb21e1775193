"""Lipschitz constants: power iteration and certificates against dense SVD, activations, state."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from diffeo.errors import ConfigError, ShapeError
from diffeo.nets import LipschitzConvNet, LipschitzDenseNet, LipschitzMLP
from diffeo.nets.lipschitz_layers import (
    ACTIVATIONS,
    CONCATENATED,
    SWISH,
    Concatenated,
)
from diffeo.nets.lipschitz_operators import Exponents, LipschitzConv2d, LipschitzLinear
from diffeo.parts import TRAINING_TOLERANCE, refresh
from diffeo.testing import randomize

OPERATORS = {
    "linear": (lambda: LipschitzLinear(5, 7, 0.9), (5,)),
    "conv": (lambda: LipschitzConv2d((2, 5, 4), 3, 3, 0.9), (2, 5, 4)),
    "strided": (lambda: LipschitzConv2d((2, 5, 4), 3, 3, 0.9, stride=2), (2, 5, 4)),
    "pointwise": (lambda: LipschitzConv2d((2, 5, 4), 3, 1, 0.9), (2, 5, 4)),
    "wide": (lambda: LipschitzConv2d((1, 3, 4), 2, 5, 0.5), (1, 3, 4)),
}


def matrix(layer, shape):
    """The operator, unrolled."""
    n = math.prod(shape)
    eye = torch.eye(n, dtype=torch.float64).reshape(n, *shape)
    prepared = layer.prepare()
    with torch.no_grad():
        return (layer(eye, prepared) - layer(torch.zeros_like(eye), prepared)).flatten(1).mT


@pytest.mark.parametrize("name", OPERATORS)
def test_norms_are_those_of_the_unrolled_operator(name):
    make, shape = OPERATORS[name]
    layer = make().double()
    with torch.no_grad():
        layer.weight.mul_(5)
    layer.refresh()
    norm = float(torch.linalg.matrix_norm(matrix(layer, shape), 2))
    assert layer.coeff * (1 - 2 * TRAINING_TOLERANCE) < norm <= layer.coeff
    assert layer.certified() == pytest.approx(norm, rel=1e-9)
    # As if it were large: the bound of all frequencies of a torus around it.
    layer.UNROLLED = 0
    assert norm <= layer.certified() * (1 + 1e-9)
    # What is short enough already is not scaled.
    with torch.no_grad():
        layer.weight.mul_(0.01)
    layer.refresh()
    assert torch.equal(layer.prepare()[0], layer.weight)


@pytest.mark.parametrize("p", [2.0, 3.0])
def test_a_single_column_that_turns_is_followed(p):
    """The vector on the side of the input stays at 1; that of the output must move all the same."""
    layer = LipschitzLinear(1, 6, 0.9, p, p).double()
    for i in range(3):
        with torch.no_grad():
            layer.weight.zero_()[i] = 5.0
        layer.refresh()
        assert layer.certified() <= 0.9


def test_layers_refreshed_together_are_those_refreshed_alone():
    def made():
        torch.manual_seed(0)
        sizes = [(5, 7), (7, 5), (5, 7), (12, 12), (12, 12), (1, 4)]
        linear = [LipschitzLinear(*size, 0.9) for size in sizes]
        conv = [LipschitzConv2d((2, 5, 4), 2, 3, 0.9, stride=s) for s in (1, 1, 2, 2)]
        learned = list(LipschitzMLP((12,), (12,), hidden=(12, 12), norm="learned").layers)
        layers = torch.nn.ModuleList([*linear, *conv, *learned]).double()
        with torch.no_grad():
            for i, p in enumerate(layers.parameters()):
                p.mul_(1.0 + i)
            layers[2].weight.zero_()
        return layers

    alone, together = made(), made()
    for layer in alone:
        layer.refresh()
    refresh(together)
    for one, other in zip(alone.state_dict().values(), together.state_dict().values(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-9)
    before = [b.clone() for b in together.buffers()]
    refresh(together)
    assert all(torch.equal(a, b) for a, b in zip(before, together.buffers(), strict=True))


def test_the_bound_of_frequencies_is_close_on_larger_images():
    layer = LipschitzConv2d((1, 16, 16), 2, 3, 0.9).double()
    with torch.no_grad():
        layer.weight.mul_(10)
    layer.refresh()
    exact = layer.certified()
    layer.UNROLLED = 0
    assert exact <= layer.certified() <= 1.05 * exact


@pytest.mark.parametrize(
    ("p", "q"), list(itertools.product((1.0, 1.5, 2.0, 3.0, math.inf), repeat=2))
)
def test_mixed_norms_hold_and_are_nearly_reached(p, q):
    layer = randomize(LipschitzLinear(3, 4, 0.9, p, q).double(), scale=8.0)
    w = matrix(layer, (3,))
    g = torch.Generator().manual_seed(0)
    corners = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0], repeat=3))[:-1]).double()
    x = torch.cat((torch.randn(5_000, 3, generator=g, dtype=torch.float64), corners))
    x = x[x.abs().sum(1) > 0]
    ratio = torch.linalg.vector_norm(x @ w.mT, q, dim=1) / torch.linalg.vector_norm(x, p, dim=1)
    known = p == 1 or q == math.inf or p == q == 2
    assert (0.97 if known else 0.6) * 0.9 < float(ratio.max()) <= layer.certified() * (1 + 1e-9)
    assert layer.certified() <= 0.9 + 1e-9


@pytest.mark.parametrize("norm", [[2.0, 1.0, 2.0], [3.0, 1.2, 3.0], "learned"])
def test_mixed_norms_keep_a_network_below_its_constant(norm):
    """Where a power iteration would end at a local maximum, too."""
    for seed in range(20):
        net = LipschitzMLP((6,), (6,), hidden=(8,), norm=norm).double()
        net = randomize(net, seed, scale=8.0)
        for exponents in (m for m in net.modules() if isinstance(m, Exponents)):
            exponents.raw.data.copy_(torch.randn_like(exponents.raw))
        refresh(net)
        assert net.lipschitz_bound <= net.lipschitz * (1 + 1e-9)


@pytest.mark.parametrize("norm", [1.0, 3.0, math.inf, [2.0, 3.0, 1.5, 2.0], "learned"])
def test_convolutions_take_other_norms(norm):
    net = LipschitzConvNet((1, 4, 4), (1, 4, 4), width=2, norm=norm).double()
    net = randomize(net, 0, scale=8.0)
    refresh(net)
    assert net.lipschitz_bound <= net.lipschitz * (1 + 1e-9)
    p = (
        float(net.exponents(0))
        if norm == "learned"
        else norm[0]
        if norm == [2, 3, 1.5, 2]
        else norm
    )
    a, b = torch.randn(2, 200, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        moved, apart = (t.flatten(1).norm(p, dim=1) for t in (net(a) - net(b), a - b))
    assert 0.001 < float((moved / apart).max()) <= net.lipschitz


def test_a_lesser_singular_vector_is_left():
    """An exact one, which power iteration would keep, and which training that leaves the blocks apart comes to."""
    layer = LipschitzLinear(2, 2, 0.9)
    for entries in ([-2.0, -1.0], [-1.0, -3.0]):
        with torch.no_grad():
            layer.weight.copy_(torch.diag(torch.tensor(entries)))
        layer.refresh()
        assert layer.certified() == pytest.approx(0.9, rel=2e-3)
    torch.manual_seed(0)
    wide = LipschitzLinear(8, 4, 0.9)
    blocks = torch.zeros(4, 8)
    blocks[:2, :4] = blocks[2:, 4:] = 1
    goal = torch.cat((torch.full((2, 8), 0.1), torch.full((2, 8), 5.0))) * blocks
    with torch.no_grad():
        wide.weight.copy_(torch.randn(4, 8) * torch.tensor([5.0, 5, 0.1, 0.1])[:, None] * blocks)
    for _ in range(100):
        with torch.no_grad():
            wide.weight.add_(goal - wide.weight, alpha=0.05)
        wide.refresh(TRAINING_TOLERANCE)
    assert wide.certified() <= 0.9


def test_a_change_without_a_trace_is_seen_by_refresh():
    layer = LipschitzLinear(2, 2, 0.9)
    for entries in ([-2.0, -1.0], [-1.0, -3.0]):
        layer.weight.data.copy_(torch.diag(torch.tensor(entries)))
        layer.refresh()
        assert layer.certified() == pytest.approx(0.9, rel=2e-3)


def test_weights_that_are_no_numbers_stop_no_other_map():
    net = LipschitzMLP((4,), (4,), hidden=(4, 4))
    with torch.no_grad():
        net.layers[2].weight[0, 0] = math.nan
        net.layers[0].weight.mul_(20)
    assert net(torch.randn(3, 4)).isnan().all()
    assert net.layers[0].certified() <= 0.9


def test_learned_exponents_go_with_fixed_ones():
    exponents = Exponents(1).double()
    for p, q in ((1.0, (exponents, 0)), ((exponents, 0), math.inf)):
        layer = LipschitzLinear(3, 4, 0.9, p, q).double()
        exponents.raw.data.fill_(0.7)
        (slope,) = torch.autograd.grad(layer.sigma(), exponents.raw)
        assert slope.abs() > 0
        assert layer.certified() <= 0.9


def test_clipswish_takes_the_2_norm_said_in_any_way():
    LipschitzMLP((2,), (2,), hidden=(4,), activation="clipswish", norm=[2.0, 2.0, 2.0])
    for norm in (1.0, "learned", [2.0, 1.0, 2.0]):
        with pytest.raises(ConfigError, match="clipswish has a bound in the 2-norm only"):
            LipschitzMLP((2,), (2,), hidden=(4,), activation="clipswish", norm=norm)


@pytest.mark.parametrize(("p", "q"), [(3.0, 1.5), (1.5, 3.0), (math.inf, 1.0)])
@pytest.mark.parametrize("stride", [1, 2])
def test_mixed_norms_of_convolutions_hold(p, q, stride):
    layer = LipschitzConv2d((2, 4, 4), 2, 3, 0.9, p, q, stride=stride).double()
    layer = randomize(layer, scale=8.0)
    w = layer.effective().detach()
    x = torch.randn(4000, 2, 4, 4, dtype=torch.float64).sign()
    x = torch.cat((x, torch.randn_like(x), torch.eye(32).double().reshape(-1, 2, 4, 4)))
    image = F.conv2d(x, w, stride=stride, padding=1)
    ratio = image.flatten(1).norm(q, dim=1) / x.flatten(1).norm(p, dim=1)
    assert 0.1 < float(ratio.max()) <= layer.certified() <= 0.9


def test_a_norm_does_not_depend_on_autocast_or_on_the_scale():
    layer = LipschitzLinear(8, 4, 0.9)
    layer.refresh()
    before = layer.v.clone()
    with torch.autocast("cpu", torch.bfloat16):
        layer.refresh()
    assert torch.equal(layer.v, before)
    for scale, expected in ((1e30, 0.9), (1e-50, None)):
        with torch.no_grad():
            layer.weight.mul_(scale**0.5).mul_(scale**0.5)
        layer.refresh()
        assert (layer.v.norm() - 1).abs() < 1e-5
        if expected:
            assert layer.certified() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("at", [(0.5, 0.3), (0.3, 0.5), (-0.4, -0.7), (0.4, -0.6), (-0.3, 0.8)])
def test_the_derivative_by_a_learned_exponent_is_that_of_the_bound(at):
    torch.manual_seed(0)
    exponents = Exponents(2).double()
    layer = LipschitzLinear(3, 4, 0.9, (exponents, 0), (exponents, 1)).double()
    layer.refresh(1e-9)

    def bound(raw):
        exponents.raw.data.copy_(raw)
        return float(layer.sigma())

    raw = torch.tensor(at, dtype=torch.float64)
    exponents.raw.data.copy_(raw)
    (slope,) = torch.autograd.grad(layer.sigma(), exponents.raw)
    for step, expected in zip(1e-5 * torch.eye(2, dtype=torch.float64), slope, strict=True):
        found = (bound(raw + step) - bound(raw - step)) / 2e-5
        assert found == pytest.approx(float(expected), rel=1e-5, abs=1e-8)


def test_slopes_of_the_activations_are_at_most_one_and_reach_it():
    x = torch.linspace(-60, 60, 40_001, dtype=torch.float64)[:, None]
    for name, make in ACTIVATIONS.items():
        layer = make().double()
        for raw in (-3.0, 0.5, 4.0):
            for p in layer.parameters():
                torch.nn.init.constant_(p, raw)
            _, slope = layer.linearized(x, layer.prepare())
            size = torch.stack(slope).norm(dim=0) if isinstance(slope, tuple) else slope.abs()
            assert 0.999 < float(size.max().detach()) <= 1, name
    assert SWISH == 1.1
    assert CONCATENATED == 1.004


def test_weights_of_a_concatenation_keep_their_norm():
    block = Concatenated([LipschitzLinear(3, 4, 0.9)], 0.98, learn=True).double()
    for seed in range(3):
        randomize(block, seed, 4.0)
        assert float(block.shares().square().sum().detach()) == pytest.approx(0.98**2, rel=1e-12)
        assert block.certified() <= block.lipschitz


NETS = {
    "mlp": lambda: LipschitzMLP((3,), (3,), (2,), hidden=(8, 8)),
    "elu": lambda: LipschitzMLP((3,), (3,), hidden=(8,), activation="elu", preactivation=True),
    "conv": lambda: LipschitzConvNet((2, 3, 4), (2, 3, 4), (2,), width=4, activation="clipswish"),
    "dense": lambda: LipschitzDenseNet((3,), (3,), growth=4, preactivation=True),
    "dense-image": lambda: LipschitzDenseNet((2, 3, 4), (2, 3, 4), (2,), growth=4, learn=False),
}


@pytest.mark.parametrize("name", NETS)
def test_jacobians_by_hand_and_their_bound(name):
    net = randomize(NETS[name]().double(), scale=4.0)
    assert net.lipschitz_bound <= net.lipschitz * (1 + 1e-9)
    x = torch.randn(3, *net.in_shape, dtype=torch.float64)
    context = None if net.context_shape is None else torch.randn(3, 2, dtype=torch.float64)
    size = x[0].numel()
    rows = torch.func.vmap(
        torch.func.jacrev(lambda x, c: net(x[None], None if c is None else c[None])[0]),
        in_dims=(0, None if context is None else 0),
    )
    j = rows(x, context).reshape(3, size, size)
    y, push, pull = net.linearize(x, net.prepare(context))
    eye = torch.eye(size, dtype=torch.float64).reshape(1, size, *net.in_shape)
    eye = eye.expand(3, -1, *net.in_shape)
    torch.testing.assert_close(y, net(x, context), rtol=0, atol=1e-13)
    torch.testing.assert_close(push(eye).flatten(2).mT, j, rtol=0, atol=1e-13)
    torch.testing.assert_close(pull(eye[:2]).flatten(2), j[:2], rtol=0, atol=1e-13)
    assert float(torch.linalg.matrix_norm(j, 2).max().detach()) <= net.lipschitz_bound


def test_refresh_follows_the_weights_once():
    net = LipschitzMLP((3,), (3,), hidden=(8,)).double()
    refresh(net)
    before = copy.deepcopy(net.state_dict())
    refresh(net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(5 * torch.randn_like(p))
    x = torch.randn(4, 3, dtype=torch.float64)
    net(x)
    assert net.lipschitz_bound <= net.lipschitz
    before = copy.deepcopy(net.state_dict())
    net(x)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with torch.no_grad():
        net.layers[0].weight.mul_(2).add_(torch.randn_like(net.layers[0].weight))
    # What is compiled, exported or mapped has the norms of the moment.
    torch.func.vmap(lambda x: net(x[None])[0])(x)
    assert torch.equal(net.layers[0].u, before["layers.0.u"])
    refresh(net)
    assert net.lipschitz_bound <= net.lipschitz
    with torch.no_grad():
        net.layers[0].weight.zero_()
    refresh(net)
    assert net(x).isfinite().all()
    with torch.no_grad():
        net.layers[0].weight.copy_(5 * torch.randn_like(net.layers[0].weight))
    refresh(net)
    assert net.lipschitz_bound <= net.lipschitz


def test_gradients_reach_the_weight_through_its_norm():
    layer = LipschitzLinear(3, 3, 0.5).double()
    with torch.no_grad():
        layer.weight.mul_(5)
    layer.refresh()
    # Scaling the weight changes nothing.
    y = F.linear(torch.randn(4, 3, dtype=torch.float64), layer.effective())
    (grad,) = torch.autograd.grad(y.sin().sum(), layer.weight)
    assert abs(float((grad * layer.weight).sum().detach())) < 1e-12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LipschitzMLP((2,), (2,), activation="relu"), "must be one of elu, .*got 'relu'"),
        (lambda: LipschitzMLP((2,), (2,), norm=(2, 1)), "needs 4 numbers"),
        (lambda: LipschitzMLP((2,), (2,), norm="all"), "numbers or 'learned', got 'all'"),
        (lambda: LipschitzMLP((2,), (2,), norm=0.5), "at least 1, got 0.5"),
        (lambda: LipschitzMLP((2,), (2,), activation="clipswish", norm=1), "2-norm only"),
        (lambda: LipschitzMLP((2,), (2,), coeff=0.0), "must be positive, got 0"),
        (lambda: LipschitzDenseNet((2,), (2,), growth=3), "depth >= 1 and a growth"),
        (lambda: LipschitzConv2d((1, 4, 4), 1, 2, 0.9), "kernel must be odd"),
        (lambda: refresh(LipschitzMLP((2,), (2,)), 0.1), "at most 0.001, got 0.1"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_images_only():
    with pytest.raises(ShapeError, match="images"):
        LipschitzConvNet((3,), (3,))
