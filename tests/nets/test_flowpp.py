"""Flow++'s network: the attention is attention, the features keep their scale, and what does not fit is refused."""

import pytest
import torch
import torch.nn.functional as F

from diffeo.errors import ConfigError, ShapeError
from diffeo.nets import GatedAttentionNet
from diffeo.nets.convolutional import ContextMap
from diffeo.nets.flowpp import _GatedAttention
from diffeo.testing import randomize


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_attention_is_torch_s_attention():
    layer = randomize(_GatedAttention(8, 2, 0.0).double(), 0)
    h, places = torch.randn(3, 8, 2, 5).double(), torch.randn(8, 2, 5).double()
    q, k, v = layer.project(h + places).flatten(2).chunk(3, dim=1)

    def split(t):
        return t.reshape(3, 2, 4, 10).transpose(-1, -2)

    out = F.scaled_dot_product_attention(split(q), split(k), split(v))
    out = out.transpose(-1, -2).reshape(3, 8, 2, 5)
    value, gate = layer.last(out).chunk(2, dim=1)
    assert torch.allclose(layer(h, places), h + value * gate.sigmoid())


def test_every_position_reaches_every_other_only_by_attention():
    x = torch.randn(1, 1, 1, 16, dtype=torch.float64, requires_grad=True)
    # Without it: three convolutions of width 3, each reaching one further.
    for heads, reach in ((2, 16), (0, 4)):
        net = GatedAttentionNet((1, 1, 16), (1, 1, 16), width=4, blocks=1, heads=heads)
        net = randomize(net.double(), 1)
        (g,) = torch.autograd.grad(net(x)[0, 0, 0, 0], x)
        assert int((g != 0).sum()) == reach


def test_features_keep_their_scale_and_the_output_starts_at_zero():
    net = GatedAttentionNet((3, 8, 8), (3, 8, 8, 2), width=32, blocks=4)
    seen = []
    for block in net.blocks:
        block.register_forward_hook(lambda _m, _a, out: seen.append(float(out.std())))
    assert bool((net(10 * torch.randn(4, 3, 8, 8)) == 0).all())
    assert all(0.5 < s < 2 for s in seen)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="heads that divide the width"):
        GatedAttentionNet((1, 2, 2), (1, 2, 2), width=6, heads=4)
    with pytest.raises(ShapeError, match="takes images"):
        GatedAttentionNet((4,), (4,))


def test_a_larger_picture_as_context_is_convolved_and_others_are_flattened():
    for context, size, spatial in (
        ((3, 8, 8), (8, 8), True),
        ((3, 8, 8), (8, 4), True),
        ((3, 8, 8), (2, 4), True),
        ((3, 8, 8), (3, 8), False),
        ((3, 4, 4), (8, 8), False),
        ((5,), (8, 8), False),
    ):
        layer = ContextMap(context, 6, size)
        out = layer(torch.randn(2, *context))
        assert layer.spatial == spatial
        assert tuple(out.shape) == ((2, 6, *size) if spatial else (2, 6, 1, 1))
