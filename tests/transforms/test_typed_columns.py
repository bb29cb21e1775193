"""TypedColumns: probabilities that are exact for independent columns, bounds that sum to one, and the support."""

from __future__ import annotations

import math

import pytest
import torch
from tests.conformance.tables import MIXED, rows

from diffeo import Flow, zoo
from diffeo.columns import Column, Schema, schema
from diffeo.errors import ConfigError, ShapeError
from diffeo.testing import randomize
from diffeo.transforms import Chain, LULinear, TypedColumns


def _fitted(known: Schema, x: torch.Tensor) -> TypedColumns:
    layer = TypedColumns(known).double()
    layer.initialize(x)
    return layer


def test_independent_columns_have_their_frequencies_whatever_the_noise() -> None:
    """With N(0, I) as the density, P(k) is the smoothed relative frequency, and no noise is left in it."""
    known = schema(
        {
            "columns": {
                "colour": {"kind": "categorical", "values": list("abcde")},
                "count": {"kind": "integer", "low": 0, "high": 3},
                "big": {"kind": "integer", "low": 0, "high": 999},
            }
        }
    )
    g = torch.Generator().manual_seed(0)
    n = 4000
    colour = torch.multinomial(
        torch.tensor([0.5, 0.2, 0.2, 0.1, 0.0]), n, True, generator=g
    ).double()
    count = torch.randint(0, 4, (n,), generator=g).double()
    big = torch.where(
        torch.rand(n, generator=g) < 0.6, 0, torch.randint(0, 1000, (n,), generator=g)
    )
    x = torch.stack([colour, count, big.double()], -1)
    flow = Flow(Chain((3,), [_fitted(known, x), LULinear])).double().eval()
    each = [flow.log_prob(x[:50], generator=g) for _ in range(2)]
    assert torch.allclose(*each, atol=1e-9)
    colours = torch.tensor([[k, 0.0, 0.0] for k in range(5)], dtype=torch.float64)
    counted = torch.bincount(colour.long(), minlength=5) + 0.5
    found = flow.log_prob(colours).softmax(0)
    assert torch.allclose(found, (counted / counted.sum()).double(), atol=1e-6)
    # The atom at 0 has its own bin, in spite of 1,000 levels.
    ends = torch.tensor([[0.0, 0, 0], [0.0, 0, 500]], dtype=torch.float64)
    zero, one = flow.log_prob(ends).detach()
    assert float(zero - one) > math.log(0.6 / 0.01)


def test_probabilities_of_levels_sum_to_one() -> None:
    """Of every colour and count, E_u p by the midpoint rule in the noise, under a rotation that mixes them."""
    known = schema(
        {
            "columns": {
                "colour": {"kind": "categorical", "values": list("ab"), "missing": True},
                "ok": {"kind": "integer", "low": 0, "high": 1},
            }
        }
    )
    x = torch.tensor([[0.0, 0], [1, 1], [2, 0], [0, 1], [0, 0], [2, 1]], dtype=torch.float64)
    chain = Chain((2,), [_fitted(known, x), LULinear])
    flow = randomize(Flow(chain).double().eval(), 0, 0.5)
    # Narrower than N(0, I), so that p / N, which the rule integrates, is bounded.
    with torch.no_grad():
        chain.parts[1].log_diagonal.fill_(0.4)
    axis = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
    u = torch.cartesian_prod(axis, axis, axis)
    total = 0.0
    for colour in range(3):
        for ok in range(2):
            event = torch.tensor([colour, ok], dtype=torch.float64).expand(len(u), 2)
            total += float(flow.log_prob(event, noise=(u, None)).exp().mean().detach())
    assert abs(total - 1) < 5e-3


def test_density_of_the_circle_and_of_missing_values() -> None:
    """Uniform angles have 1 / period; a missing value P(missing), a value its density times P(there)."""
    known = schema(
        {"columns": {"angle": {"period": 360}, "x": {"kind": "continuous", "missing": True}}}
    )
    x = torch.tensor([[0.0, 1, 0], [90, 0, 1], [180, 3, 0], [270, 0, 1]], dtype=torch.float64)
    layer = _fitted(known, x)
    flow = Flow(Chain((3,), [layer, LULinear])).double().eval()
    found = flow.log_prob(x)
    normal = torch.distributions.Normal(2.0, 1.0)
    there = math.log(0.5) + normal.log_prob(torch.tensor([1.0, 3.0], dtype=torch.float64))
    expected = torch.stack([there[0], torch.tensor(math.log(0.5)), there[1], torch.tensor(math.log(0.5))])  # fmt: skip
    assert torch.allclose(found + math.log(360), expected.double(), atol=1e-8)
    assert flow.likelihood == "bound"
    assert flow.properties.measure == "mixed"


OUTSIDE = [(1, -1.0), (1, 0.0), (2, 3.5), (4, 361.0), (5, 10.0), (5, 1.5), (8, 3.0), (9, 6.0), (9, -1.0)]  # fmt: skip


@pytest.mark.parametrize(("entry", "value"), OUTSIDE)
def test_outside_the_support(entry: int, value: float) -> None:
    flow = zoo.build("tabular", MIXED.event_shape, size="tiny", schema=MIXED).double()
    flow.requires_grad_(False)
    x = rows()[:1].clone()
    assert bool(flow.log_prob(x).isfinite())
    x[0, entry] = value
    assert float(flow.log_prob(x)) == -math.inf
    x[0, entry] = math.nan
    assert float(flow.log_prob(x)) == -math.inf


def test_samples_are_rows_of_the_table() -> None:
    flow = randomize(zoo.build("tabular", MIXED.event_shape, size="tiny", schema=MIXED), 1, 2.0)
    x = flow.eval().sample(2000)
    assert bool(flow.log_prob(x).isfinite().all())
    assert set(x[:, 9].unique().tolist()) <= set(range(6))
    assert 0 < float((x[:, 3] == 1).float().mean()) < 1


def test_levels_come_back_in_float32() -> None:
    """Also the rarest of two million."""
    known = Schema((Column("n", "integer", 0, 2**21 - 1), Column("d", "date", 0, 3000)))
    g = torch.Generator().manual_seed(1)
    n = (torch.rand(5000, generator=g) ** 4 * 2**21).floor()
    x = torch.stack([n, torch.randint(0, 3001, (5000,), generator=g).float()], -1)
    layer = TypedColumns(known)
    layer.initialize(x)
    z, _ = layer(x, None, layer.draw(len(x), center=True))
    assert torch.equal(layer.inverse(z)[0], x)


def test_what_cannot_be_a_schema() -> None:
    with pytest.raises(ConfigError, match="did you mean 'integer'"):
        Column("a", "integr")
    with pytest.raises(ConfigError, match="give its low and high"):
        Column("a", "bounded")
    with pytest.raises(ConfigError, match="declare it continuous"):
        Column("a", "integer", 0, 1e9)
    with pytest.raises(ConfigError, match="no column 'c' to be given"):
        schema({"columns": {"a": "continuous"}, "given": ["c"]})
    with pytest.raises(ConfigError, match="nothing to model"):
        schema({"columns": {"a": "continuous"}, "given": ["a"]})
    with pytest.raises(ShapeError, match="10 entries"):
        zoo.build("tabular", (3,), schema=MIXED)
