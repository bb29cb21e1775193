"""Flow matching against the closed form for Gaussians, and as an objective of fit."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffeo
from diffeo.errors import ConfigError
from diffeo.nets import Field
from diffeo.objectives import assigned, flow_matching
from diffeo.transforms import Chain, Continuous

MEAN, SPREAD = 1.5, 0.4
law = torch.distributions.Normal(MEAN, SPREAD)


class Optimal(Field):
    """E[dx_t/dt | x_t] for data N(MEAN, SPREAD^2) and independent noise N(0, 1), times a factor."""

    def __init__(self, event_shape: Any, context_shape: Any = None, path: str = "linear") -> None:
        super().__init__(event_shape, context_shape)
        self.path = path
        self.factor = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, context: Any = None) -> Tensor:
        t = t.reshape(-1, 1)
        a, b, da, db = 1 - t, t, -torch.ones_like(t), torch.ones_like(t)
        if self.path != "linear":
            a, b = (t * math.pi / 2).cos(), (t * math.pi / 2).sin()
            da, db = -b * math.pi / 2, a * math.pi / 2
        variance = a**2 * SPREAD**2 + b**2
        slope = (a * da * SPREAD**2 + b * db) / variance
        return self.factor * (da * MEAN + slope * (x - a * MEAN))


@pytest.mark.parametrize("path", ["linear", "variance_preserving"])
def test_the_optimal_field_gives_the_density_of_the_data(path: Any) -> None:
    """Its ODE, from data to noise, has the data's likelihood; and no other multiple of it has a smaller loss."""
    layer = Continuous((1,), lambda s, c: Optimal(s, c, path), rtol=1e-9, atol=1e-9)
    flow = diffeo.Flow(layer).double()
    x = law.sample((20_000, 1)).double()
    with torch.no_grad():
        assert torch.allclose(flow.log_prob(x[:50]), law.log_prob(x[:50, 0]), atol=1e-7)
    torch.manual_seed(0)
    loss = flow_matching(flow, path=path)(x, None, None)
    (slope,) = torch.autograd.grad(loss.mean(), layer.field.factor)
    scale = float(loss.detach().std()) / math.sqrt(len(x))
    assert abs(float(slope)) < 6 * scale + 1e-2
    with torch.no_grad():
        layer.field.factor.fill_(0.7)
    torch.manual_seed(0)
    assert flow_matching(flow, path=path)(x, None, None).mean() > loss.mean() + 3 * scale


def test_the_coupling_has_the_least_cost() -> None:
    data, noise = torch.randn(5, 2), torch.randn(5, 2)
    found = assigned(data, noise)

    def cost(order: Any) -> float:
        return float((data - noise[list(order)]).square().sum())

    assert sorted(found.tolist()) == list(range(5))
    assert cost(found.tolist()) == pytest.approx(min(map(cost, itertools.permutations(range(5)))))


def test_the_coupling_keeps_to_the_context() -> None:
    """Least among the assignments that leave every label its own noise; a context of its own leaves no choice."""
    data, noise, label = torch.randn(6, 2), torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    found = assigned(data, noise, label[:, None])
    assert torch.equal(label[found], label)
    for value in (0, 1):
        own = (label == value).nonzero()[:, 0]
        assert torch.equal(found[own], own[assigned(data[own], noise[own])])
    assert torch.equal(assigned(data, noise, {"c": torch.randn(6, 3)}), torch.arange(6))


@pytest.mark.parametrize("coupling", ["independent", "optimal"])
def test_fit_minimizes_the_objective_of_the_card(coupling: str) -> None:
    """Without a word of the objective; the likelihood, which no step has seen, rises."""
    torch.manual_seed(0)
    flow = diffeo.zoo.build(
        "flow_matching", (1,), hidden=(16,), standardize=False, rtol=1e-3, atol=1e-3
    )
    x = law.sample((2000, 1))
    with torch.no_grad():
        before = float(flow.log_prob(x[:200]).mean())
    run = diffeo.fit(
        flow,
        x,
        validation=x[:200],
        steps=150,
        batch_size=128,
        lr=1e-2,
        warmup=0,
        validate_every=50,
        coupling=coupling,
        progress=False,
    )
    with torch.no_grad():
        after = float(flow.log_prob(x[:200]).mean())
    assert after > before + 0.1
    assert after > float(law.log_prob(x[:200]).mean()) - 0.5
    assert len(run.history["validation"]) == 3


def test_the_prefix_of_a_chain_and_integers() -> None:
    """The layers before the continuous one see the data with their noise, and get no gradient."""
    flow = diffeo.zoo.build("flow_matching", (1, 2, 2), size="tiny", levels=4)
    noise = flow.transform.draw(8)
    loss = flow_matching(flow)(torch.randint(0, 4, (8, 1, 2, 2)), None, noise)
    assert loss.shape == (8,)
    loss.sum().backward()
    assert all(p.grad is not None for p in flow.parameters())


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(ConfigError, match="this flow has 0: build it as"):
        flow_matching(diffeo.zoo.build("nice", (2,), size="tiny"))
    with pytest.raises(ConfigError, match="has 1, whose time is learned"):
        flow_matching(diffeo.Flow(Continuous((2,), learn_time=True)))
    with pytest.raises(ConfigError, match="this flow has 2"):
        flow_matching(diffeo.Flow(Chain((2,), [Continuous, Continuous])))
    flow = diffeo.Flow(Continuous((2,)))
    with pytest.raises(ConfigError, match="path must be one of linear"):
        flow_matching(flow, path="bent")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="coupling must be one of"):
        flow_matching(flow, coupling="best")  # type: ignore[arg-type]


def test_penalties_are_added_to_training_and_noted() -> None:
    flow = diffeo.zoo.build("ffjord", (2,), size="tiny", kinetic=0.1, jacobian=0.1)
    run = diffeo.fit(flow, torch.randn(64, 2), steps=3, batch_size=32, progress=False)
    assert run.history["auxiliary"][-1][1] > 0


@pytest.mark.parametrize("option", [{"path": "variance_preserving"}, {"coupling": "optimal"}])
def test_what_maximum_likelihood_does_not_take_is_refused(option: dict[str, str]) -> None:
    flow = diffeo.zoo.build("ffjord", (2,), size="tiny")
    with pytest.raises(ConfigError, match=f"{next(iter(option))} is of flow matching"):
        diffeo.fit(flow, torch.randn(20, 2), steps=1, progress=False, **option)
