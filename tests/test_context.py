"""Context reaches the density, for every model of the zoo and in corner cases; embeddings see every row once."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as D

import diffeo
from diffeo import zoo
from diffeo.distributions import ConditionalNormal, DiagonalNormal, GaussianMixture, StandardNormal
from diffeo.errors import ConfigError, DiffeoError, InputError, ShapeError
from diffeo.flow import Flow
from diffeo.nets import MLP, DeepSet, ImageEmbedding, Join, SeriesEmbedding
from diffeo.properties import REAL
from diffeo.testing import randomize
from diffeo.testing.randomize import draw_context, draw_event
from diffeo.transforms import ActNorm, BatchNorm, Chain, Coupling, Permutation, Rotation

DICT = {"a": (1,), "b": (1, 2)}
small = partial(MLP, hidden=(4,), activation="tanh")
deep_set = partial(DeepSet, out_shape=(2,), width=8, activation="tanh")
# Settings that count layers, under the names that models give them.
LAYERS = ("layers", "couplings", "depth", "blocks", "flows", "transforms", "steps")


def reaches(flow: Flow, n: int = 4) -> None:
    """log_prob has a gradient by every context, of a row by that row's only; it and samples follow the context."""
    flow = randomize(flow.double().eval(), 3)
    assert isinstance(flow, Flow)
    x = draw_event(flow.properties.domain, flow.event_shape, n, 0)
    if flow.properties.domain == REAL:
        x = 0.3 * x  # inside the interval of splines, whose tails see no context
    context = draw_context(flow.context_shape, n, 0)
    parts = list(context.values()) if isinstance(context, dict) else [context]
    for part in parts:
        part.requires_grad_()
    noise = flow.transform.draw(n, like=flow.base.like)
    log_p = flow.log_prob(x, context, noise=noise)
    assert bool(log_p.isfinite().all())
    reached = [False] * len(parts)
    for i in range(n):
        grads = torch.autograd.grad(log_p[i], parts, retain_graph=True, allow_unused=True)
        for k, grad in enumerate(grads):
            assert grad is not None, "log_prob does not depend on the context"
            assert bool(grad.isfinite().all())
            reached[k] |= bool(grad[i].any())
            grad[i] = 0
            assert not bool(grad.any()), "log_prob depends on another row's context"
    assert all(reached), "the gradient by the context is zero"
    other = draw_context(flow.context_shape, n, 1)
    assert not torch.equal(flow.log_prob(x, other, noise=noise), log_p)
    if flow.properties.inverse != "none":
        drawn = [
            flow.continuous.sample((), c, generator=torch.Generator().manual_seed(0))
            for c in (context, other)
        ]
        assert not torch.equal(*drawn), "samples do not depend on the context"


def built(name: str, *shapes: Any, **hyper: Any) -> Flow:
    """The model for the first event that it takes."""
    for shape in shapes:
        try:
            return zoo.build(name, shape, size="tiny", **hyper)
        except ShapeError:
            continue
    raise AssertionError(f"{name} takes none of {shapes}")


def one_layer(name: str) -> dict[str, Any]:
    """The setting that makes the model one layer deep."""
    for key in LAYERS:
        for one in (1, (1,)):
            try:
                zoo.build(name, zoo.card(name).event_shape, size="tiny", **{key: one})
            except (ConfigError, TypeError):
                continue
            return {key: one}
    raise AssertionError(f"{name}: none of {LAYERS} is a setting of it; add the name of its depth")


