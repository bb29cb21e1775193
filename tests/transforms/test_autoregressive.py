"""Autoregressive transforms: who sees whom, the inverses that agree, and densities known by formula."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch
from tests.conformance.autoregressive import CONDITIONERS, DIAMOND, TRANSFORMS
from torch import Tensor

from diffeo.errors import ConfigError, ShapeError
from diffeo.families import Affine, Inverted, Logit
from diffeo.flow import Flow
from diffeo.nets import MADE, MLP, AutoregressiveConditioner, ResidualMADE
from diffeo.testing import randomize
from diffeo.transforms import Autoregressive, Chain, Inverse
from diffeo.transforms import autoregressive_inverse as solvers


def _random(layer: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return randomize(copy.deepcopy(layer).double().eval(), seed)


def _seen(net: AutoregressiveConditioner, context: Any = None) -> Tensor:
    """Which outputs depend on which inputs, [entries, entries], by autograd at 20 points."""
    n = net.entries
    x = torch.randn(20, *net.in_shape, dtype=torch.float64, requires_grad=True)
    out = net(x, context).reshape(20, n, -1)
    rows = [torch.autograd.grad(out[:, i].sum(), x, retain_graph=True, materialize_grads=True,
                                allow_unused=True)[0] for i in range(n)]  # fmt: skip
    return torch.stack([r.reshape(20, n).abs().amax(0) for r in rows]) > 0


@pytest.mark.parametrize("name", CONDITIONERS)
def test_outputs_see_only_earlier_stages(name: str) -> None:
    net = _random(CONDITIONERS[name]())
    shape = net.context_shape
    context = None
    if isinstance(shape, dict):
        context = {k: torch.randn(20, *s, dtype=torch.float64) for k, s in shape.items()}
    elif shape is not None:
        context = torch.randn(20, *shape, dtype=torch.float64)
    stage = torch.empty(net.entries, dtype=torch.long)
    for k, entries in enumerate(net.stages):
        stage[list(entries)] = k
    seen = _seen(net, context)
    assert not bool((seen & (stage[:, None] <= stage[None])).any())
    assert bool(seen.any())


@pytest.mark.parametrize(
    "kind", [partial(MADE, hidden=(16, 16), activation="tanh"), partial(ResidualMADE, width=16)]
)
def test_every_entry_sees_what_it_may(kind: Any) -> None:
    chain = torch.ones(5, 5).tril(-1).bool()
    order = [3, 1, 4, 0, 2]
    rank = torch.tensor(order).argsort()
    net = _random(kind((5,), (5, 2), order=order))
    assert torch.equal(_seen(net), chain[rank][:, rank])
    graph = _random(kind((5,), (5, 2), adjacency=DIAMOND))
    assert torch.equal(_seen(graph), torch.tensor(DIAMOND).bool())
    assert [set(s) for s in graph.stages] == [{0, 4}, {1, 2}, {3}]


@pytest.mark.parametrize("hidden", [(), (2,), (8, 8)])
@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize("kind", [MADE, ResidualMADE])
def test_context_reaches_every_entry(n: int, hidden: Any, kind: Any) -> None:
    """Also the first one, in one dimension, without hidden layers, with fewer units than entries."""
    options = {"hidden": hidden} if kind is MADE else {"width": 3, "blocks": len(hidden)}
    net = _random(kind((n,), (n, 2), (2,), activation="tanh", **options))
    context = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    out = net(torch.randn(9, n, dtype=torch.float64), context)
    for i in range(n):
        (grad,) = torch.autograd.grad(out[:, i].sum(), context, retain_graph=True)
        assert bool((grad != 0).any(0).all()), i


LARGER = {
    "many stages": lambda: Autoregressive(
        (75,), None, partial(MADE, hidden=(40, 90)), order="random", context_shape=(2,)
    ),
    "residual": lambda: Autoregressive((40,), None, partial(ResidualMADE, width=50, blocks=2)),
}


@pytest.mark.parametrize("name", [n for n in TRANSFORMS if n.startswith("auto")] + list(LARGER))
def test_solvers_agree(name: str) -> None:
    layer = _random((TRANSFORMS | LARGER)[name]())
    context: Any = None
    if isinstance(layer.context_shape, dict):
        context = {k: torch.randn(3, *s).double() for k, s in layer.context_shape.items()}
    elif layer.context_shape is not None:
        context = torch.randn(3, *layer.context_shape).double()
    z = torch.randn(3, *layer.event_shape, dtype=torch.float64)
    layer.solver = "sequential"
    with torch.no_grad():
        x, ladj = layer.inverse(z, context)
    for solver in ("incremental", "fixed_point"):
        if solver == "incremental" and not layer.net.incremental:
            continue
        for grad in (True, False):
            layer.solver = solver
            with torch.set_grad_enabled(grad):
                found = layer.inverse(z, context)
            torch.testing.assert_close(found[0].detach(), x, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(found[1].detach(), ladj, rtol=1e-10, atol=1e-10)
            assert found[0].requires_grad == grad


@pytest.mark.parametrize("solver", ["auto", "incremental", "fixed_point"])
def test_float32_round_trip(solver: Any) -> None:
    layer = Autoregressive((70,), None, partial(MADE, hidden=(70, 70)), solver=solver)
    layer = randomize(layer, 0, 0.5).eval()
    x = torch.randn(16, 70)
    with torch.no_grad():
        z, ladj = layer(x)
        back, minus = layer.inverse(z)
    assert float((back - x).abs().max()) < 1e-4
    assert float((minus + ladj).abs().max()) < 1e-3


def test_fixed_point_gives_nan_only_where_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN in one row stays there, and the sweeps that it stops are done stage by stage."""
    monkeypatch.setattr(solvers, "WINDOW", 4)
    monkeypatch.setattr(solvers, "ADVANCE", 2)
    layer = _random(Autoregressive((9,), None, partial(MADE, hidden=(12,)), solver="fixed_point"))
    z = torch.randn(3, 9, dtype=torch.float64)
    with torch.no_grad():
        expected = layer.inverse(z)[0]
        z[1, 5] = torch.nan
        found = layer.inverse(z)[0]
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]], rtol=1e-12, atol=1e-12)
    assert bool(found[1, 5].isnan())


