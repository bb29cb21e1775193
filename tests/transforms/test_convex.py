"""Convex potential transforms: the estimators enumerated, the inverse, and the optimal map between two Gaussians."""

from __future__ import annotations

import copy
import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import diffeo
from diffeo.errors import ConfigError, ConvergenceError, DirectionError, ShapeError
from diffeo.nets import ICNN, MLP, ConvICNN
from diffeo.testing import randomize
from diffeo.testing.randomize import draw_context
from diffeo.transforms import ConvexPotential

CASES: dict[str, Any] = {
    "vector": partial(ConvexPotential, (5,), partial(ICNN, hidden=(4, 4))),
    "context": partial(
        ConvexPotential, (3,), partial(ICNN, hidden=(4, 3), context_width=3), context_shape=(2,)
    ),
    "image": partial(ConvexPotential, (1, 2, 3), partial(ConvICNN, hidden=(3, 2))),
}


def pair(name: str, scale: float = 2.0, **options: Any) -> tuple[ConvexPotential, ConvexPotential]:
    """The same map with the exact log-determinant and with the estimate."""
    exact = randomize(CASES[name](estimator="exact").double(), 0, scale)
    estimate = CASES[name](estimator="lanczos", **options).double()
    estimate.load_state_dict(exact.state_dict())
    return exact, estimate


def inputs(t: ConvexPotential, n: int = 3) -> tuple[Tensor, Any]:
    g = torch.Generator().manual_seed(1)
    x = 2 * torch.randn(n, *t.event_shape, generator=g, dtype=torch.float64)
    return x, draw_context(t.context_shape, n, 0)


def all_signs(t: ConvexPotential, n: int) -> Tensor:
    size = t.event_shape[0] if len(t.event_shape) == 1 else 6
    return (
        torch.tensor(list(itertools.product((-1.0, 1.0), repeat=size))).double().expand(n, -1, -1)
    )


@pytest.mark.parametrize("name", CASES)
def test_mean_over_all_probes_is_exact_with_every_gradient(name: str) -> None:
    """Value, and the gradient by x and every parameter under unequal weights of the examples, to 1e-8."""
    exact, estimate = pair(name, tolerance=1e-14)
    x, context = inputs(exact)
    weights = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64)
    found = []
    for t, more in ((exact, ()), (estimate, (all_signs(estimate, len(x)),))):
        point = x.clone().requires_grad_()
        ladj = t(point, context, *more)[1]
        grads = torch.autograd.grad(
            (weights * ladj).sum(), [point, *t.parameters()], materialize_grads=True
        )
        found.append((ladj, *grads))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-8)
    assert all(g.abs().max() > 0 for g in (found[0][1], found[0][-1]))


def test_few_steps_are_too_low_in_expectation() -> None:
    exact, estimate = pair("vector", scale=3.0, steps=1)
    x, _ = inputs(exact)
    low = estimate(x, None, all_signs(estimate, len(x)))[1]
    assert bool((low < exact(x)[1]).all())
    assert exact.properties.kind == "exact"
    assert estimate.properties.kind == "estimate"
    assert "1 Lanczos steps" in estimate.properties.bias


def test_memory_does_not_grow_with_the_steps() -> None:
    saved = []
    for steps in (1, 4, 12):
        _, t = pair("vector", steps=steps, tolerance=1e-14)
        x, _ = inputs(t)
        sizes: list[int] = []

        def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            t(x, None, t.draw(len(x)).double())
        saved.append(sum(sizes))
    assert saved[0] == saved[1] == saved[2] > 0


@pytest.mark.parametrize("name", CASES)
def test_round_trips(name: str) -> None:
    for t in pair(name, scale=3.0):
        x, context = inputs(t, 8)
        with torch.no_grad():
            z = t(x, context)[0]
            assert torch.allclose(t.inverse(z, context)[0], x, rtol=1e-9, atol=1e-9)
            single = copy.deepcopy(t).float()
            c = None if context is None else context.float()
            back = single.inverse(single(x.float(), c)[0], c)[0]
            singular = torch.linalg.eigvalsh(t._at(x, context)[1]())
            worst = (back - x).flatten(1).norm(dim=1) / (1 + x.flatten(1).norm(dim=1))
            assert bool((worst <= 1e-4 * singular[:, -1] / singular[:, 0]).all())


def test_both_inverses_have_the_same_gradients() -> None:
    exact, estimate = pair("context")
    z, context = inputs(exact)
    found = []
    for t in (exact, estimate):
        y = z.clone().requires_grad_()
        x = t.inverse(y, context)[0]
        total = (x * torch.arange(9.0).reshape(3, 3)).sum()
        found.append(torch.autograd.grad(total, [y, *t.parameters()], materialize_grads=True))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-9)
    assert bool(estimate.inverse(z, context)[1].isnan().all())


