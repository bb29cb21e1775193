"""The round-trip audit passes what inverts and names what does not."""

import math

import pytest
import torch

from diffeo import Flow, zoo
from diffeo.distributions import StandardNormal
from diffeo.parts import register
from diffeo.report import audit_round_trip
from diffeo.transforms import Transform


@register
class _Wrong(Transform):
    """Adds `shift` on the way back only; log-likelihood `ladj`."""

    def __init__(self, event_shape, shift=0.0, ladj=0.0):
        super().__init__(event_shape)
        self.shift, self.ladj = shift, ladj

    def forward(self, x, context=None):
        return x, x.new_full((len(x),), self.ladj)

    def inverse(self, z, context=None):
        return z + self.shift, z.new_zeros(len(z))


def wrong(**settings):
    return Flow(_Wrong((3,), **settings), StandardNormal((3,)))


@pytest.mark.parametrize("name", ["nice", "realnvp"])
def test_integers_come_back_exactly(name):
    torch.manual_seed(0)
    flow = zoo.build(name, (1, 8, 8), size="tiny", levels=17, zero_init=False).eval()
    found = audit_round_trip(flow, torch.randint(0, 17, (20, 1, 8, 8), dtype=torch.uint8))
    assert found.data_error == 0
    assert found.rows == 20
    assert found.finite == 1
    assert found.data_passes
    assert found.verdict.startswith("Sound")
    assert "integer" in found.verdict


def test_real_numbers_come_back_to_the_dtype():
    torch.manual_seed(0)
    flow = zoo.build("realnvp", (5,), size="tiny", zero_init=False).eval()
    single = audit_round_trip(flow, torch.randn(50, 5))
    double = audit_round_trip(flow.double(), torch.randn(50, 5).double())
    assert single.passes
    assert double.passes
    assert double.data_error < 1e-12
    assert double.tolerance < single.tolerance


def test_a_map_that_does_not_invert_is_named():
    found = audit_round_trip(wrong(shift=0.1), torch.randn(10, 3))
    assert found.data_error == pytest.approx(0.1, abs=1e-5)
    assert not found.passes
    assert "do not come back" in found.verdict


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_likelihoods_that_are_not_finite_are_counted(bad):
    found = audit_round_trip(wrong(ladj=bad), torch.randn(10, 3))
    assert found.finite == 0
    assert not found.passes
    assert "not finite" in found.verdict


def test_nan_in_a_round_trip_is_the_worst_error():
    assert audit_round_trip(wrong(shift=math.nan), torch.randn(4, 3)).data_error == math.inf
