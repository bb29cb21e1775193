"""The same numbers on a GPU, where there is one."""

import pytest
import torch

import diffeo

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="this machine has no CUDA device"
)


@pytest.mark.parametrize("name", diffeo.zoo.names())
def test_log_prob_and_sample(name):
    torch.manual_seed(0)
    flow = diffeo.zoo.build(name, diffeo.zoo.card(name).event_shape, size="tiny").eval()
    x = flow.sample((8,))
    noise = flow.transform.draw(8, center=True, like=flow.base.like)
    expected = flow.log_prob(x, noise=noise)
    flow.cuda()
    generator = torch.Generator("cuda").manual_seed(0)
    assert flow.sample((4,), generator=generator).is_cuda
    assert torch.allclose(flow.log_prob(x.cuda(), noise=noise).cpu(), expected, rtol=1e-4)
    assert flow.log_prob(x.cuda(), generator=generator).is_cuda


def test_fit_comes_home():
    flow = diffeo.zoo.build("realnvp", (2,), size="tiny")
    data = diffeo.data.load("moons", size=200)
    diffeo.fit(flow, data, steps=5, ema=0.9, device="cuda", progress=False)
    assert flow.device.type == "cpu"
    assert torch.isfinite(flow.log_prob(data.test)).all()
