"""The model of strings: exact where it says so, causal, ended by its end, and as published."""

from __future__ import annotations

import pytest
import torch

import diffeo
from diffeo.errors import ConfigError, ShapeError
from diffeo.nets import CausalTransformer, ResidualMLP
from diffeo.testing import randomize
from diffeo.transforms import Coupling, SymbolAutoregressive


def exact(length: int = 6, levels: int = 5, scale: float = 1.0) -> diffeo.Flow:
    torch.manual_seed(0)
    flow = diffeo.zoo.build("passflow", (length,), size="tiny", levels=levels)
    return randomize(flow.eval(), 0, scale)


def test_the_likelihood_does_not_depend_on_the_noise() -> None:
    flow = exact().double()
    x = torch.randint(0, 5, (50, 6))
    draws = torch.stack([flow.log_prob(x) for _ in range(5)])
    assert flow.likelihood == "exact"
    assert draws.std(0).max() < 1e-12
    assert draws.std(1).min() > 0.1


def test_log_prob_is_the_sum_of_conditionals() -> None:
    """Against a loop over places that gives the network the places before alone."""
    flow = exact().double()
    layer = next(part for part in flow.transform if isinstance(part, SymbolAutoregressive))
    x = torch.randint(0, 5, (20, 6))
    total = torch.zeros(20, dtype=torch.float64)
    for i in range(6):
        some = x.clone()
        some[:, i:] = torch.randint(0, 5, (20, 6 - i))
        p = layer.probabilities(some, None, torch.float64)[:, i]
        assert torch.allclose(p.sum(-1), torch.ones(20, dtype=torch.float64))
        total += p.gather(-1, x[:, i : i + 1])[:, 0].log()
    assert torch.allclose(flow.log_prob(x), total)


def test_after_the_end_comes_the_end() -> None:
    flow = exact().double()
    layer = next(part for part in flow.transform if isinstance(part, SymbolAutoregressive))
    p = layer.probabilities(torch.tensor([[1, 0, 3, 2, 0, 0]]), None, torch.float64)[0]
    assert (p[:2, 0] < 0.99).all()
    assert (p[2:, 0] > 1 - 5 * 1.01e-6).all()


def test_rare_symbols_come_back_in_float32() -> None:
    """Of 96 levels and sharp conditionals, many have the least probability, 1e-5, and after the end 1e-6."""
    flow = exact(12, 96, 3.0)
    x = torch.randint(0, 96, (300, 12))
    least = next(part for part in flow.transform if isinstance(part, SymbolAutoregressive))
    p = least.probabilities(x, None, torch.float32).gather(-1, x[..., None])
    assert (p < 1.1e-6).any()
    assert ((p > 0.99e-5) & (p < 1.1e-5)).any()
    assert torch.equal(flow.decode(flow.encode(x)).long(), x)
    assert flow.log_prob(x).isfinite().all()


def test_samples_follow_the_probabilities() -> None:
    flow = exact(2, 3).double()
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    p = flow.log_prob(pairs).exp().detach()
    x = flow.sample(20_000, generator=torch.Generator().manual_seed(0)).long()
    counts = torch.bincount(3 * x[:, 0] + x[:, 1], minlength=9).double()
    large = 20_000 * p > 5
    chi2 = ((counts - 20_000 * p) ** 2 / (20_000 * p))[large].sum()
    assert chi2 < 30


def test_the_published_size() -> None:
    with torch.device("meta"):
        flow = diffeo.zoo.build("passflow", (10,), size="paper", levels=90)
    couplings = [part for part in flow.transform if isinstance(part, Coupling)]
    assert len(couplings) == 18
    assert flow.likelihood == "bound"
    assert couplings[0].partition.visible.shape == (10,)
    net = couplings[0].net
    assert isinstance(net, ResidualMLP)
    assert (net.width, len(net.blocks)) == (256, 2)


def test_runs_of_characters_alternate() -> None:
    flow = diffeo.zoo.build("passflow", (5,), size="tiny", layer="affine", run=2)
    first, second = [part.partition for part in flow.transform if isinstance(part, Coupling)]
    assert first.visible.tolist() == [True, True, False, False, True]
    assert second.visible.tolist() == [False, False, True, True, False]


def test_a_sequence_that_is_shorter_gives_the_first_rows() -> None:
    net = CausalTransformer((5, 3), (5, 2), width=8, heads=2, blocks=2, zero_init=False).eval()
    x = torch.randn(4, 5, 3)
    assert torch.allclose(net(x[:, :3]), net(x)[:, :3], atol=1e-6)
    later = torch.cat([x[:, :3], torch.randn(4, 2, 3)], dim=1)
    assert torch.allclose(net(later)[:, :4], net(x)[:, :4], atol=1e-6)
    assert not torch.allclose(net(later)[:, 4], net(x)[:, 4])


def test_place_by_place_is_the_same() -> None:
    net = CausalTransformer((5, 3), (5, 2), (2,), width=8, heads=2, blocks=2, zero_init=False)
    x, context = torch.randn(4, 5, 3), torch.randn(4, 2)
    progress, rows = net.eval().begin(context), []
    for i in range(5):
        row, progress = net.step(progress, x[:, i - 1])
        rows.append(row)
    assert torch.allclose(torch.stack(rows, 1), net(x, context), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "spline"}, "layer"),
        ({"dequantization": "variational"}, "exact, so variational dequantization has nothing"),
        ({"alphabet": "abc"}, "alphabet of 3 characters has 4 levels, got levels = 27"),
        ({"alphabet": "aa", "levels": 3}, "'a' twice"),
        ({"layer": "affine", "run": 0}, "run must be 1 or more"),
        ({"width": 10, "heads": 4}, "4 heads"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        diffeo.zoo.build("passflow", (4,), **settings)


def test_pictures_are_no_strings() -> None:
    with pytest.raises(ShapeError, match=r"codes of strings, \(length,\)"):
        diffeo.zoo.build("passflow", (1, 4, 4))


def test_other_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match="a CausalTransformer, got MLP"):
        SymbolAutoregressive((3,), 4, diffeo.nets.MLP)
