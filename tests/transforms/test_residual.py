"""Residual transforms: estimators by enumeration, their gradients, bias bounds, memory, inverses, training."""

import copy
import itertools
import math
from functools import partial

import pytest
import torch

import diffeo
from diffeo.distributions import StandardNormal
from diffeo.errors import ConfigError, ConvergenceError, DirectionError, InputError
from diffeo.estimating import with_estimator
from diffeo.evaluation import importance_weighted
from diffeo.fixed_points import recording
from diffeo.nets import MLP, LipschitzConvNet, LipschitzDenseNet, LipschitzMLP
from diffeo.parts import TRAINING_TOLERANCE, refresh
from diffeo.testing import randomize
from diffeo.transforms import Chain, Exact, PowerSeries, Residual, Roulette, Split

ROWS = 2


def signs(d):
    """All vectors of signs, [2^d, d]."""
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=d)), dtype=torch.float64)


NETS = {
    "mlp": lambda: LipschitzMLP((4,), (4,), (2,), hidden=(5, 5), coeff=0.8),
    "elu": lambda: LipschitzMLP((6,), (6,), hidden=(6,), activation="elu", coeff=0.8),
    "dense": lambda: LipschitzDenseNet((3,), (3,), (2,), growth=4, depth=2, coeff=0.8),
    "conv": lambda: LipschitzConvNet((1, 2, 3), (1, 2, 3), (2,), width=3, coeff=0.8),
}


def case(name):
    """A network far from zero, with x, a context and weights of the two outputs."""
    torch.manual_seed(0)
    net = randomize(NETS[name]().double(), scale=6.0)
    x = torch.randn(ROWS, *net.in_shape, dtype=torch.float64, requires_grad=True)
    context = torch.randn(ROWS, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(ROWS, dtype=torch.float64), torch.randn_like(x)
    return net, x, context if net.context_shape else None, weights


def gradients(net, x, context, weights, y, ladj):
    """By x, the context and every parameter, of a loss in which every example has another weight."""
    loss = (weights[0] * ladj).sum() + (weights[1] * y).sum()
    inputs = [x, *net.parameters(), *([] if context is None else [context])]
    return torch.autograd.grad(loss, inputs)


def enumerated(estimator, net, x, context, weights_of_terms):
    """The mean over all probes, every example's terms weighted alike."""
    size = x[0].numel()
    probes = signs(size).reshape(-1, 1, *net.in_shape)
    n = len(probes)
    noise = (
        probes.repeat(len(x), *[1] * (probes.ndim - 1)),
        weights_of_terms.expand(n * len(x), -1),
    )
    many = None if context is None else context.repeat_interleave(n, 0)
    y, ladj = estimator(net, x.repeat_interleave(n, 0), many, noise)
    return y.reshape(len(x), n, *net.in_shape).mean(1), ladj.reshape(len(x), n).mean(1)


def levels(estimator, least=1e-11):
    """Every number of random terms with its probability, and the weights of the terms that it gives."""
    survival = estimator.survival(least)
    exact = torch.ones(estimator.exact_terms, dtype=torch.float64)
    for n in range(len(survival) + 1):
        tail = [*survival[n : n + 1], 0.0][0]
        probability = (survival[n - 1] if n else 1.0) - tail
        terms = 1 / torch.tensor(survival[:n], dtype=torch.float64)
        if probability > 0:
            yield probability, torch.cat((exact, terms))[None]


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("elu", "geometric"),
        ("dense", "poisson"),
        pytest.param("mlp", "geometric", marks=pytest.mark.slow),
        pytest.param("conv", "geometric", marks=pytest.mark.slow),
    ],
)
def test_roulette_is_unbiased_with_its_gradient(name, law):
    """All probes and all numbers of terms until what remains is below 1e-9."""
    net, x, context, weights = case(name)
    estimator = Roulette(law, 0.3 if law == "geometric" else 6.0, exact_terms=1).train()
    y, ladj = Exact()(net, x, context)
    truth = gradients(net, x, context, weights, y, ladj)
    total, sums = torch.zeros_like(ladj), [torch.zeros_like(g) for g in truth]
    for probability, terms in levels(estimator):
        value, found = enumerated(estimator, net, x, context, terms)
        torch.testing.assert_close(value, y)
        total = total + probability * found.detach()
        for s, g in zip(sums, gradients(net, x, context, weights, value, found), strict=True):
            s += probability * g
    assert float(ladj.detach().abs().max()) > 1e-2
    torch.testing.assert_close(total, ladj.detach(), rtol=0, atol=1e-8)
    for s, g in zip(sums, truth, strict=True):
        torch.testing.assert_close(s, g, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["mlp", "dense"])