def test_second_derivatives_of_estimates_are_refused_by_name() -> None:
    layer = ConvexPotential((3,), partial(ICNN, hidden=(4,)), estimator="lanczos").double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    for value in (layer(x)[1], layer.inverse(x)[0]):
        with pytest.raises(DirectionError, match="first derivatives only"):
            torch.autograd.grad(value.sum(), x, create_graph=True)
        torch.autograd.grad(value.sum(), x)


@pytest.mark.parametrize("estimator", ["exact", "lanczos"])
def test_half_precision_has_a_likelihood_and_an_inverse(estimator: str) -> None:
    torch.manual_seed(0)
    flow = diffeo.zoo.build("cpflow", (3,), size="tiny", estimator=estimator)
    x = torch.randn(5, 3)
    noise = flow.transform.draw(5)
    expected, half = flow.log_prob(x, noise=noise), copy.deepcopy(flow).bfloat16()
    assert (half.log_prob(x.bfloat16(), noise=noise).float() - expected).abs().max() < 0.2
    assert (half.decode(half.encode(x.bfloat16())).float() - x).abs().max() < 0.2


def test_inverse_from_far_away() -> None:
    exact, estimate = pair("vector", scale=3.0)
    for t in (exact, estimate):
        z = torch.tensor([[1e4] * 5, [-1e4, 0, 1e3, 1, -1], [0.0] * 5], dtype=torch.float64)
        with torch.no_grad():
            again = t(t.inverse(z)[0])[0]
        assert torch.allclose(again, z, rtol=1e-10, atol=1e-9)


def test_what_has_no_solution_raises_and_what_is_no_number_stays() -> None:
    t = pair("vector")[0]
    z = torch.full((2, 5), torch.nan, dtype=torch.float64)
    z[1] = 1.0
    x, ladj = t.inverse(z)
    assert bool(x[0].isnan().all() and ladj[0].isnan())
    assert bool(x[1].isfinite().all() and ladj[1].isfinite())
    with torch.no_grad():
        t.gain.fill_(torch.inf)
    with pytest.raises(ConvergenceError, match=r"ConvexPotential\(5,\): .* of 1 of 2 examples"):
        t.inverse(z)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"strong": 0.0}, ConfigError, "strong"),
        ({"estimator": "slq"}, ConfigError, "estimator"),
        ({"probes": 0}, ConfigError, "probes"),
        ({"potential": ICNN((2,))}, ShapeError, "ICNN"),
        ({"potential": lambda s, context_shape: MLP(s, (1,))}, ConfigError, "input-convex"),
    ],
)
def test_wrong_settings_are_refused(options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        ConvexPotential(**({"event_shape": (3,), "potential": ICNN} | options))


def test_auto_is_exact_up_to_a_hundred_entries() -> None:
    small = partial(ICNN, hidden=(4,))
    assert ConvexPotential((100,), small).properties.kind == "exact"
    assert ConvexPotential((101,), small).properties.kind == "estimate"


@pytest.mark.parametrize("name", CASES)
def test_lipschitz_bounds_hold(name: str) -> None:
    t = pair(name)[0]
    with torch.no_grad():
        x, context = inputs(t, 50)
        values = torch.linalg.eigvalsh(t._at(x, context)[1]())
    most, inverse = t.lipschitz_bounds()
    assert inverse is not None
    assert float(1 / values.min()) <= inverse <= 1 / t.strong
    assert (most is None) == (context is not None)
    if most is not None:
        assert float(values.max()) <= most <= 100 * float(values.max())


@pytest.mark.slow
def test_the_learned_map_between_gaussians_is_the_optimal_one() -> None:
    """N(m, S) to N(0, I) by the gradient of a convex function: S^-1/2 (x - m), whose cost is that of Bures."""
    torch.manual_seed(0)
    mean = torch.tensor([1.0, -0.5])
    root = torch.tensor([[1.2, 0.4], [0.4, 0.7]])
    flow = diffeo.zoo.build("cpflow", (2,), layers=1, width=32, standardize=False)
    convex = next(p for p in flow.transform if isinstance(p, ConvexPotential))
    flow = diffeo.Flow(convex)
    x = mean + torch.randn(20_000, 2) @ root
    flow.initialize(x[:1000])
    diffeo.fit(flow, x, steps=1500, batch_size=256, lr=5e-3, ema=0.99, progress=False)
    with torch.no_grad():
        z = flow.eval().encode(x)
        best = (x - mean) @ torch.linalg.inv(root)
        assert float((z - best).square().sum(1).mean()) < 5e-3
        cost = float((z - x).square().sum(1).mean())
    bures = float(mean.square().sum() + (root - torch.eye(2)).square().sum())
    assert cost == pytest.approx(bures, rel=0.02)