CASES = {
    "as its card": lambda name, shape: built(name, shape, context_shape=(2,)),
    "one dimension": lambda name, shape: built(name, (1,), (1, 2, 2), shape, context_shape=(2,)),
    "one layer": lambda name, shape: built(name, shape, context_shape=(2,), **one_layer(name)),
    "one layer of one dimension": lambda name, shape: built(
        name, (1,), (1, 2, 2), shape, context_shape=(1,), **one_layer(name)
    ),
    "a dict": lambda name, shape: built(name, shape, context_shape=DICT),
    "an embedded set": lambda name, shape: built(
        name, shape, context_shape=(3, 2), embedding=deep_set
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", zoo.names())
def test_context_reaches_the_density(name: str, case: str) -> None:
    torch.manual_seed(0)
    reaches(CASES[case](name, zoo.card(name).event_shape))


@pytest.mark.parametrize("name", zoo.names())
def test_context_only_in_the_base(name: str) -> None:
    torch.manual_seed(0)
    transform = zoo.build(name, zoo.card(name).event_shape, size="tiny").transform
    reaches(Flow(transform, ConditionalNormal(transform.latent_shape, (2,), small)))


def test_layers_without_parameters_from_the_context_take_one() -> None:
    """Every layer of a conditional chain accepts the context, whether it uses it or not."""
    parts = [ActNorm, BatchNorm, Permutation, Rotation, partial(Coupling, net=small, context_shape=DICT)]  # fmt: skip
    base = GaussianMixture((1,), 2, net=small, context_shape=DICT)
    reaches(Flow(Chain((1,), parts), base))


class Counting(nn.Module):
    """An embedding that counts its calls and rows."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.rows = 0
        self.net = nn.Linear(8, 2)

    def forward(self, context: Tensor) -> Tensor:
        self.calls += 1
        self.rows += len(context)
        out: Tensor = self.net(context)
        return out


def counted() -> tuple[Flow, Counting]:
    counter = Counting()
    inner = zoo.build("realnvp", (2,), context_shape=(2,), size="tiny")
    return Flow(inner.transform, inner.base, embedding=counter, context_shape=(8,)), counter


USES = {
    "sample": lambda f, c: f.sample((5, 2), c),
    "rsample": lambda f, c: f.rsample_and_log_prob((5, 2), c),
    "log_prob": lambda f, c: f.log_prob(torch.randn(6, 1, 2), c),
    "encode": lambda f, c: f.encode(torch.randn(6, 1, 2), c),
    "in chunks": lambda f, c: f.sample((5,), c, batch_size=2),
    "at.sample": lambda f, c: f.at(c).sample((5,)),
    "at.expand": lambda f, c: f.at(c).expand((6, 4)).sample((5,)),
    "at.expand.log_prob": lambda f, c: f.at(c).expand((6, 4)).log_prob(torch.randn(2)),
}


@pytest.mark.parametrize("use", USES)
def test_every_row_is_embedded_once(use: str) -> None:
    flow, counter = counted()
    USES[use](flow, torch.randn(4, 8))
    assert (counter.calls, counter.rows) == (1, 4)


# -- embeddings -------------------------------------------------------------------------------------------------------


def embed(net: Any, context: Any) -> Tensor:
    some = next(iter(context.values())) if isinstance(context, dict) else context
    out: Tensor = net(some.new_empty(len(some), 0), context)
    return out


def test_sets_have_no_order_and_no_padding() -> None:
    shape = {"values": (5, 3), "mask": (5,)}
    net = DeepSet((0,), (4,), shape)
    values, mask = torch.randn(2, 5, 3), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    out = embed(net, {"values": values, "mask": mask})
    order = torch.tensor([2, 4, 0, 1, 3])
    shuffled = embed(net, {"values": values[:, order], "mask": mask[:, order]})
    assert torch.allclose(out, shuffled, atol=1e-6)
    padded = torch.where(mask[..., None], values, torch.full_like(values, 7.0))
    assert torch.allclose(out, embed(net, {"values": padded, "mask": mask}), atol=1e-6)
    # The same mean of more elements is another set.
    twice = torch.cat((values[:, :2], values[:, :2], values[:, :1]), dim=1)
    two, four = (torch.tensor([[1, 1, n, n, 0]] * 2).bool() for n in (0, 1))
    a, b = (embed(net, {"values": twice, "mask": m}) for m in (two, four))
    assert not torch.allclose(a, b, atol=1e-4)


def test_series_look_back_only_and_stop_at_their_end() -> None:
    net = SeriesEmbedding((0,), (4,), {"values": (6, 2), "mask": (6,)}, width=8, layers=2)
    values = torch.randn(1, 6, 2)
    mask = torch.tensor([[1.0, 1, 1, 1, 0, 0]])
    changed = values.clone()
    changed[:, 4:] = 9.0
    a, b = (embed(net, {"values": v, "mask": mask}) for v in (values, changed))
    assert torch.equal(a, b)
    short = SeriesEmbedding((0,), (4,), (4, 2), width=8, layers=2)
    short.load_state_dict(net.state_dict())
    assert torch.allclose(embed(short, values[:, :4]), a, atol=1e-6)
    swapped = values[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(embed(net, {"values": swapped, "mask": mask}), a, atol=1e-4)


def test_several_contexts_of_different_kinds(tmp_path: Any) -> None:
    torch.manual_seed(0)
    embedding = Join(
        {
            "picture": ImageEmbedding((0,), (3,), (1, 8, 8), width=8),
            "series": SeriesEmbedding((0,), (3,), (6, 2), width=8, layers=2),
            "set": DeepSet((0,), (3,), {"values": (5, 2), "mask": (5,)}, width=8),
            "label": MLP((0,), (4,), (4,), hidden=(), zero_init=False),
        }
    )
    shapes = {"picture": (1, 8, 8), "series": (6, 2), "values": (5, 2), "mask": (5,), "label": (4,)}
    flow = zoo.build("realnvp", (2,), shapes, "tiny", embedding=embedding)
    assert flow.context_shape == shapes
    context = {k: torch.randn(1, 3, *s) for k, s in shapes.items()}
    assert flow.sample((4,), context).shape == (4, 1, 3, 2)
    flow.save(tmp_path / "flow")
    twin = diffeo.load(tmp_path / "flow")
    x = torch.randn(3, 2)
    assert torch.equal(twin.log_prob(x, context), flow.log_prob(x, context))
    with pytest.raises(InputError, match="keys"):
        flow.log_prob(x, {"picture": context["picture"]})
    reaches(flow)


def test_a_conditional_mixture_is_a_mixture_at_every_context() -> None:
    base = randomize(GaussianMixture((2,), 3, net=small, context_shape=(1,))).double()
    c, z = torch.randn(5, 1, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    logits, loc, log_scale = base.values(5, c)
    normals = D.Independent(D.Normal(loc, log_scale.exp()), 1)
    truth = D.MixtureSameFamily(D.Categorical(logits=logits), normals)
    assert torch.allclose(base.log_prob(z, c), truth.log_prob(z))
    assert float(loc.std(0).min()) > 0


REFUSED = {
    "a context that nothing reads": (
        lambda: Flow(Coupling((2,), net=small), context_shape=(3,)),
        ConfigError,
        "no part",
    ),
    "an embedding that nothing reads": (
        lambda: Flow(Permutation((2,)), embedding=MLP((3,), (2,)), context_shape=(3,)),
        ConfigError,
        "no part",
    ),
    "an embedding without a context_shape": (
        lambda: Flow(Coupling((2,), context_shape=(2,)), embedding=nn.Linear(3, 2)),
        ConfigError,
        "context_shape",
    ),
    "an embedding of another shape": (
        lambda: Flow(Coupling((2,), context_shape=(2,)), embedding=DeepSet((0,), (3,), (4, 2))),
        ShapeError,
        "(3,)",
    ),
    "an embedding that reads an event": (
        lambda: Flow(Coupling((2,), context_shape=(2,)), embedding=DeepSet((1,), (2,), (4, 2))),
        ShapeError,
        "(0,)",
    ),
    "an embedding and no context": (
        lambda: zoo.build("nice", (2,), size="tiny", embedding=DeepSet),
        ConfigError,
        "context_shape",
    ),
    "an embedding without a size": (
        lambda: zoo.build("nice", (2,), (4, 2), "tiny", embedding=DeepSet),
        ConfigError,
        "out_shape",
    ),
    "an embedding that is no network": (
        lambda: zoo.build("nice", (2,), (4, 2), "tiny", embedding=lambda *a, **k: 3),
        ConfigError,
        "int",
    ),
    "a set that is a vector": (lambda: DeepSet((0,), (2,), (4,)), ShapeError, "(4,)"),
    "a set without a context": (lambda: DeepSet((0,), (2,)), ShapeError, "None"),
    "other keys": (lambda: DeepSet((0,), (2,), {"a": (3, 2)}), ConfigError, "mask"),
    "a mask of another length": (
        lambda: SeriesEmbedding((0,), (2,), {"values": (3, 2), "mask": (4,)}),
        ShapeError,
        "(4,)",
    ),
    "a picture with a mask": (
        lambda: ImageEmbedding((0,), (2,), {"values": (1, 4, 4), "mask": (4, 4)}),
        ShapeError,
        "dict",
    ),
    "no layers": (lambda: SeriesEmbedding((0,), (2,), (3, 2), layers=0), ConfigError, "layers"),
    "no width": (lambda: DeepSet((0,), (2,), (3, 2), width=0), ConfigError, "width"),
    "a network called without its context": (
        lambda: DeepSet((0,), (2,), (3, 2))(torch.empty(1, 0)),
        ConfigError,
        "none",
    ),
    "nothing to join": (lambda: Join({}), ConfigError, "an embedding"),
    "joined without a context": (lambda: Join({"a": MLP((2,), (2,))}), ConfigError, "'a'"),
    "a base without the context": (
        lambda: Flow(Coupling((2,), context_shape=(2,)), DiagonalNormal((2,), net=small, context_shape=(3,))),
        ShapeError,
        "(3,)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    call, error, says = REFUSED[name]
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, DiffeoError)
    assert says in str(caught.value)


def test_bases_without_parameters_take_a_context() -> None:
    context = torch.randn(3, 2)
    for base in (StandardNormal((2,)), DiagonalNormal((2,)), GaussianMixture((2,), 2)):
        assert base.log_prob(torch.zeros(3, 2), context).shape == (3,)
        assert base.sample(3, context).shape == (3, 2)


# -- dtypes -----------------------------------------------------------------------------------------------------------

MASKED = {"values": (3, 2), "mask": (3,)}
LABEL = torch.eye(3, dtype=torch.int64)
INTEGERS = {
    "a label in the prior": ("glow", (1, 4, 4), {"context_shape": (3,)}, LABEL),
    "a label": ("realnvp", (2,), {"context_shape": (3,)}, LABEL),
    "several labels": ("realnvp", (2,), {"context_shape": {"a": (3,)}}, {"a": LABEL}),
    "an embedded set": (
        "realnvp",
        (2,),
        {"context_shape": MASKED, "embedding": deep_set},
        {"values": torch.arange(18).reshape(3, 3, 2), "mask": torch.ones(3, 3).bool()},
    ),
}


@pytest.mark.parametrize("case", INTEGERS)
def test_integers_in_a_context_are_numbers(case: str) -> None:
    name, shape, settings, context = INTEGERS[case]
    flow = randomize(zoo.build(name, shape, size="tiny", **settings).eval(), 0)
    assert isinstance(flow, Flow)
    same = {k: v.float() for k, v in context.items()} if isinstance(context, dict) else context.float()  # fmt: skip
    x = torch.randint(0, 256, (3, *shape), dtype=torch.uint8) if flow.discrete else torch.randn(3, *shape)  # fmt: skip
    found, expected = [
        (
            flow.log_prob(x, c, generator=torch.Generator().manual_seed(0)),
            flow.encode(x, c),
            flow.sample((2,), c, generator=torch.Generator().manual_seed(0)),
            flow.at(c).log_prob(x[0]) if not flow.discrete else flow.encode(x, c),
        )
        for c in (context, same)
    ]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert diffeo.audit(flow, x, context).passes == diffeo.audit(flow, x, same).passes


def test_an_embedding_of_the_users_own_takes_integers() -> None:
    inner = zoo.build("realnvp", (2,), context_shape=(4,), size="tiny")
    flow = Flow(inner.transform, inner.base, embedding=nn.Embedding(3, 4), context_shape=())
    assert flow.sample((5,), torch.tensor([0, 1, 2])).shape == (5, 3, 2)


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (torch.eye(3).double(), "context: this flow is in torch.float32, got torch.float64"),
        (torch.eye(3).numpy(), "context: expected a tensor [*batch, 3], got ndarray"),
        ([0, 1, 0], "context: expected a tensor [*batch, 3], got list"),
    ],
)
def test_another_precision_or_type_is_refused(context: Any, says: str) -> None:
    flow = zoo.build("realnvp", (2,), context_shape=(3,), size="tiny")
    uses = (partial(flow.sample, (2,)), partial(flow.log_prob, torch.randn(3, 2)), lambda c: flow.at(c))  # fmt: skip
    for use in uses:
        with pytest.raises(InputError) as caught:
            use(context)
        assert says in str(caught.value)
