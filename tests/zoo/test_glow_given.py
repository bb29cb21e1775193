"""Glow given a picture: its features reach every scale, once a row, whatever its size."""

import pytest
import torch

import diffeo
from diffeo import zoo
from diffeo.errors import ShapeError
from diffeo.nets.pyramid import Entry, PerPixel, Pyramid
from diffeo.testing import randomize


def built(event, context, **hyper):
    """A tiny model of two scales whose weights are far from their start."""
    torch.manual_seed(0)
    flow = zoo.build("glow", event, context, "tiny", **({"condition": "all"} | hyper))
    return randomize(flow, seed=1, scale=0.3).eval()


def pictures(n, *shape):
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, *shape), generator=g).to(torch.uint8)


@pytest.mark.parametrize("context", [(1, 4, 8), (3, 2, 4), (2, 5, 3), (1, 16, 8)], ids=str)
def test_every_pixel_of_the_context_matters(context):
    flow = built((3, 4, 8), context)
    c = pictures(2, *context).float().requires_grad_()
    flow.log_prob(pictures(2, 3, 4, 8), c).sum().backward()
    assert bool((c.grad.abs().amax(1) > 0).all())


@pytest.mark.parametrize("condition", ["all", "top"])
def test_every_scale_that_should_see_the_context_does(condition):
    flow = built((3, 4, 8), (1, 4, 8), condition=condition)
    features = flow.embedding(pictures(2, 1, 4, 8))
    assert list(features) == (["scale1", "scale2"] if condition == "all" else ["scale2"])
    for f in features.values():
        f.retain_grad()
    v = torch.randn(2, 3, 4, 8).sigmoid() * 255
    flow.continuous.transform(v, features)[1].sum().backward()
    assert all(bool(f.grad.any()) for f in features.values())


def test_a_row_is_embedded_once():
    flow = built((3, 4, 8), (1, 4, 8))
    seen = []
    handle = flow.embedding.register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
    assert flow.sample((5,), pictures(2, 1, 4, 8)).shape == (5, 2, 3, 4, 8)
    handle.remove()
    assert seen == [2]


def test_integers_are_numbers_in_the_units_of_the_data():
    flow = built((3, 4, 8), (1, 4, 8))
    x, c = pictures(3, 3, 4, 8), pictures(3, 1, 4, 8)
    torch.testing.assert_close(flow.encode(x, c), flow.encode(x, c.float()))
    assert not torch.equal(flow.encode(x, c), flow.encode(x, c.flip(0)))


def test_memory_that_is_recomputed_reaches_the_embedding():
    flow = built((1, 4, 4), (1, 2, 2), levels=None)
    x, c = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 2, 2)
    grads = []
    for flow.memory in ("plain", "reversible"):
        flow.zero_grad()
        flow.log_prob(x, c).sum().backward()
        grads.append(flow.embedding.first.weight.grad.clone())
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4)


def test_saved_and_resized(tmp_path):
    flow = built((3, 4, 8), (1, 2, 4))
    x, c = pictures(2, 3, 4, 8), pictures(2, 1, 2, 4)
    again = diffeo.load(flow.save(tmp_path / "flow"))
    torch.testing.assert_close(again.encode(x, c), flow.encode(x, c))
    large = flow.resized((3, 8, 24))
    assert large.context_shape == (1, 4, 12)
    assert large.embedding.first.weight is flow.embedding.first.weight
    assert large.sample((), pictures(2, 1, 4, 12)).shape == (2, 3, 8, 24)
    same = flow.resized((3, 4, 8))
    torch.testing.assert_close(same.encode(x, c), flow.encode(x, c))


@pytest.mark.slow
def test_it_learns_what_it_is_given():
    """x is its context and a little noise: under another context it is far less likely."""
    g = torch.Generator().manual_seed(0)
    c = torch.randn(256, 1, 4, 4, generator=g)
    x = c + 0.1 * torch.randn(256, 1, 4, 4, generator=g)
    torch.manual_seed(0)
    flow = zoo.build("glow", (1, 4, 4), (1, 4, 4), "tiny", condition="all", levels=None)
    diffeo.fit(flow, (x, c), steps=80, batch_size=128, lr=1e-2, threads=1, progress=False)
    with torch.no_grad():
        gap = flow.log_prob(x, c).mean() - flow.log_prob(x, c.roll(1, 0)).mean()
    assert gap > 10


WRONG = {
    "no picture": lambda: Pyramid((3,), {"a": (4, 2, 2)}),
    "features of no size": lambda: Pyramid((1, 4, 4), {"a": (4, 0, 2)}),
    "an entry that is not there": lambda: Entry(PerPixel((0,), (1, 2, 2, 2), (4, 2, 2)), "a", {"b": (4, 2, 2)}),
    "an entry of another shape": lambda: Entry(PerPixel((0,), (1, 2, 2, 2), (4, 2, 2)), "a", {"a": (3, 2, 2)}),
    "features of another size": lambda: PerPixel((0,), (1, 2, 2, 2), (4, 3, 2)),
    "a flow whose parts see other features": lambda: diffeo.Flow(
        built((3, 4, 8), (1, 4, 8)).transform, embedding=Pyramid((1, 4, 8), {"scale1": (4, 2, 4)}),
    ),
    "an embedding under the model's own": lambda: zoo.build(
        "glow", (3, 4, 8), (3,), "tiny", embedding=diffeo.nets.MLP((0,), (1, 4, 8), (3,))
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_fit_is_a_sentence(wrong):
    with pytest.raises(ShapeError):
        WRONG[wrong]()
