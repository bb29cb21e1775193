"""Rows of numbers: which bound they are, of how many draws and levels."""

import math
from dataclasses import replace

import pytest
import torch

import diffeo
from diffeo.data import load
from diffeo.data.datasets import _with_bits
from diffeo.errors import InputError
from diffeo.evaluation import baselines, evaluate
from diffeo.testing import randomize


@pytest.fixture(scope="module")
def few():
    """Pictures of 256 levels."""
    data = load("digits")
    g = torch.Generator().manual_seed(0)
    parts = {
        name: torch.randint(0, 256, (n, 1, 4, 4), generator=g, dtype=torch.uint8)
        for name, n in (("train", 50), ("validation", 10), ("test", 30))
    }
    return replace(data, **parts, levels=256, name="noise", labels=None)


def test_importance_weighting_is_named_and_lower_in_bits(few):
    flow = diffeo.zoo.build("realnvp", (1, 4, 4), size="tiny", dequantization="variational")
    # Far from the start, where the noise matters.
    flow = randomize(flow, 0, 0.5)
    one = evaluate(flow, few, draws=1)
    row = evaluate(flow, few, importance=20, batch_size=40)
    assert (one.kind, one.note) == ("bound", "1 draw of learned noise")
    assert row.kind == "importance-weighted bound, K = 20"
    assert row.note == "K draws of learned noise an example"
    assert row.bits_error > 0
    assert row.bits < one.bits
    assert evaluate(flow, few, importance=20, batch_size=40) == row
    plain = diffeo.zoo.build("realnvp", (1, 4, 4), size="tiny")
    assert evaluate(plain, few, importance=2).note == "K draws of uniform noise an example"
    with pytest.raises(InputError, match="not both"):
        evaluate(flow, few, importance=2, draws=2)
    with pytest.raises(InputError, match="exact"):
        evaluate(flow.continuous, few, importance=2)


def test_bits_are_those_of_the_levels_that_were_kept(few):
    """A flow that is uniform over the bins costs 5 bits for 5-bit pictures, 8 for 8-bit ones."""
    some = _with_bits(few, 5)
    assert some.levels == 32
    assert int(some.train.max()) == 31
    assert "5 of 8 bits kept" in some.source
    for data, bits in ((few, 8.0), (some, 5.0)):
        assert baselines(data)[0].bits == pytest.approx(bits)
        flow = diffeo.zoo.build(
            "flowpp", data.event_shape, size="tiny", levels=data.levels, dequantization="uniform"
        )
        row = evaluate(flow, data, draws=1)
        assert row.bits == pytest.approx(row.nats / (16 * math.log(2)))
        # The scaling of the data is a layer: near the start the model is no further from uniform in one than the other.
        assert abs(row.bits - bits) < 1.5
