"""Variational dequantization: q is the density it says, P sums to one, and bounds are bounds that tighten."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from tests.conformance.flowpp import SLOW_FLOWS
from tests.conformance.table import FLOWS

import diffeo
from diffeo.errors import ConfigError, InputError, ShapeError
from diffeo.evaluation import importance_weighted
from diffeo.families import Affine
from diffeo.flow import Flow
from diffeo.testing import check_flow, randomize
from diffeo.transforms import (
    ActNorm,
    Chain,
    Coupling,
    Dequantize,
    Elementwise,
    Flatten,
    VariationalDequantize,
)
from diffeo.zoo.dequantization import variational_dequantize


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def pair():
    """A flow over two integers of three levels, far from its initialization."""
    return randomize(FLOWS["by_hand/variational-integers-2"]().double().eval(), 1, 0.7)


def _all_pairs():
    return torch.cartesian_prod(torch.arange(3), torch.arange(3))


@torch.no_grad()
def _probabilities(flow, n=200):
    """P of all pairs: the midpoint rule over u, of the exact continuous flow."""
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    u = torch.cartesian_prod(axis, axis)
    return torch.stack([flow.continuous.log_prob(x + u).exp().mean() for x in _all_pairs()])


def test_a_new_dequantizer_is_uniform_dequantization():
    layer = variational_dequantize((3, 2, 4), 256, width=4).double().eval()
    x, eps = torch.randint(0, 256, (5, 3, 2, 4)), torch.randn(5, 3, 2, 4, dtype=torch.float64)
    v, ladj = layer(x, None, eps)
    w, _ = Dequantize((3, 2, 4), 256)(x, None, torch.special.ndtr(eps))
    assert (v - w).abs().max() < 1e-12
    assert ladj.abs().max() < 1e-10


@pytest.mark.parametrize("context", [None, (2,)])
def test_ladj_is_minus_log_q(context):
    """log q(u | x) = log N(eps) - log|det du/deps|, the last by autograd."""
    layer = variational_dequantize((1, 2, 2), 5, width=4, context_shape=context)
    layer = randomize(layer.double().eval(), 3)
    x = torch.randint(0, 5, (4, 1, 2, 2))
    c = None if context is None else torch.randn(4, *context, dtype=torch.float64)
    eps = layer.draw(4, like=torch.zeros((), dtype=torch.float64))
    _, ladj = layer(x, c, eps)
    for i in range(4):
        one = None if c is None else c[i : i + 1]
        j = torch.autograd.functional.jacobian(
            lambda e, one=one, i=i: layer(x[i : i + 1], one, e)[0].flatten(), eps[i : i + 1]
        ).reshape(4, 4)
        log_normal = -0.5 * (eps[i].square() + math.log(2 * math.pi)).sum()
        log_q = log_normal - torch.linalg.slogdet(j)[1]
        assert abs((ladj[i] + log_q).item()) < 1e-9


def test_noise_stays_in_its_bin_at_the_ends():
    for dtype in (torch.float32, torch.float64):
        for shift in (-60.0, 60.0):
            layer = VariationalDequantize((3,), 256, transform=ActNorm((3,))).to(dtype)
            torch.nn.init.constant_(layer.transform.shift, shift)
            x = torch.tensor([[0, 128, 255]])
            v, ladj = layer(x, None, torch.zeros(1, 3, dtype=dtype))
            assert torch.equal(layer.inverse(v)[0].long(), x)
            assert ladj.isfinite().all()


def test_probabilities_sum_to_one_and_weights_are_unbiased(pair):
    p = _probabilities(pair)
    assert abs(float(p.sum()) - 1) < 1e-3
    n = 20_000
    with torch.no_grad():
        w = pair.log_prob(
            _all_pairs().expand(n, -1, -1), generator=torch.Generator().manual_seed(1)
        ).exp()
    error = w.std(0) / math.sqrt(n)
    assert ((w.mean(0) - p).abs() < 5 * error + 1e-4).all()
    total = w.sum(1)
    assert abs(float(total.mean()) - 1) < 5 * float(total.std()) / math.sqrt(n) + 1e-3


def test_the_bound_is_below_log_p_and_tightens_with_k(pair):
    log_p = _probabilities(pair).log()
    repeats, most = 400, 64
    x = _all_pairs()
    with torch.no_grad():
        w = pair.log_prob(
            x.expand(most, repeats, -1, -1), generator=torch.Generator().manual_seed(2)
        )
    # The same draws, in groups of K: the means over groups are paired.
    bounds = [
        (w.reshape(most // k, k, repeats, len(x)).logsumexp(1) - math.log(k)).mean(0)
        for k in (1, 4, 16, 64)
    ]
    for k, (loose, tight) in zip((1, 4, 16), pairwise(bounds), strict=True):
        gain = (tight - loose).mean(1)
        assert float(gain.mean()) > 4 * float(gain.std()) / math.sqrt(repeats), k
    for bound in bounds:
        gap = log_p - bound.mean(0)
        error = bound.std(0) / math.sqrt(repeats)
        assert (gap > -4 * error - 1e-4).all()
    assert float((log_p - bounds[0].mean(0)).mean()) > 0.01


def test_importance_weighted_is_the_mean_of_the_weights_in_any_chunks(pair):
    x = _all_pairs()

    def draws(*counts):
        g = torch.Generator().manual_seed(3)
        return torch.cat([pair.log_prob(x.expand(k, -1, -1), generator=g) for k in counts])

    largest = []
    handle = pair.transform.register_forward_pre_hook(lambda _, a: largest.append(len(a[0])))
    found = importance_weighted(
        pair, x, samples=10, batch_size=20, generator=torch.Generator().manual_seed(3)
    )
    handle.remove()
    assert max(largest) <= 20
    expected = draws(2, 2, 2, 2, 2).logsumexp(0) - math.log(10)
    assert found.shape == (9,)
    assert found.dtype == torch.float64
    assert torch.allclose(found, expected, atol=1e-12)
    one = importance_weighted(pair, x, samples=1, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(one, draws(1)[0])
    assert importance_weighted(pair, x[0], samples=3).shape == ()
    with pytest.raises(InputError, match="exact"):
        importance_weighted(pair.continuous, x.double(), samples=2)
    with pytest.raises(InputError, match="at least 1"):
        importance_weighted(pair, x, samples=0)


def test_the_context_reaches_the_noise_in_importance_weighting():
    flow = diffeo.zoo.build("realnvp", (1, 2, 4), (2,), "tiny", dequantization="variational")
    flow = flow.double().eval()
    x, c = torch.randint(0, 256, (3, 1, 2, 4)), torch.randn(3, 2, dtype=torch.float64)
    assert importance_weighted(flow, x, c, samples=5, batch_size=4).shape == (3,)

    many = importance_weighted(flow, x[0], c, samples=3, generator=torch.Generator().manual_seed(1))
    each = importance_weighted(
        flow, x[:1].expand_as(x), c, samples=3, generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(many, each)


def test_encode_takes_the_middle_of_the_bin_whatever_the_noise_has_learned():
    x = torch.randint(0, 256, (16, 1, 4, 4))
    x[0], x[1] = 0, 255
    for dtype in (torch.float32, torch.float64):
        flow = diffeo.zoo.build("flowpp", (1, 4, 4), size="tiny").to(dtype).eval()
        randomize(flow.transform.parts[0], scale=4.0)
        assert torch.equal(flow.decode(flow.encode(x)).long(), x)
        v = (x + 0.5).to(dtype)
        assert torch.equal(flow.encode(x), flow.continuous.encode(v))


def test_the_dequantizer_trains_with_the_flow():
    flow = diffeo.zoo.build(
        "realnvp", (1, 4, 4), size="tiny", dequantization="variational", levels=4
    )
    first = next(iter(flow.transform))
    before = {k: v.clone() for k, v in first.named_parameters()}
    x = torch.randint(0, 4, (64, 1, 4, 4), dtype=torch.uint8)
    diffeo.fit(flow, x, steps=4, batch_size=16, progress=False)
    last = [k for k, v in first.named_parameters() if k.startswith("transform.") and "last" in k]
    assert last
    moved = {k for k, v in first.named_parameters() if not torch.equal(v, before[k])}
    assert set(last) & moved
    assert torch.equal(flow.decode(flow.encode(x)), x)


def test_resized_shares_the_dequantizer():
    flow = diffeo.zoo.build(
        "realnvp", (1, 4, 8), size="tiny", dequantization="variational", scales=1
    )
    flow = randomize(flow.double().eval(), 0, 0.3)
    larger = flow.resized((1, 8, 16))
    x = torch.randint(0, 256, (2, 1, 8, 16))
    assert larger.log_prob(x).shape == (2,)
    ours, theirs = (
        {p.data_ptr() for p in next(iter(f.transform)).parameters()} for f in (flow, larger)
    )
    assert ours == theirs
    # A picture as context follows the size; other contexts stay.
    for shape, expected in (((2, 4, 8), (2, 8, 16)), ((3,), (3,))):
        flow = diffeo.zoo.build(
            "realnvp", (1, 4, 8), shape, "tiny", dequantization="variational", scales=1
        )
        larger = flow.resized((1, 8, 16))
        assert larger.context_shape == expected
        assert larger.log_prob(x, torch.randn(2, *expected)).shape == (2,)


def test_parts_that_do_not_fit_are_named():
    make = partial(VariationalDequantize, (4,), 5)
    coupling = partial(Coupling, (4,), context_shape=(2,))
    with pytest.raises(ConfigError, match="Transform"):
        make(transform=Affine())
    with pytest.raises(ShapeError, match="goes from"):
        make(transform=ActNorm((3,)))
    with pytest.raises(ShapeError, match="takes the context"):
        make(transform=coupling())
    with pytest.raises(ConfigError, match="not exact"):
        make(transform=Dequantize((4,)))
    with pytest.raises(ConfigError, match="'uniform' or 'variational'"):
        diffeo.zoo.build("realnvp", (1, 4, 4), size="tiny", dequantization="none")


def _through(preprocessing, body):
    """A flow over 32 levels: the preprocessing, then the same layers."""
    return Flow(Chain((1, 2, 4), [*preprocessing, *body])).double().eval()


def test_equivalent_preprocessings_give_the_same_number():
    """The same density of integers, written in other units before the same layers."""
    from diffeo.families import Logit, Rescale

    shape = (1, 2, 4)
    rest = randomize(Chain(shape, [ActNorm, Flatten, Coupling]), 4, 0.5)

    def scaled(*intervals):
        return [Elementwise(shape, Rescale(a, b)) for a, b in pairwise(intervals)]

    first = randomize(variational_dequantize(shape, 32, width=4), 5)
    unit, bytes_, around = (0.0, 1.0), (0.0, 256.0), (-0.5, 0.5)
    ways = [
        [first, *scaled((0.0, 32.0), unit), Elementwise(shape, Logit(0.05))],
        [first, *scaled((0.0, 32.0), around, unit), Elementwise(shape, Logit(0.05))],
        [first, *scaled((0.0, 32.0), bytes_, unit), Elementwise(shape, Logit(0.05))],
        # alpha + (1 - 2 alpha) x as a rescaling, then a logit without alpha.
        [first, *scaled((0.0, 32.0), (0.05, 0.95)), Elementwise(shape, Logit(0.0))],
    ]
    x = torch.randint(0, 32, (6, *shape))
    noise = torch.randn(6, *shape, dtype=torch.float64)
    found = []
    for way in ways:
        flow = _through(way, [rest])
        parts = len(flow.transform)
        found.append(flow.log_prob(x, noise=(noise, *[None] * (parts - 1))))
    for other in found[1:]:
        assert (other - found[0]).abs().max() < 1e-9
    # The published accounting, by hand: log p(x + u) of the model of [0, 1] in the units of the 32 levels, less log q.
    v, ladj = first(x, None, noise)
    p = 0.05 + 0.9 * v / 32
    z, inner = rest((p / (1 - p)).log())
    by_hand = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum(1) + inner + ladj
    by_hand = by_hand + (math.log(0.9 / 32) - p.log() - (1 - p).log()).flatten(1).sum(1)
    assert (by_hand - found[0]).abs().max() < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_FLOWS)
def test_other_flows(name):
    check_flow(SLOW_FLOWS[name]())
