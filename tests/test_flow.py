"""The flow: batch shapes, contexts, integers, temperature, and what it says when a value does not fit."""

import math

import pytest
import torch
from torch import nn

import diffeo
from diffeo.errors import DiffeoError, DirectionError, InputError, ShapeError
from diffeo.transforms import ActNorm, Chain, Coupling, Inverse, Standardize


def conditional(**hyper):
    torch.manual_seed(0)
    flow = diffeo.zoo.build("realnvp", (2,), (3,), size="tiny", zero_init=False, **hyper)
    return flow.eval()


def digits_flow(name="nice", **hyper):
    torch.manual_seed(0)
    return diffeo.zoo.build(name, (1, 4, 4), size="tiny", levels=17, **hyper).eval()


def test_batch_shapes_follow_torch_distributions():
    flow = conditional()
    c = torch.randn(4, 3)
    assert flow.sample((5, 6), c).shape == (5, 6, 4, 2)
    assert flow.sample(5, c[0]).shape == (5, 2)
    assert flow.sample((), c).shape == (4, 2)
    x, log_q = flow.rsample_and_log_prob((7,), c)
    assert x.shape == (7, 4, 2)
    assert log_q.shape == (7, 4)
    assert torch.allclose(log_q, flow.log_prob(x, c), atol=1e-4)
    assert flow.log_prob(torch.randn(7, 4, 2), c).shape == (7, 4)
    assert flow.log_prob(torch.randn(7, 1, 2), c).shape == (7, 4)
    assert flow.log_prob(torch.randn(2), c).shape == (4,)
    assert flow.log_prob(torch.randn(2), c[0]).shape == ()
    z = flow.encode(torch.randn(2), c)
    assert z.shape == (4, 2)
    assert flow.decode(z, c).shape == (4, 2)
    assert flow.log_prob(torch.randn(0, 4, 2), c).shape == (0, 4)


def test_broadcast_equals_the_loop():
    flow = conditional()
    x, c = torch.randn(5, 4, 2), torch.randn(4, 3)
    loop = torch.stack(
        [torch.stack([flow.log_prob(x[i, j], c[j]) for j in range(4)]) for i in range(5)]
    )
    assert torch.allclose(flow.log_prob(x, c), loop, atol=1e-5)
    assert torch.allclose(flow(x, c), loop, atol=1e-5)


class Counting(nn.Module):
    rows = 0

    def forward(self, c):
        self.rows += len(c)
        return c[:, :3]


def test_each_context_row_is_embedded_once():
    inner = conditional()
    embedding = Counting()
    flow = diffeo.Flow(inner.transform, inner.base, embedding=embedding, context_shape=(8,))
    c = torch.randn(4, 8)
    flow.sample((100,), c)
    assert embedding.rows == 4
    assert torch.allclose(
        flow.log_prob(torch.zeros(2), c), inner.log_prob(torch.zeros(2), c[:, :3])
    )


def test_dict_context():
    torch.manual_seed(0)
    shape = {"a": (2,), "b": (1, 3)}
    flow = diffeo.zoo.build("nice", (3,), shape, size="tiny", zero_init=False).eval()
    c = {"a": torch.randn(4, 2), "b": torch.randn(1, 3)}
    x = flow.sample((5,), c)
    assert x.shape == (5, 4, 3)
    assert flow.log_prob(x, c).shape == (5, 4)
    other = c | {"b": torch.randn(1, 3)}
    assert not torch.allclose(flow.log_prob(x, c), flow.log_prob(x, other))
    with pytest.raises(InputError, match="a, b"):
        flow.log_prob(x, {"a": c["a"]})


def test_chunks_change_nothing():
    for flow in (digits_flow(), digits_flow("realnvp")):
        x = torch.randint(0, 17, (11, 1, 4, 4), dtype=torch.uint8)
        g = torch.Generator()
        whole = flow.log_prob(x, generator=g.manual_seed(1))
        pieces = flow.log_prob(x, generator=g.manual_seed(1), batch_size=3)
        assert torch.allclose(whole, pieces, atol=1e-4)
        assert torch.allclose(flow.encode(x), flow.encode(x, batch_size=4), atol=1e-5)
        z = flow.encode(x)
        assert torch.equal(flow.decode(z), flow.decode(z, batch_size=5))
        a = flow.sample((9,), generator=g.manual_seed(2))
        assert torch.equal(a, flow.sample((9,), generator=g.manual_seed(2), batch_size=2))


