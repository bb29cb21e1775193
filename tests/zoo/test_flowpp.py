"""Flow++: published size, options, and what it cannot take."""

import pytest
import torch

import diffeo
from diffeo.errors import ConfigError, ShapeError
from diffeo.families import Affine, LogisticMixtureCDF
from diffeo.nets.flowpp import _GatedAttention
from diffeo.transforms import Coupling, Dequantize, VariationalDequantize


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _build(*shape, size="tiny", **hyper):
    return diffeo.zoo.build("flowpp", *shape, size=size, **hyper)


def _families(flow):
    return {type(m) for c in flow.modules() if isinstance(c, Coupling) for m in c.family.modules()}


def test_the_paper_s_size():
    """31.4 million parameters; nine couplings, each with ten blocks of convolution and attention."""
    with torch.device("meta"):
        flow = _build((3, 32, 32), size="paper")
    assert flow.num_parameters == pytest.approx(31.4e6, rel=0.005)
    first, *rest = flow.transform
    assert len(first.transform) == 4
    couplings = [m for part in rest for m in part.modules() if isinstance(m, Coupling)]
    shapes = [c.partition.changed_shape for c in couplings]
    assert shapes == [(3, 32, 16)] * 4 + [(6, 16, 16)] * 2 + [(12, 16, 8)] * 3
    assert all(len(c.net.blocks) == 10 and c.net.dropout == 0.2 for c in couplings)


@pytest.mark.slow
def test_the_paper_s_size_takes_a_step():
    flow = _build((3, 32, 32), size="paper")
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    flow.initialize(x)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-3)
    losses = []
    for _ in range(2):
        # The same noise, so that the loss falls by the step alone.
        torch.manual_seed(1)
        loss = -flow.eval()(x).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]


def test_options_choose_the_parts():
    flow = _build((1, 4, 8))
    first = next(iter(flow.transform))
    assert isinstance(first, VariationalDequantize)
    assert LogisticMixtureCDF in _families(flow)
    affine = _build((1, 4, 8), coupling="affine", dequantization="uniform", levels=32)
    first = next(iter(affine.transform))
    assert type(first) is Dequantize
    assert first.quanta == 32
    assert _families(affine) == {Affine}
    # Halves of columns have 16 positions, channels after the squeeze 8, columns again 4.
    for most, expected in ((None, 4), (8, 2), (4, 1), (3, 0)):
        flow = _build((1, 4, 8), attention_positions=most, dequantization="uniform")
        assert sum(isinstance(m, _GatedAttention) for m in flow.modules()) == expected
    with pytest.raises(ConfigError, match="'mixture' or 'affine'"):
        _build((1, 4, 8), coupling="spline")


def test_mixture_couplings_start_near_the_identity():
    flow = _build((1, 4, 8), levels=None, standardize=False, alpha=None).double()
    for coupling in (m for m in flow.modules() if isinstance(m, Coupling)):
        x = torch.randn(5, *coupling.event_shape, dtype=torch.float64)
        z, ladj = coupling(x)
        assert (z - x).abs().max() < 2
        assert ladj.abs().max() / x[0].numel() < 0.5


def test_every_parameter_has_a_gradient():
    flow = _build((3, 4, 8), (2,), levels=8).train()
    x, c = torch.randint(0, 8, (16, 3, 4, 8)), torch.randn(16, 2)
    flow.initialize(x, c)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    # The outputs start at zero, so what is before them moves from the second or third step on.
    for _ in range(3):
        optimizer.zero_grad()
        (-flow(x, c).mean()).backward()
        optimizer.step()
    still = [
        k for k, p in flow.named_parameters() if p.grad is None or not bool((p.grad != 0).any())
    ]
    assert not still


def test_shapes_that_it_cannot_take():
    with pytest.raises(ShapeError, match="vectors"):
        _build((3, 4))
    with pytest.raises(ShapeError, match="Squeeze"):
        _build((1, 3, 4))
    # Attention knows its positions; without it any size does.
    with pytest.raises(ShapeError, match="cannot be resized"):
        _build((1, 4, 8)).resized((1, 8, 16))
    flow = _build((1, 4, 8), heads=0)
    assert flow.resized((1, 8, 16)).log_prob(torch.zeros(2, 1, 8, 16, dtype=torch.uint8)).shape == (
        2,
    )