def test_the_gradient_of_a_series_is_that_of_its_value(name):
    """n terms, all probes: value and gradient of the cut series, by traces of powers; and its bias bound."""
    net, x, context, weights = case(name)
    size = x[0].numel()
    y, push, _ = net.linearize(x, net.prepare(context))
    eye = torch.eye(size, dtype=torch.float64).expand(ROWS, -1, -1)
    j = push(eye)
    exact = Exact()(net, x, context)[1]
    for terms in (1, 2, 5):
        estimator = PowerSeries(terms)
        powers = itertools.accumulate([j] * terms, torch.matmul)
        cut = torch.stack(
            [
                (-1) ** (k + 1) / k * p.diagonal(dim1=1, dim2=2).sum(1)
                for k, p in enumerate(powers, start=1)
            ]
        ).sum(0)
        truth = gradients_kept(net, x, context, weights, y, cut)
        value, found = enumerated(estimator, net, x, context, torch.ones(1, terms).double())
        torch.testing.assert_close(found, cut)
        for a, b in zip(gradients(net, x, context, weights, value, found), truth, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
        bound = estimator.remainder(net.lipschitz_bound, size)
        assert float((found - exact).abs().max().detach()) <= bound
        assert f"{terms} terms" in estimator.bias(net.lipschitz, size)


def gradients_kept(net, x, context, weights, y, ladj):
    loss = (weights[0] * ladj).sum() + (weights[1] * y).sum()
    inputs = [x, *net.parameters(), *([] if context is None else [context])]
    return torch.autograd.grad(loss, inputs, retain_graph=True)


@pytest.mark.parametrize("law", ["geometric", "poisson"])
def test_what_is_drawn_follows_the_law(law):
    estimator = Roulette(law, exact_terms=3, eval_terms=7).train()
    g = torch.Generator().manual_seed(0)
    n = 20_000
    probes, terms = estimator.draw(n, (2,), generator=g, like=torch.zeros((), dtype=torch.float64))
    assert set(probes.unique().tolist()) == {-1.0, 1.0}
    assert bool((terms[:, :3] == 1).all())
    # Weights are 1 on average: P(T >= j) / P(T >= j).
    for j, s in enumerate(estimator.survival()[:4]):
        error = math.sqrt((1 - s) / s / n)
        assert abs(float(terms[:, 3 + j].mean()) - 1) <= 4.5 * error
    counts = (terms != 0).sum(1)
    ordered = torch.arange(terms.shape[1]) < counts[:, None]
    assert torch.equal(ordered, terms != 0)
    assert estimator.eval().draw(2, (2,), like=probes)[1].shape[1] >= 7


def test_examples_keep_their_own_noise_in_chunks_and_in_plain_operations():
    """Sorted by terms or not, in part or as a whole: the same value and gradient, also under weights."""
    net, x, context, _ = case("mlp")
    x, context = x.detach().repeat(8, 1).requires_grad_(), context.detach().repeat(8, 1)
    estimator = Roulette(exact_terms=1).train()
    noise = estimator.draw(len(x), (4,), generator=torch.Generator().manual_seed(3), like=x)
    assert len((noise[1] != 0).sum(1).unique()) > 2
    w = torch.randn(len(x), dtype=torch.float64)

    def outcome(call, chunks=1):
        parts = [
            call(*p) for p in zip(*(t.chunk(chunks) for t in (x, context, *noise)), strict=True)
        ]
        y, ladj = (torch.cat(p) for p in zip(*parts, strict=True))
        grads = torch.autograd.grad((w * ladj).sum() + y.sin().sum(), [x, *net.parameters()])
        return (y, ladj, *grads)

    whole = outcome(lambda x, c, p, t: estimator(net, x, c, (p, t)))
    for other in (
        outcome(lambda x, c, p, t: estimator(net, x, c, (p, t)), 5),
        outcome(lambda x, c, p, t: estimator._traced(net, x, c, p, t)),
    ):
        for a, b in zip(other, whole, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def stored(call):
    """Numbers that autograd keeps while `call` runs."""
    seen = {}

    def keep(t):
        seen[t.data_ptr(), tuple(t.shape)] = t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = call()
    assert out.requires_grad
    return sum(seen.values())


def test_memory_does_not_grow_with_the_number_of_terms():
    net = LipschitzMLP((8,), (8,), hidden=(32, 32))
    x = torch.randn(64, 8)

    def with_terms(n):
        estimator = PowerSeries(n)
        return stored(lambda: estimator(net, x, None, estimator.draw(64, (8,), like=x))[1].sum())

    few, many = with_terms(2), with_terms(40)
    assert few == many
    # Not even the activations of g: x, probes and Neumann vector, beside the weights.
    weights = sum(p.numel() for p in net.parameters())
    assert many < 3 * weights + 4 * x.numel()


def test_second_derivatives_are_refused_by_name():
    net, x, context, _ = case("mlp")
    estimator = PowerSeries(2)
    ladj = estimator(net, x, context, estimator.draw(ROWS, (4,), like=x))[1]
    (first,) = torch.autograd.grad(ladj.sum(), x, create_graph=False, retain_graph=True)
    assert first.isfinite().all()
    with pytest.raises(DirectionError, match=r"Exact\(\)"):
        torch.autograd.grad(ladj.sum(), x, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["picard", "anderson"])
def test_the_error_of_the_inverse_is_bounded(dtype, method):
    net = partial(LipschitzMLP, hidden=(8,), coeff=0.95)
    layer = randomize(Residual((3,), net, estimator=Exact(), method=method).to(dtype), scale=20.0)
    x = 3 * torch.randn(200, 3, dtype=dtype)
    with torch.no_grad():
        z = layer(x)[0]
        found = layer.preimage(z)
        error = (found.x - x).square().mean(1).sqrt()
        eps = torch.finfo(dtype).eps
        # The bound, and the rounding of z, which the inverse enlarges as well.
        rounding = 4 * eps * (1 + x.abs().amax(1)) / (1 - net((3,), (3,)).lipschitz)
        assert bool((error <= found.error_bound(layer.net.lipschitz_bound) + rounding).all())
        assert float(error.max()) < {torch.float32: 1e-4, torch.float64: 1e-12}[dtype]


@pytest.mark.parametrize("given", ["nothing", "context", "embedding"])
@pytest.mark.parametrize("name", ["residual_flow", "impflow"])
def test_round_trips_under_autocast(name, given):
    torch.manual_seed(0)
    settings = {"size": "tiny", "estimator": "exact"}
    settings |= {} if given == "nothing" else {"context_shape": (2,)}
    if given == "embedding":
        settings["embedding"] = partial(MLP, out_shape=(4,), zero_init=False)
    flow = randomize(diffeo.zoo.build(name, (3,), **settings), scale=2.0).eval()
    x, context = torch.randn(50, 3), None if given == "nothing" else torch.randn(50, 2)
    expected = flow.log_prob(x, context)
    with torch.autocast("cpu", torch.bfloat16):
        back = flow.decode(flow.encode(x, context), context)
        found = flow.log_prob(x, context)
    assert (back - x).abs().max() < 1e-4
    # An embedding is no part of the map, and has the digits of its own arithmetic.
    assert (found - expected).abs().max() < (0.2 if given == "embedding" else 1e-4)
    assert torch.equal(flow.log_prob(x, context), expected)


@pytest.mark.parametrize("name", ["residual_flow", "idensenet", "impflow"])
def test_half_precision_has_a_likelihood_and_an_inverse(name):
    torch.manual_seed(0)
    flow = diffeo.zoo.build(name, (3,), size="tiny", estimator="exact").eval()
    x = torch.randn(5, 3)
    expected, half = flow.log_prob(x), copy.deepcopy(flow).bfloat16()
    assert (half.log_prob(x.bfloat16()).float() - expected).abs().max() < 0.2
    refresh(half)
    before = [b.clone() for b in half.buffers()]
    refresh(half)
    assert all(map(torch.equal, half.buffers(), before))


@pytest.mark.parametrize(
    ("name", "settings"), [("residual_flow", {}), ("ffjord", {"adjoint": True})]
)
def test_gradients_taken_under_autocast_have_every_digit(name, settings):
    torch.manual_seed(0)
    flow = randomize(diffeo.zoo.build(name, (3,), size="tiny", **settings), scale=2.0)
    x = torch.randn(20, 3)
    noise = flow.transform.draw(20)
    given = {} if noise is None else {"noise": noise}
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = flow.log_prob(x, **given).mean()
            found.append(torch.autograd.grad(loss, list(flow.parameters()), allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert a is b is None or (a - b).norm() <= 3e-4 * b.norm() + 1e-6


def test_frozen_weights_and_linear_networks_have_scores():
    flow = diffeo.zoo.build("residual_flow", (2,), size="tiny", hidden=()).requires_grad_(False)
    x = torch.randn(5, 2, requires_grad=True)
    assert torch.autograd.grad(flow.log_prob(x).sum(), x)[0].isfinite().all()
    net = LipschitzMLP((2,), (2,), hidden=(4,)).requires_grad_(False)
    layer = Residual((2,), lambda *shapes: net)
    last = net.layers[-1].bias.requires_grad_()
    y, ladj = layer(x.detach())
    torch.testing.assert_close(
        torch.autograd.grad((y.sum() + ladj.sum()), last)[0], torch.tensor([5.0, 5.0])
    )


def test_a_roulette_without_exact_terms_is_unbiased_for_one_example():
    """It often draws no term at all, which is no reason to leave out the gradient of the first."""
    torch.manual_seed(0)
    layer = Residual((2,), partial(LipschitzMLP, hidden=(4,), coeff=0.5)).double()
    layer = randomize(layer, scale=3.0)
    other = Residual((2,), layer.net, estimator=Roulette("poisson", exact_terms=0)).double()
    exact = Residual((2,), layer.net, estimator=Exact()).double()
    weight = layer.net.layers[0].weight
    x = torch.randn(1, 2, dtype=torch.float64)
    (truth,) = torch.autograd.grad(exact(x)[1].sum(), weight)
    draws = [torch.autograd.grad(other(x)[1].sum(), weight)[0] for _ in range(3000)]
    mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 3000**0.5
    assert ((mean - truth).abs() < 5 * error + 1e-9).all()


def test_a_loop_of_ones_own_needs_no_refresh():
    torch.manual_seed(0)
    flow = diffeo.zoo.build("residual_flow", (2,), estimator="exact")
    x = torch.randn(256, 2) * torch.tensor([1.0, 0.05])
    flow.initialize(x)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimizer.step()
    flow.eval()
    before = flow.log_prob(x)
    nets = [m for m in flow.modules() if isinstance(m, LipschitzMLP)]
    assert all(net.lipschitz_bound <= net.lipschitz for net in nets)
    assert (flow.decode(flow.encode(x)) - x).abs().max() < 1e-4
    assert torch.equal(flow.log_prob(x), before)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_look_between_forward_and_backward_changes_no_gradient(compiled):
    torch.manual_seed(0)
    flow = diffeo.zoo.build("residual_flow", (2,), estimator="exact", size="tiny")
    x = torch.randn(16, 2)
    log_prob = torch.compile(flow.log_prob, backend="aot_eager") if compiled else flow.log_prob
    gradients = []
    for look in (False, True):
        flow.train()
        refresh(flow, TRAINING_TOLERANCE)
        with torch.no_grad():
            for p in flow.parameters():
                p.add_(0)
        loss = -log_prob(x).mean()
        if look:
            flow.eval().sample(4)
        gradients.append(torch.autograd.grad(loss, list(flow.parameters()), allow_unused=True))
    for a, b in zip(*gradients, strict=True):
        assert a is b is None or torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def test_a_series_that_is_cut_off_makes_no_bound():
    """An even number of terms is too low where J has negative eigenvalues only, an odd one where it has positive."""
    digits = {"levels": 17, "size": "tiny"}
    kinds = {
        estimator: diffeo.zoo.build("iresnet", (1, 8, 8), estimator=estimator, **digits).likelihood
        for estimator in ("series", "geometric", "exact")
    }
    assert kinds == {"series": "estimate", "geometric": "bound", "exact": "bound"}
    flow = diffeo.zoo.build("iresnet", (1, 8, 8), estimator="geometric", **digits)
    with pytest.raises(InputError, match="importance weighting needs exact log-determinants"):
        importance_weighted(flow, torch.zeros(2, 1, 8, 8, dtype=torch.long), samples=2)


class Decode(torch.nn.Module):
    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, z):
        return self.flow.decode(z)


@pytest.mark.parametrize("name", ["residual_flow", "impflow"])
def test_inverses_are_exported_and_mapped(name):
    flow = diffeo.zoo.build(name, (3,), size="tiny", coeff=0.6, estimator="exact")
    flow = randomize(flow.double(), scale=3.0).eval()
    z = torch.randn(4, 3, dtype=torch.float64)
    x = flow.decode(z)
    assert (x - z).abs().max() > 0.1
    with torch.no_grad():
        program = torch.export.export(Decode(flow), (z,))
    assert (program.module()(z) - x).abs().max() < 1e-12

    def alone(z):
        return flow.decode(z[None])[0]

    assert (torch.func.vmap(alone)(z) - x).abs().max() < 1e-12
    slope = torch.func.vmap(torch.func.jacrev(lambda z: flow.transform.inverse(z[None])[0][0]))(z)
    there = torch.func.vmap(torch.func.jacrev(lambda x: flow.transform(x[None])[0][0]))(x)
    assert (slope @ there - torch.eye(3)).abs().max() < 1e-10


@pytest.mark.parametrize("name", NETS)
def test_inverses_compile_as_one_graph(name):
    net, z, context, _ = case(name)
    layer = Residual(
        net.in_shape, lambda *shapes: net, estimator=Exact(), context_shape=net.context_shape
    )
    compiled = torch.compile(
        lambda *args: layer.inverse(*args), fullgraph=True, backend="aot_eager"
    )
    with torch.no_grad():
        for found, one in zip(compiled(z, context), layer.inverse(z, context), strict=True):
            torch.testing.assert_close(found, one, rtol=0, atol=1e-12)


def test_rows_that_are_not_finite_leave_the_gradients_of_others():
    torch.manual_seed(0)
    layer = Residual((3,), partial(LipschitzMLP, hidden=(8,)), estimator=Exact()).double()
    z = torch.randn(4, 3, dtype=torch.float64)
    broken = z.clone()
    broken[0] = math.nan
    found, expected = (
        torch.autograd.grad(layer.inverse(v)[0][1:].sum(), list(layer.parameters()))
        for v in (broken, z)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_an_inverse_that_does_not_exist_is_an_error_that_names_the_layer():
    layer = Residual((2,), partial(LipschitzMLP, hidden=(4,)), estimator=Exact()).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(50)
    refresh(layer)
    # What the norms come from is lost.
    for operator in layer.net.layers[::2]:
        operator.u.zero_()
    with pytest.raises(ConvergenceError, match=r"Residual\(2,\)"):
        layer.inverse(torch.tensor([[3.0, -2.0]], dtype=torch.float64))
    refresh(layer)
    z = torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(layer(layer.inverse(z)[0])[0], z)


def test_an_unknown_method_is_refused_at_once():
    with pytest.raises(
        ConfigError, match=r"Residual\(2,\): method must be one of picard, .* 'newton'"
    ):
        Residual((2,), LipschitzMLP, method="newton")


def test_what_a_residual_refuses():
    with pytest.raises(ConfigError, match="Lipschitz constant, such as LipschitzMLP, got MLP"):
        Residual((2,), partial(MLP, hidden=(4,)))
    with pytest.raises(ConfigError, match=r"below 1, and that of its network is 1\.21"):
        Residual((2,), partial(LipschitzMLP, hidden=(4,), coeff=1.1))
    for wrong in (
        lambda: PowerSeries(0),
        lambda: PowerSeries(2, probes=0),
        lambda: Roulette("uniform"),
        lambda: Roulette("geometric", 1.5),
        lambda: Roulette(exact_terms=-1),
        lambda: diffeo.zoo.build("iresnet", (2,), size="tiny", depth=0),
    ):
        with pytest.raises(ConfigError):
            wrong()


@pytest.mark.parametrize(("name", "depth"), [("residual_flow", 1), ("impflow", 2)])
def test_a_flow_with_another_estimator_shares_its_weights(name, depth):
    flow = diffeo.zoo.build(name, (2,), size="tiny", depth=depth).double().eval()
    randomize(flow)
    exact = with_estimator(flow, Exact())
    assert (flow.likelihood, exact.likelihood) == ("estimate", "exact")
    assert {id(p) for p in flow.parameters()} == {id(p) for p in exact.parameters()}
    x = torch.randn(5, 2, dtype=torch.float64)
    many = flow.log_prob(x.expand(400, 5, 2), generator=torch.Generator().manual_seed(0))
    error = many.std(0) / math.sqrt(400)
    assert bool(((many.mean(0) - exact.log_prob(x)).abs() < 4.5 * error + 1e-9).all())
    with pytest.raises(ConfigError, match="no layer whose log"):
        with_estimator(diffeo.zoo.build("nice", (2,), size="tiny"), Exact())


def test_training_keeps_the_bounds_and_the_files():
    """After fit the certificate holds, the loaded flow is the same bit for bit, and round trips close."""
    torch.manual_seed(0)
    flow = diffeo.zoo.build("residual_flow", (2,), size="tiny", depth=1)
    x = torch.randn(128, 2) * torch.tensor([3.0, 0.3])
    diffeo.fit(flow, x, steps=12, batch_size=32, lr=0.1, ema=0.9, progress=False)
    layers = [m for m in flow.modules() if isinstance(m, Residual)]
    assert all(m.net.lipschitz_bound <= m.net.lipschitz for m in layers)
    with recording() as found:
        again = flow.decode(flow.encode(x))
    assert len(found) == len(layers)
    assert float((again - x).detach().abs().max()) < 1e-4


def test_saved_and_loaded_it_is_the_same(tmp_path):
    flow = diffeo.zoo.build("idensenet", (2,), size="tiny", estimator="exact").eval()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn_like(p))
    flow.save(tmp_path)
    x = torch.randn(4, 2)
    assert torch.equal(diffeo.load(tmp_path).log_prob(x), flow.log_prob(x))


def test_convolutions_go_to_another_size_with_norms_of_their_own():
    """The norm of a convolution depends on the size of the picture: its power iteration begins anew."""
    torch.manual_seed(0)
    net = partial(LipschitzConvNet, width=4, coeff=0.9)
    flow = diffeo.Flow(
        Chain((1, 4, 4), [partial(Residual, net=net)] * 2), StandardNormal((1, 4, 4))
    )
    flow = flow.double().eval()
    randomize(flow)
    refresh(flow)
    larger = flow.resized((1, 6, 5))
    assert {id(p) for p in flow.parameters()} == {id(p) for p in larger.parameters()}
    for layer in larger.transform:
        assert layer.net.lipschitz_bound <= layer.net.lipschitz
    x = torch.randn(3, 1, 6, 5, dtype=torch.float64)
    assert torch.allclose(larger.decode(larger.encode(x)), x, atol=1e-9)


def test_noise_reaches_residual_layers_behind_a_split():
    inner = partial(Residual, net=partial(LipschitzMLP, hidden=(4,)), estimator=PowerSeries(2))
    chain = Chain((4,), [inner, partial(Split, rest=inner)])
    assert chain.stochastic
    z, ladj = chain(torch.randn(3, 4), None, chain.draw(3))
    assert z.shape == (3, 4)
    assert ladj.isfinite().all()
    assert "2 terms" in chain.properties.bias


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iresnet", "residual_flow", "idensenet"])
def test_a_step_of_the_published_size(name):
    """The published number of parameters, and one step of a real picture."""
    flow = diffeo.zoo.build(name, (3, 32, 32), size="paper")
    counts = {"iresnet": 25.0, "residual_flow": 25.2, "idensenet": 25.34}
    assert flow.num_parameters / 1e6 == pytest.approx(counts[name], abs=0.06)
    x = torch.randint(0, 256, (2, 3, 32, 32)).byte()
    flow.initialize(x)
    flow.train()
    loss = -flow.log_prob(x).mean()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())