@pytest.mark.parametrize("name", ["nice", "realnvp", "revnet"])
def test_integers_in_integers_out(name):
    flow = digits_flow(name, **({} if name != "revnet" else {"blocks": (1,)}))
    assert flow.likelihood == "bound"
    assert flow.properties.measure == "counting"
    x = torch.randint(0, 17, (6, 1, 4, 4), dtype=torch.uint8)
    z = flow.encode(x)
    assert z.shape == (6, *flow.latent_shape)
    back = flow.decode(z)
    assert back.dtype == torch.uint8
    assert torch.equal(back, x)
    samples = flow.sample((20,))
    assert samples.dtype == torch.uint8
    assert int(samples.max()) <= 16
    bits = flow.bits_per_dim(x, generator=torch.Generator().manual_seed(0))
    nats = flow.log_prob(x, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(bits, -nats / (16 * math.log(2)))
    assert flow.continuous.likelihood == "exact"
    assert flow.continuous.continuous is not flow
    assert torch.isneginf(flow.log_prob(torch.full((1, 4, 4), 17, dtype=torch.uint8)))


def test_many_levels_give_int64():
    flow = diffeo.zoo.build("nice", (2,), size="tiny", levels=1000).eval()
    x = torch.tensor([[0, 999], [500, 3]])
    assert flow.sample((3,)).dtype == torch.int64
    assert torch.equal(flow.decode(flow.encode(x)), x)


def test_continuous_is_the_same_model():
    flow = digits_flow()
    x = torch.randint(0, 17, (6, 1, 4, 4), dtype=torch.uint8)
    noise = flow.transform.draw(6)
    direct = flow.log_prob(x, noise=noise)
    inner = flow.continuous.log_prob(x + noise[0])
    assert torch.allclose(direct, inner, atol=1e-4)
    assert flow.continuous.transform.parts[0] is flow.transform.parts[1]


def test_temperature():
    flow = conditional()
    c = torch.randn(3)
    g = torch.Generator()
    cold = flow.sample((50,), c, temperature=0.0)
    assert torch.equal(cold, cold[:1].expand(50, 2))
    z = flow.encode(flow.sample((50,), c, temperature=2.0, generator=g.manual_seed(0)), c)
    once = flow.encode(flow.sample((50,), c, generator=g.manual_seed(0)), c)
    assert torch.allclose(z, 2 * once, atol=1e-3)
    with pytest.raises(InputError, match="-1"):
        flow.sample((2,), c, temperature=-1.0)


def test_levels_cover_the_latent():
    flow = diffeo.zoo.build("realnvp", (3, 8, 16), size="tiny", split="conditional")
    sizes = [math.prod(level.shape) for level in flow.levels]
    assert sum(sizes) == flow.latent_shape[0] == 384
    assert [level.shape for level in flow.levels] == [(6, 4, 8), (6, 4, 8)]
    start = 0
    for level, size in zip(flow.levels, sizes, strict=True):
        assert (level.slice.start, level.slice.stop) == (start, start + size)
        start += size


def test_at_is_a_torch_distribution():
    flow = conditional()
    c = torch.randn(4, 3)
    d = flow.at(c)
    assert (d.batch_shape, d.event_shape) == (torch.Size([4]), torch.Size([2]))
    assert d.sample((5,)).shape == (5, 4, 2)
    x = d.rsample((5,))
    assert x.requires_grad
    assert torch.allclose(d.log_prob(x), flow.log_prob(x, c))
    wide = d.expand((6, 4))
    assert wide.sample((2,)).shape == (2, 6, 4, 2)
    assert wide.log_prob(torch.zeros(2)).shape == (6, 4)
    free = diffeo.zoo.build("nice", (2,), size="tiny").at().expand((3,))
    assert free.sample((2,)).shape == (2, 3, 2)
    assert free.log_prob(torch.zeros(2)).shape == (3,)
    assert bool(d.support.check(x.detach()).all())


REFUSED = {
    "a wrong event": (
        lambda f, d: f.log_prob(torch.randn(5, 3), torch.randn(3)),
        ShapeError,
        "(2,)",
    ),
    "no context": (lambda f, d: f.log_prob(torch.randn(5, 2)), InputError, "(3,)"),
    "a context of another shape": (
        lambda f, d: f.log_prob(torch.randn(5, 2), torch.randn(5, 4)),
        ShapeError,
        "(5, 4)",
    ),
    "contexts that do not broadcast": (
        lambda f, d: f.log_prob(torch.randn(5, 2), torch.randn(4, 3)),
        ShapeError,
        "(4,)",
    ),
    "a context nobody asked for": (
        lambda f, d: d.log_prob(torch.zeros(1, 4, 4, dtype=torch.uint8), torch.randn(3)),
        InputError,
        "no context",
    ),
    "a list": (lambda f, d: f.log_prob([[0.0, 1.0]], torch.randn(3)), InputError, "list"),
    "integers for a float flow": (
        lambda f, d: f.log_prob(torch.zeros(2, dtype=torch.long), torch.randn(3)),
        InputError,
        "int64",
    ),
    "floats for an integer flow": (
        lambda f, d: d.log_prob(torch.zeros(1, 4, 4)),
        InputError,
        "flow.continuous",
    ),
    "another precision": (
        lambda f, d: f.log_prob(torch.zeros(2).double(), torch.randn(3)),
        InputError,
        "float64",
    ),
    "bits of a density": (
        lambda f, d: f.bits_per_dim(torch.zeros(2), torch.randn(3)),
        InputError,
        "log_prob",
    ),
    "gradients through integers": (
        lambda f, d: d.rsample_and_log_prob((2,)),
        DirectionError,
        "flow.continuous",
    ),
    "an empty chunk": (
        lambda f, d: f.log_prob(torch.zeros(3, 2), torch.randn(3), batch_size=0),
        InputError,
        "batch_size",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_sentence(name):
    call, error, word = REFUSED[name]
    with pytest.raises(error) as raised:
        call(conditional(), digits_flow())
    assert issubclass(error, DiffeoError)
    assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_outside_the_support_is_minus_infinity():
    from functools import partial

    from diffeo.families import Logit
    from diffeo.transforms import ActNorm, Chain, Elementwise

    flow = diffeo.Flow(Chain((2,), [partial(Elementwise, family=Logit(0.0)), ActNorm]))
    x = torch.tensor([[0.5, 0.5], [0.0, 0.5], [2.0, 0.5], [-1e30, 0.5]], requires_grad=True)
    log_prob = flow.log_prob(x)
    assert torch.isfinite(log_prob[0])
    assert torch.isneginf(log_prob[1:]).all()
    log_prob[0].backward()
    assert torch.isfinite(x.grad).all()


def test_tanh_scale_at_zero_needs_a_network_that_is_not_zero():
    """With scale 0 and a zero network the gradient of both would stay zero: size paper avoids it."""
    with torch.device("meta"):
        flow = diffeo.zoo.build("realnvp", (3, 32, 32), size="paper")
    assert flow.provenance["hyper"]["initial_scale"] == 0.0
    assert flow.provenance["hyper"]["zero_init"] is False
    torch.manual_seed(0)
    flow = diffeo.zoo.build("realnvp", (2,), size="tiny", initial_scale=0.0, zero_init=False)
    flow.log_prob(torch.randn(8, 2)).sum().backward()
    couplings = [part for part in flow.transform if isinstance(part, Coupling)]
    assert len(couplings) == 4
    assert all(float(c.family.magnitude.grad.abs()) > 0 for c in couplings)


PAPER = {
    # 4 couplings of 392-1000-1000-1000-1000-1000-392 and 784 scales.
    ("nice", (784,)): 4 * (392 * 1000 + 4 * 1000 * 1000 + 1000 * 392 + 5 * 1000 + 392) + 784,
    ("realnvp", (3, 32, 32)): None,
    ("revnet", (3, 32, 32)): None,
    ("measure_preserving", (2,)): 16 * (64 + 64 + 64),
}


@pytest.mark.parametrize(("name", "shape"), PAPER)
def test_paper_sizes_build_on_the_meta_device(name, shape):
    hyper = {"levels": 256} if name == "nice" else {}
    with torch.device("meta"):
        flow = diffeo.zoo.build(name, shape, size="paper", **hyper)
    assert all(p.is_meta for p in flow.parameters())
    expected = PAPER[name, shape]
    assert expected is None or flow.num_parameters == expected


@pytest.mark.parametrize("name", diffeo.zoo.names())
def test_the_card_tells_the_truth(name):
    card = diffeo.zoo.card(name)
    flow = diffeo.zoo.build(name, card.event_shape, size="tiny")
    assert flow.likelihood == card.likelihood
    assert flow.event_shape == card.event_shape
    assert getattr(diffeo.zoo, name)(card.event_shape, size="tiny").event_shape == card.event_shape
    assert card.arxiv in card.citation


def test_a_convolutional_model_at_another_size():
    torch.manual_seed(0)
    flow = diffeo.zoo.build(
        "realnvp", (1, 8, 8), size="tiny", levels=17, split="conditional", zero_init=False
    ).eval()
    large = flow.resized((1, 16, 24))
    assert large.event_shape == (1, 16, 24)
    assert large.latent_shape == (384,)
    assert [level.shape for level in large.levels] == [(2, 8, 12), (2, 8, 12)]
    x = large.sample((3,))
    assert x.shape == (3, 1, 16, 24)
    assert torch.equal(large.decode(large.encode(x)), x)
    mine, theirs = dict(flow.named_parameters()), dict(large.named_parameters())
    assert mine.keys() == theirs.keys()
    assert all(mine[k] is theirs[k] for k in mine)
    same = flow.resized((1, 8, 8))
    y = flow.sample((2,))
    noise = flow.transform.draw(2)
    assert torch.equal(same.log_prob(y, noise=noise), flow.log_prob(y, noise=noise))


CANNOT = {
    "other channels": ("realnvp", (1, 8, 8), (3, 8, 8), "height and width"),
    "a size that does not divide": ("realnvp", (1, 8, 8), (1, 9, 9), "divide"),
    "a model of vectors": ("nice", (1, 8, 8), (1, 16, 16), "256"),
    "a learned base": ("revnet", (3, 8, 8), (3, 16, 16), "base.loc"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_resized_says_why(name):
    model, old, new, words = CANNOT[name]
    with pytest.raises(ShapeError, match=words):
        diffeo.zoo.build(model, old, size="tiny").resized(new)


@pytest.mark.parametrize("layer", [ActNorm, Standardize])
def test_an_inverted_layer_normalizes_in_its_own_direction(layer):
    x = 3 * torch.randn(500, 3, dtype=torch.float64) + 5
    for part in (Inverse(layer((3,))), Inverse(Chain((3,), [layer, Coupling]))):
        flow = diffeo.Flow(part).double()
        flow.initialize(x)
        assert flow.initialized
        z = flow.encode(x)
        assert torch.allclose(z.mean(0), torch.zeros(3).double(), atol=1e-8)
        assert torch.allclose(z.std(0, correction=0), torch.ones(3).double(), atol=1e-8)


def test_a_constant_ladj_is_declared_through_the_chain():
    assert diffeo.zoo.build("nice", (4,), size="tiny", standardize=False).properties.constant_ladj
    assert not diffeo.zoo.build("realnvp", (4,), size="tiny").properties.constant_ladj


@pytest.mark.parametrize("hyper", [{}, {"levels": 8}])
def test_compiled_code_draws_what_eager_code_draws(hyper):
    flow = diffeo.zoo.build("realnvp", (3,), size="tiny", **hyper)

    def run(x):
        return flow.sample((5,)), flow.log_prob(x)

    outputs = []
    for f in (run, torch.compile(run, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(1)
        outputs.append(f(torch.ones(4, 3, dtype=torch.uint8 if hyper else torch.float32)))
    for one, two in zip(*outputs, strict=True):
        assert torch.equal(one, two)
