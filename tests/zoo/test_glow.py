"""Glow whole: levels, initialization, other sizes, labels and their classifier."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

import diffeo
from diffeo import Flow
from diffeo.errors import ConfigError, ShapeError
from diffeo.nets import MLP, GlowConv
from diffeo.testing import randomize
from diffeo.training.auxiliary import auxiliary
from diffeo.transforms import Chain, Coupling, Inverse, LabelPrior
from diffeo.zoo.glow import MIXING, automatic_scales

TWO_LEVELS = (3, 4, 8)
tiny = partial(diffeo.zoo.build, "glow", size="tiny")


def integers(shape: tuple[int, ...], n: int = 16) -> torch.Tensor:
    return torch.randint(256, (n, *shape), generator=torch.Generator().manual_seed(0)).byte()


def test_scales_follow_the_size() -> None:
    sizes = {(1, 8, 8): 2, (1, 28, 28): 2, (3, 32, 32): 3, (3, 64, 64): 4, (3, 256, 256): 6}
    assert {s: automatic_scales(s) for s in sizes} == sizes
    assert automatic_scales((3, 4, 6)) == automatic_scales((1, 5, 5)) == 1


def test_every_level_is_exposed_and_rebuilds_the_image() -> None:
    flow = randomize(tiny(TWO_LEVELS).double().eval(), scale=0.5)
    assert [level.shape for level in flow.levels] == [(6, 2, 4), (24, 1, 2)]
    x = integers(TWO_LEVELS)
    z = flow.encode(x)
    eps = [z[:, level.slice].reshape(-1, *level.shape) for level in flow.levels]
    again = torch.cat([e.flatten(1) for e in eps], 1)
    assert torch.equal(flow.decode(again).long(), x.long())
    # Another fine level, the same coarse one: the image changes, its coarse latent does not.
    new = torch.cat((torch.zeros_like(eps[0]).flatten(1), eps[1].flatten(1)), 1)
    v = flow.continuous.decode(new)
    assert not torch.equal(flow.decode(new).long(), x.long())
    torch.testing.assert_close(flow.continuous.encode(v), new)


@pytest.mark.parametrize("mixing", MIXING)
def test_it_samples_at_twice_its_size(mixing: str) -> None:
    flow = tiny((1, 4, 4), (3,), mixing=mixing, condition="all", classifier=0.01)
    randomize(flow, scale=0.5)
    large = flow.resized((1, 8, 12))
    assert large.sample((2,), torch.eye(3)).shape == (2, 3, 1, 8, 12)
    assert [level.shape for level in large.levels] == [(2, 4, 6), (8, 2, 3)]
    assert {id(p) for p in large.parameters()} == {id(p) for p in flow.parameters()}
    x = integers((1, 8, 12), 3)
    assert torch.equal(large.decode(large.encode(x, torch.eye(3)), torch.eye(3)), x)


def test_initialization_reaches_every_network() -> None:
    torch.manual_seed(0)
    flow = tiny(TWO_LEVELS, depth=2)
    x = integers(TWO_LEVELS, 64)
    assert not flow.initialized
    flow.log_prob(x)
    flow.sample((2,))
    assert not flow.initialized
    flow.initialize(x)
    assert flow.initialized
    nets = {k: m for k, m in flow.named_modules() if isinstance(m, GlowConv)}
    assert len(nets) == 4
    seen: list[torch.Tensor] = []
    for net in nets.values():
        for part in (net.first, net.middle):
            # A copy: the ReLU after it works in place.
            part.register_forward_hook(lambda m, args, out: seen.append(out.clone()))
    noise = flow.transform.draw(len(x), center=True, like=flow.base.like)
    flow.log_prob(x, noise=noise)
    assert len(seen) == 8
    for y in seen:
        # `initialize` saw other noise, or its centre: nearly the same statistics.
        assert y.mean((0, 2, 3)).abs().max() < 0.02
        assert (y.std((0, 2, 3)) - 1).abs().max() < 0.05
    assert flow.encode(x).std() < 3


def test_initialization_reaches_networks_under_an_inverse() -> None:
    net = partial(GlowConv, width=4)
    flow = Flow(Chain((2, 2, 2), [Inverse(Coupling((2, 2, 2), net=net))]))
    assert not flow.initialized
    flow.initialize(torch.randn(32, 2, 2, 2))
    assert flow.initialized


def test_labels_move_the_top_or_everything() -> None:
    x, y = integers((1, 4, 4), 4), torch.eye(2)[[0, 0, 1, 1]]
    for condition in ("top", "all"):
        flow = randomize(tiny((1, 4, 4), (2,), condition=condition).double().eval(), scale=0.5)
        gap = flow.encode(x, y.double()) - flow.encode(x, y.flip(0).double())
        fine, coarse = (gap[:, level.slice].abs().max() for level in flow.levels)
        assert coarse > 0.01
        assert (fine > 0.01) == (condition == "all")


def test_no_likelihood_contains_the_classifier() -> None:
    flow = randomize(tiny((1, 4, 4), (3,), classifier=0.01).double(), scale=0.5)
    x, y = integers((1, 4, 4), 6), torch.eye(3).double().repeat(2, 1)
    noise = flow.transform.draw(6, like=flow.base.like)
    losses = auxiliary(flow)
    assert losses is not None
    nll, extra = losses(x, y, noise)
    torch.testing.assert_close(nll, -flow.log_prob(x, y, noise=noise))
    (prior,) = (m for m in flow.modules() if isinstance(m, LabelPrior))
    caught: list[torch.Tensor] = []
    prior.register_forward_hook(lambda m, args, out: caught.append(args[0]))
    flow.log_prob(x, y, noise=noise)
    bits = F.cross_entropy(prior.head(caught[0].mean((2, 3))), y, reduction="none") / math.log(2)
    # 0.01 bits for each bit of the classifier, in the bits/dim of 16 pixels.
    torch.testing.assert_close(extra, 0.01 * bits * 16 * math.log(2))
    before = flow.log_prob(x, y, noise=noise)
    torch.nn.init.ones_(prior.head.weight)
    assert torch.equal(flow.log_prob(x, y, noise=noise), before)
    assert auxiliary(tiny((1, 4, 4), (3,))) is None


def test_training_adds_the_classifier_and_shows_it_apart() -> None:
    torch.manual_seed(0)
    label = torch.randint(2, (256,))
    x = (torch.rand(256, 1, 4, 4) * 100 + 150 * label[:, None, None, None]).byte()
    y = F.one_hot(label, 2).float()
    flow = tiny((1, 4, 4), (2,), classifier=1.0)
    run = diffeo.fit(flow, (x, y), steps=80, batch_size=64, warmup=10, lr=3e-2, progress=False)
    mean = -flow.log_prob(x, y).mean().item()
    assert abs(run.metrics["train"] - mean) < 0.1 * abs(mean)
    assert run.history["auxiliary"][-1][1] < 0.2 * 16 * math.log(2)
    embedded = tiny((1, 4, 4), (2,), embedding=MLP((0,), (2,), (2,)), classifier=0.1)
    with pytest.raises(ConfigError, match="embeds"):
        diffeo.fit(embedded, (x, y), steps=1, progress=False)


@pytest.mark.parametrize(
    ("shape", "hyper", "message"),
    [
        ((3, 4), {}, "images"),
        ((1, 5, 5), {}, "Squeeze"),
        ((1, 4, 4), {"mixing": "conv2x2"}, "mixing must be one of"),
        ((1, 4, 4), {"coupling": "spline"}, "'affine' or 'additive'"),
        ((1, 4, 4), {"condition": "bottom"}, "'top' or 'all'"),
        ((1, 4, 4), {"classifier": 0.01}, "one-hot label"),
        ((4,), {"classifier": 0.01}, "one-hot label"),
    ],
)
def test_bad_settings(shape: tuple[int, ...], hyper: dict, message: str) -> None:
    with pytest.raises((ConfigError, ShapeError), match=message):
        tiny(shape, **hyper)


@pytest.mark.slow
def test_the_paper_size_takes_a_step() -> None:
    flow = diffeo.zoo.build("glow", (3, 32, 32), size="paper")
    assert sum(isinstance(m, GlowConv) and m.width == 512 for m in flow.modules()) == 3 * 32
    assert [level.shape for level in flow.levels] == [(6, 16, 16), (12, 8, 8), (48, 4, 4)]
    assert 44e6 < flow.num_parameters < 45e6
    x = integers((3, 32, 32), 4)
    run = diffeo.fit(flow, x, steps=1, batch_size=2, initialize_rows=4, progress=False)
    assert math.isfinite(run.metrics["train"])
