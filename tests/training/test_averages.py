"""Averaged weights come with averaged statistics."""

import torch

import diffeo
from diffeo.training.averages import Averages
from diffeo.transforms import BatchNorm, Chain


def test_statistics_are_averaged_with_the_weights():
    flow = diffeo.Flow(Chain((2,), [BatchNorm]))
    layer = next(iter(flow.transform))
    averages = Averages(flow, 0.5)
    averages.update()
    name, buffer = next((n, b) for n, b in layer.named_buffers() if b.is_floating_point())
    before = buffer.clone()
    with torch.no_grad():
        buffer.add_(1.0)
    averages.update()
    share = 1 - min(0.5, 2 / 11)
    with averages.in_place():
        assert torch.allclose(layer.get_buffer(name), before + share)
    assert torch.equal(layer.get_buffer(name), before + 1)