@pytest.mark.parametrize("name", LARGER)
def test_blocked_sweeps_agree(name: str) -> None:
    """What torch.compile runs, with its gradients."""
    layer = _random(LARGER[name]())
    z = torch.randn(3, *layer.event_shape, dtype=torch.float64)
    context = None if layer.context_shape is None else torch.randn(3, 2, dtype=torch.float64)
    results = []
    for solve in (solvers.sequential, solvers.blocked):
        x, ladj = solve(layer.family.inverse, layer.net, z, context)
        results.append((x, ladj, *torch.autograd.grad((x.sin() + ladj).sum(), layer.parameters())))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)


def test_inverse_under_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "BLOCK", 2)
    layer = _random(Autoregressive((3,), None, partial(MADE, hidden=(4,))))
    z = torch.randn(4, 3, dtype=torch.float64)
    with torch.no_grad():
        compiled = torch.compile(lambda z: layer.inverse(z), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(z), layer.inverse(z))


def test_conditional_of_the_paper() -> None:
    """p(x2) = N(0, 4), p(x1 | x2) = N(x2^2 / 4, 1): one layer that sees x2 first gives the exact density."""

    class Parabola(AutoregressiveConditioner):
        stages = ((1,), (0,))

        def forward(self, x: Tensor, context: Any = None) -> Tensor:
            zero = torch.zeros_like(x[:, 1])
            mean = torch.stack([x[:, 1] ** 2 / 4, zero], 1)
            log_scale = torch.stack([zero, zero + math.log(2.0)], 1)
            return torch.stack([mean, log_scale], -1)

    flow = Flow(Autoregressive((2,), Inverted(Affine("exp")), Parabola((2,), (2, 2)))).double()
    x = torch.randn(50, 2, dtype=torch.float64) * 2
    normal = torch.distributions.Normal
    exact = normal(0.0, 2.0).log_prob(x[:, 1]) + normal(x[:, 1] ** 2 / 4, 1.0).log_prob(x[:, 0])
    torch.testing.assert_close(flow.log_prob(x), exact)
    torch.testing.assert_close(flow.decode(flow.encode(x)), x)


