"""The heavy-tailed experiment: its sampler, its density, and the model's bases."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

from diffeo import zoo
from diffeo.distributions import Copula, DiagonalNormal, Product, StudentT
from diffeo.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tails() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tails_script", ROOT / "scripts" / "tails.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sampler_has_the_copula_and_the_marginals(tails: ModuleType) -> None:
    stats = pytest.importorskip("scipy.stats")
    n = 10_000
    x = tails.sample(n, 0)
    tau = stats.kendalltau(*x.mT.numpy()).statistic
    # The standard error of tau is at most sqrt(2 (1 - tau^2) / n).
    assert abs(tau - 0.6) < 4 * math.sqrt(2 * (1 - 0.6**2) / n)
    for column in x.mT:
        assert stats.kstest(column.numpy(), stats.t(2).cdf).pvalue > 1e-3


def test_the_density_integrates_to_one_and_has_the_known_entropy(tails: ModuleType) -> None:
    t = torch.linspace(-9, 9, 601, dtype=torch.float64)
    x = torch.cartesian_prod(t.sinh(), t.sinh())
    log_weight = torch.cartesian_prod(t.cosh().log(), t.cosh().log()).sum(1) + 2 * math.log(
        float(t[1] - t[0])
    )
    assert float((tails.log_prob(x) + log_weight).exp().sum()) == pytest.approx(1, abs=1e-5)
    mean, error = tails.optimum(100_000)
    assert abs(mean - 3.357) < 4 * error + 0.003
    far = torch.tensor([[-1e6, 1e6], [1e12, 1e12], [-1e12, -1e12]], dtype=torch.float64)
    assert bool(tails.log_prob(far).isfinite().all())


def test_bases_of_the_model() -> None:
    def base(name: str, d: int = 3, **hyper: object) -> torch.nn.Module:
        return zoo.build("copula", (d,), size="tiny", base=name, **hyper).base

    assert isinstance(base("normal"), torch.nn.Module)
    fixed = base("student", df=[2.0, 3.0, 4.0])
    assert isinstance(fixed, StudentT)
    assert fixed.df.tolist() == pytest.approx([2, 3, 4])
    assert not list(fixed.parameters())
    assert list(base("learned").parameters())
    assert isinstance(base("copula"), Copula)
    heavier = base("heavier", 1)
    assert isinstance(heavier, Product)
    assert heavier.event_shape == (1,)
    assert isinstance(base("adaptive", df=[math.inf] * 3), DiagonalNormal)


def test_light_entries_never_depend_on_heavy_ones() -> None:
    """The adaptive model's Jacobian: d z_light / d x_heavy is zero, the other blocks are not."""
    torch.manual_seed(0)
    df = [2.0, math.inf, 3.0, math.inf, math.inf]
    flow = zoo.build("copula", (5,), size="tiny", base="adaptive", df=df).double()
    for p in flow.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(1, 5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow.encode(v)[0], x)[:, 0]
    light, heavy = [1, 3, 4], [0, 2]
    assert not bool(jacobian[:3, heavy].any())
    assert bool(jacobian[:3, light].any())
    assert bool(jacobian[3:, heavy].any())
    assert isinstance(flow.base, Product)
    assert flow.base.sizes == [3, 2]


REFUSED = {
    "another base": ({"base": "cauchy"}, "cauchy"),
    "a df too few": ({"df": [2.0]}, "2"),
    "a negative df": ({"df": -1.0}, "positive"),
    "an infinite df": ({"df": math.inf}, "adaptive"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    hyper, says = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        zoo.build("copula", (2,), size="tiny", **hyper)
    assert says in str(caught.value)
