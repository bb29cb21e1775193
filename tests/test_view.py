"""flow.at(context) as a torch.distributions.Distribution: the whole protocol."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from tests.conformance.shared import mlp
from torch import distributions as D
from torch.distributions import constraints

from diffeo import zoo
from diffeo.distributions import GaussianMixture, Uniform
from diffeo.errors import DirectionError, InputError
from diffeo.families import Affine, Inverted, Logit, Rescale
from diffeo.flow import Flow
from diffeo.properties import Domain
from diffeo.testing import randomize
from diffeo.transforms import Chain, Coupling, Dequantize, Elementwise, Inverse, Permutation
from diffeo.view import FlowDistribution, _constraint


def flow_of(context: Any = (3,), event: int = 2) -> Flow:
    torch.manual_seed(0)
    flow = zoo.build("realnvp", (event,), context, "tiny", scale="clamp")
    randomize(flow, 1, 0.5)
    return flow.eval()


VIEWS = {
    "no context": lambda: flow_of(None).at(),
    "one context": lambda: flow_of().at(torch.randn(3)),
    "a batch": lambda: flow_of().at(torch.randn(4, 3)),
    "a grid": lambda: flow_of().at(torch.randn(4, 1, 3)),
    "a dict": lambda: flow_of({"a": (1,), "b": (2,)}).at(
        {"a": torch.randn(4, 1, 1), "b": torch.randn(5, 2)}
    ),
    "no context, expanded": lambda: flow_of(None).at().expand((4, 5)),
    "expanded": lambda: flow_of().at(torch.randn(5, 3)).expand((4, 5)),
    "expanded inside": lambda: flow_of().at(torch.randn(4, 1, 3)).expand((4, 5)),
    "expanded twice": lambda: flow_of().at(torch.randn(5, 3)).expand((1, 5)).expand((2, 4, 5)),
}
BATCHES = {
    "no context": (), "one context": (), "a batch": (4,), "a grid": (4, 1), "a dict": (4, 5),
    "no context, expanded": (4, 5), "expanded": (4, 5), "expanded inside": (4, 5),
    "expanded twice": (2, 4, 5),
}  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
def test_protocol(name: str) -> None:
    d, batch = VIEWS[name](), BATCHES[name]
    assert isinstance(d, D.Distribution)
    assert (d.batch_shape, d.event_shape) == (torch.Size(batch), torch.Size([2]))
    assert d.has_rsample
    for shape in ((), (3,), (2, 3)):
        for x in (d.sample(shape), d.rsample(torch.Size(shape))):
            assert x.shape == (*shape, *batch, 2) == d._extended_shape(torch.Size(shape))
        assert not d.sample(shape).requires_grad
        assert x.requires_grad
        log_p = d.log_prob(x)
        assert log_p.shape == (*shape, *batch)
        assert bool(d.support.check(x.detach()).all())
    # A value without a batch meets every element of it.
    assert d.log_prob(torch.zeros(2)).shape == batch
    # Every element of the batch has its own samples.
    if batch:
        assert len(d.sample().reshape(-1, 2).unique(dim=0)) == torch.Size(batch).numel()
    wide = d.expand((6, *batch))
    assert type(wide) is FlowDistribution
    assert wide.sample((2,)).shape == (2, 6, *batch, 2)
    value = d.sample((6,))
    assert torch.allclose(wide.log_prob(value), d.log_prob(value), atol=1e-5)
    assert repr(d).startswith("FlowDistribution(")
    for missing in ("mean", "variance", "stddev"):
        with pytest.raises(NotImplementedError):
            getattr(d, missing)
    with pytest.raises(NotImplementedError):
        d.entropy()
    with pytest.raises(RuntimeError):
        d.expand((7,)).expand((8,))


def test_gradients_reach_parameters_and_context() -> None:
    flow = flow_of()
    c = torch.randn(4, 3, requires_grad=True)
    for value in (flow.at(c).rsample((5,)), flow.at(c).log_prob(torch.zeros(2))):
        grads = torch.autograd.grad(value.square().sum(), [c, *flow.parameters()])
        assert all(bool(g.any()) for g in grads)
    # A view sees what the flow learns later.
    d = flow.at(c)
    before = d.log_prob(torch.zeros(2))
    randomize(flow, 2)
    assert not torch.equal(d.log_prob(torch.zeros(2)), before)


def test_samples_follow_torch_seed() -> None:
    d = flow_of().at(torch.randn(4, 3))
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(d.sample((2,)))
    assert torch.equal(*drawn)


BOUNDED = {
    "real": (lambda: flow_of(None), constraints.real, 1e9, None),
    "interval": (
        lambda: Flow(Chain((2,), [partial(Elementwise, family=Logit(0.0)), partial(Coupling, net=mlp)])),
        constraints.interval(0, 1),
        0.5,
        1.5,
    ),
    "of the base": (
        lambda: Flow(Permutation((2,)), Uniform((2,), -1.0, 3.0)),
        constraints.interval(-1, 3),
        2.5,
        3.5,
    ),
    "integers": (
        lambda: Flow(
            Chain((2,), [partial(Dequantize, levels=5), partial(Elementwise, family=Rescale((0, 5))),
                         partial(Elementwise, family=Logit(0.0))])
        ),
        constraints.integer_interval(0, 4),
        4,
        5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOUNDED)
def test_support_and_validation(name: str) -> None:
    make, inner, inside, outside = BOUNDED[name]
    flow = make().eval()
    d = flow.at(validate_args=True)
    assert type(d.support.base_constraint) is type(inner)
    assert vars(d.support.base_constraint) == vars(inner)
    assert d.support.event_dim == 1
    assert bool(d.support.check(d.sample((50,))).all())
    assert bool(d.log_prob(torch.full((2,), inside)).isfinite())
    if outside is not None:
        with pytest.raises(ValueError, match="support"):
            d.log_prob(torch.full((2,), outside))
        free = flow.at(validate_args=False).log_prob(torch.full((2,), outside))
        assert float(free) == -torch.inf
    else:
        with pytest.raises(ValueError, match="support"):
            d.log_prob(torch.full((2,), torch.nan))
    with pytest.raises(ValueError, match=r"event_shape|broadcast|size"):
        d.log_prob(torch.full((3,), inside))
    # torch's own default decides where nothing is said.
    assert flow.at()._validate_args is D.Distribution._validate_args
    assert flow.at(validate_args=False).expand((3,))._validate_args is False


def test_constraints_of_half_lines() -> None:
    low, high, inf = Domain(low=2.0), Domain(high=2.0), float("inf")
    x = torch.tensor([1.0, 3.0])
    assert _constraint(low).check(x).tolist() == [False, True]
    assert _constraint(high).check(x).tolist() == [True, False]
    for domain, seen in (
        (Domain(0, inf, integer=True), [True, False, False]),
        (Domain(-inf, 0, integer=True), [False, True, False]),
        (Domain(integer=True), [True, True, False]),
    ):
        assert _constraint(domain).check(torch.tensor([3.0, -3.0, 0.5])).tolist() == seen


def test_integers_have_no_rsample() -> None:
    d = BOUNDED["integers"][0]().at()
    assert not d.has_rsample
    with pytest.raises(DirectionError):
        d.rsample((2,))
    mixture = Flow(Permutation((2,)), GaussianMixture((2,), 2)).at()
    assert not mixture.has_rsample
    with pytest.raises(DirectionError):
        mixture.rsample()


def test_contexts_that_do_not_fit_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="no context"):
        flow_of(None).at(torch.randn(3))
    with pytest.raises(InputError, match="needs a context"):
        flow_of().at()


def test_inside_other_distributions() -> None:
    flow = flow_of()
    d = flow.at(torch.randn(4, 3))
    x = torch.randn(4, 2)
    joint = D.Independent(d, 1)
    assert (joint.batch_shape, joint.event_shape) == (torch.Size([]), torch.Size([4, 2]))
    assert torch.allclose(joint.log_prob(x), d.log_prob(x).sum())
    assert joint.rsample((3,)).shape == (3, 4, 2)
    assert joint.has_rsample
    assert joint.expand((2,)).sample().shape == (2, 4, 2)

    positive = D.TransformedDistribution(d, [D.ExpTransform()])
    y = positive.rsample((3,))
    assert y.shape == (3, 4, 2)
    assert bool(positive.support.check(y.detach()).all())
    assert torch.allclose(positive.log_prob(y), d.log_prob(y.log()) - y.log().sum(-1), atol=1e-4)
    assert positive.expand((5, 4)).sample().shape == (5, 4, 2)

    logits = torch.randn(4)
    mixture = D.MixtureSameFamily(D.Categorical(logits=logits), d)
    assert (mixture.batch_shape, mixture.event_shape) == (torch.Size([]), torch.Size([2]))
    z = mixture.sample((6,))
    assert z.shape == (6, 2)
    truth = (d.log_prob(z[:, None]) + logits.log_softmax(0)).logsumexp(-1)
    assert torch.allclose(mixture.log_prob(z), truth, atol=1e-5)


def test_a_scalar_event() -> None:
    parts = [Affine("exp"), Inverted(Logit(0.0))]
    chain = Chain((), [partial(Elementwise, family=family) for family in parts])
    d = Flow(Inverse(chain)).at()
    assert d.event_shape == ()
    assert d.support.event_dim == 0
    x = d.sample((50,))
    assert x.shape == (50,)
    assert bool(((x > 0) & (x < 1)).all())
    assert d.expand((3,)).log_prob(x[:, None]).shape == (50, 3)