def test_linear_networks_are_cholesky() -> None:
    """Means linear in the entries before, constant scales: N(0, L L^T) with L read off the conditionals."""
    torch.manual_seed(0)
    a = torch.randn(4, 4, dtype=torch.float64)
    cov = a @ a.T + torch.eye(4, dtype=torch.float64)
    precision_factor = torch.linalg.inv(torch.linalg.cholesky(cov))  # z = L^-1 x
    layer = Autoregressive((4,), Inverted(Affine("exp")), partial(MADE, hidden=())).double()
    d = precision_factor.diagonal()
    last = layer.net.layers[-1]
    with torch.no_grad():
        last.weight[:4] = -precision_factor.tril(-1) / d[:, None]
        last.weight[4:] = 0
        last.bias[:4] = 0
        last.bias[4:] = -d.log()
    x = torch.randn(20, 4, dtype=torch.float64)
    exact = torch.distributions.MultivariateNormal(torch.zeros(4).double(), cov).log_prob(x)
    torch.testing.assert_close(Flow(layer).double().log_prob(x), exact)


def test_iaf_is_maf_with_roles_swapped() -> None:
    net = _random(MADE((5,), (5, 2), hidden=(16,)))
    maf = Autoregressive((5,), Inverted(Affine()), net)
    iaf = Inverse(maf)
    x = torch.randn(6, 5, dtype=torch.float64)
    z, ladj = maf(x)
    back, minus = iaf(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(minus, -ladj)
    both = Chain((5,), [maf, iaf])
    torch.testing.assert_close(both(x)[0], x)


def test_properties() -> None:
    layer = Autoregressive((3,))
    assert layer.properties.forward == "analytic"
    assert layer.properties.inverse == "sequential"
    assert Inverse(layer).properties.forward == "sequential"
    unit = Autoregressive((3,), Affine(), MADE).properties
    assert not unit.constant_ladj


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: MADE((3,), (3, 2), order=[0, 0, 1]), ConfigError, "order must be"),
        (lambda: MADE((2,), (2, 2), adjacency=[[0, 1], [1, 0]]), ConfigError, "cycle"),
        (lambda: MADE((2,), (2, 2), adjacency=[[1, 0], [1, 0]]), ConfigError, "cycle"),
        (lambda: MADE((3,), (3, 2), adjacency=[[0, 1], [1, 0]]), ConfigError, "3 x 3"),
        (lambda: MADE((2,), (2, 2), order="given", adjacency=[[0, 0], [1, 0]]), ConfigError, "not both"),
        (lambda: MADE((3,), (4, 2)), ShapeError, "each entry"),
        (lambda: Autoregressive((3,), None, MLP), ConfigError, "declares its order"),
        (lambda: Autoregressive((3,), Logit()), ConfigError, "no parameters"),
        (lambda: Autoregressive((3,), None, MADE((3,), (3, 2)), order="reverse"), ConfigError, "has its own"),
        (lambda: Autoregressive((3,), solver="best"), ConfigError, "solver must be"),
    ],
)  # fmt: skip
def test_errors(make: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("name", CONDITIONERS)
def test_networks_are_built_on_the_meta_device(name: str) -> None:
    here = CONDITIONERS[name]()
    with torch.device("meta"):
        there = CONDITIONERS[name]()
    assert all(p.is_meta for p in (*there.parameters(), *there.buffers()))
    assert len(there.stages) == len(here.stages)


def test_filling_buffers_leaves_parameters_and_vmap_alone() -> None:
    layer = _random(Autoregressive((5,), None, partial(MADE, hidden=(6, 6)), context_shape=(2,)))
    before = copy.deepcopy(layer.state_dict())
    z, context = torch.randn(1, 5).double(), torch.randn(1, 2).double()
    with torch.no_grad():
        expected = layer.inverse(z, context)
        mapped = torch.func.vmap(lambda c: layer.inverse(z, c))(context[None])
    torch.testing.assert_close(mapped[0][0], expected[0])
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
