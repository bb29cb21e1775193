"""Glow's networks: edge padding, the scaled kernel, initialization."""

import math

import pytest
import torch
import torch.nn.functional as F

from diffeo.errors import ConfigError, InputError, ShapeError
from diffeo.nets import GlowConv, PerChannel, ZeroConv
from diffeo.nets.glow import RATE
from diffeo.testing import randomize


def reference(conv: torch.nn.Module, x: torch.Tensor, rate: float) -> torch.Tensor:
    """(w * [x, edge] + b) exp(rate l), written as the publication has it."""
    weight = conv.weight
    if conv.edge is not None:
        edge = F.pad(torch.zeros(len(x), 1, *x.shape[2:]).to(x), (1, 1, 1, 1), value=1.0)
        x = torch.cat((F.pad(x, (1, 1, 1, 1)), edge), 1)
        weight = torch.cat((weight, conv.edge), 1)
    y = F.conv2d(x, weight)
    shift, log_scale = (v[:, None, None] for v in (conv.shift, conv.log_scale))
    return (y + shift) * (rate * log_scale).exp()


@pytest.mark.parametrize("channels", [2, 9])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_the_network_is_the_published_one(channels: int, size: tuple[int, int]) -> None:
    net = randomize(GlowConv((channels, *size), (3, *size, 2), width=4).double())
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    h = reference(net.first, x, 1.0).relu()
    h = reference(net.middle, h, 1.0).relu()
    expected = reference(net.last, h, RATE)
    # Parameter p of channel c is map p * 3 + c.
    expected = expected.reshape(2, 2, 3, *size).movedim(1, -1)
    torch.testing.assert_close(net(x), expected)
    for part in (net.first, net.middle, net.last):
        fixed = part.frozen()
        assert not list(fixed.parameters())
        h = torch.randn(2, part.weight.shape[1], *size, dtype=torch.float64)
        assert torch.equal(fixed(h), part(h))


def test_it_sees_the_border() -> None:
    net = randomize(ZeroConv((1, 5, 5), (1, 5, 5)).double())
    y = net(torch.zeros(1, 1, 5, 5, dtype=torch.float64))[0, 0]
    inside = y[1:-1, 1:-1]
    assert torch.equal(inside, inside[0, 0].expand(3, 3))
    assert not torch.isclose(y[0, 2], inside[0, 0])
    assert not torch.isclose(y[0, 0], y[0, 2])


def test_all_start_at_zero() -> None:
    x = torch.randn(3, 4, 2, 2)
    assert not GlowConv((4, 2, 2), (4, 2, 2, 2))(x).any()
    assert not ZeroConv((4, 2, 2), (4, 2, 2, 2), (3,))(x, torch.randn(3, 3)).any()
    assert not PerChannel((0,), (4, 2, 2, 2), (3,))(x[:, :0, 0, 0], torch.randn(3, 3)).any()


def test_actnorms_are_set_in_order_and_once() -> None:
    torch.manual_seed(0)
    net = GlowConv((2, 4, 6), (2, 4, 6, 2), (3,), width=8).double()
    x = 5 + 3 * torch.randn(64, 2, 4, 6, dtype=torch.float64)
    context = torch.randn(64, 3, dtype=torch.float64)
    net.initialize(x, context)
    first = net.first(x)
    second = net.middle((first + net.context_map(context)).relu())
    for y in (first, second):
        assert y.mean((0, 2, 3)).abs().max() < 1e-9
        assert (y.var((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-9
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.initialize(x[:2], context[:2])
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_bad_input() -> None:
    net = GlowConv((2, 2, 2), (2, 2, 2, 2), width=4)
    with pytest.raises(InputError, match="0 rows"):
        net.initialize(torch.zeros(0, 2, 2, 2))
    with pytest.raises(InputError, match="NaN"):
        net.initialize(torch.full((4, 2, 2, 2), math.nan))
    assert not net.first.initialized
    with pytest.raises(ShapeError, match="images"):
        GlowConv((4,), (4, 2))
    with pytest.raises(ShapeError, match="PerChannel"):
        PerChannel((0,), (4, 2), (3,))
    with pytest.raises(ConfigError, match="context_shape"):
        PerChannel((0,), (4, 2, 2, 2))
    with pytest.raises(ConfigError, match="width"):
        GlowConv((2, 2, 2), (2, 2, 2), width=0)


def test_autocast_and_layout() -> None:
    torch.manual_seed(0)
    net = randomize(GlowConv((3, 4, 4), (3, 4, 4, 2), width=8))
    x = torch.randn(2, 3, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = net(x)
    assert low.dtype == torch.bfloat16
    assert (low - net(x)).abs().max() < 0.1 * net(x).abs().max()
    hidden = net.first(x)
    assert hidden.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(net(x.to(memory_format=torch.channels_last)), net(x))
