"""Bases for tails against scipy, the copula against a grid, and the estimators of tail indices."""

from __future__ import annotations

import math

import pytest
import torch
from tests.conformance.shared import mlp

import diffeo
from diffeo.distributions import (
    Copula,
    DiagonalNormal,
    GaussianMixture,
    GeneralizedNormal,
    Laplace,
    LocationScale,
    Logistic,
    Product,
    StudentT,
    frozen,
    hill,
    kernel,
    light_first,
    moment,
    tail_adaptive,
    tail_indices,
)
from diffeo.distributions.student import log_tail, quantile
from diffeo.errors import ConfigError, InputError, ShapeError
from diffeo.families import Additive
from diffeo.testing import randomize
from diffeo.transforms import Elementwise

stats = pytest.importorskip("scipy.stats")
Z = torch.tensor([[-300.0], [-2.0], [0.1], [5.0]], dtype=torch.float64)
LAWS = {
    "normal": (DiagonalNormal((1,), 0.5, 2.0), lambda: stats.norm(0.5, 2)),
    "laplace": (Laplace((1,), 0.5, 2.0), lambda: stats.laplace(0.5, 2)),
    "student_t": (StudentT((1,), 2.5, 0.5, 2.0), lambda: stats.t(2.5, 0.5, 2)),
    "generalized_normal": (GeneralizedNormal((1,), 1.5, 0.5, 2.0), lambda: stats.gennorm(1.5, 0.5, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_log_prob_is_that_of_scipy(name: str) -> None:
    base, law = LAWS[name]
    assert base.double().log_prob(Z).tolist() == pytest.approx(law().logpdf(Z[:, 0].numpy()), 1e-6)


@pytest.mark.parametrize("name", [n for n, (base, _) in LAWS.items() if base.has_quantile])
def test_scores_and_quantiles_are_those_of_scipy(name: str) -> None:
    base, law = LAWS[name]
    base = base.double()
    x = torch.tensor([[-6.0], [-1.0], [0.500001], [0.7], [9.0]], dtype=torch.float64)
    score = base.score(x)
    assert score[:, 0].tolist() == pytest.approx(
        stats.norm.ppf(law().cdf(x[:, 0].numpy())), abs=1e-6
    )
    assert torch.allclose(base.quantile(score), x, atol=1e-6)


@pytest.mark.parametrize("df", [0.6, 1.0, 2.0, 5.0, 30.0])
def test_student_tails(df: float) -> None:
    a = torch.logspace(-6, 8, 30, dtype=torch.float64)
    nu = torch.full_like(a, df)
    truth = torch.tensor(stats.t(df).logsf(a.numpy()))
    seen = truth > math.log(1e-200)
    found = log_tail(a, nu)
    assert torch.allclose(found[seen], truth[seen], atol=1e-7)
    seen &= a > 1e-3  # P(> a) of a smaller a is 1/2 to many digits
    assert torch.allclose(quantile(found, nu)[seen], a[seen], rtol=1e-9)
    single = quantile(truth.float(), nu.float())
    assert bool(single.isfinite().all())


def test_quantiles_have_gradients() -> None:
    log_p = torch.tensor([-0.8, -9.0], dtype=torch.float64, requires_grad=True)
    df = torch.tensor([2.0, 3.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(quantile, (log_p, df))
    assert torch.autograd.gradgradcheck(lambda d: log_tail(torch.ones_like(d), d), (df,))


def test_student_samples_have_gradients_by_df() -> None:
    """d/d df E log(1 + t^2) by samples and by quadrature."""
    base = StudentT((1,), 3.0, learned=True).double()
    x = base.sample(200_000, generator=torch.Generator().manual_seed(0))
    estimate = x.square().log1p()
    (found,) = torch.autograd.grad(estimate.mean(), base.raw_df)

    def expectation(df: float) -> float:
        u = torch.linspace(0, 1, 200_003, dtype=torch.float64)[1:-1]
        t = torch.tensor(stats.t(df).ppf(u.numpy()))
        return float(t.square().log1p().mean())

    slope = (expectation(3.01) - expectation(2.99)) / 0.02 * 2.5  # df = 0.5 + exp(raw)
    assert float(found) == pytest.approx(slope, abs=0.02)


def test_gaussian_copula_of_gaussians_is_a_multivariate_gaussian() -> None:
    base = randomize(Copula(DiagonalNormal((3,), learned=False))).double()
    z = torch.randn(5, 3, dtype=torch.float64)
    r = base.correlation()[0]
    assert torch.allclose(r.diagonal(), torch.ones(3, dtype=torch.float64))
    truth = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), r)
    assert torch.allclose(base.log_prob(z), truth.log_prob(z))
    samples = base.sample(100_000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(torch.corrcoef(samples.mT), r, atol=0.02)


def test_copula_keeps_its_marginals() -> None:
    marginals = Product([Laplace((1,), 1.0, 4.0), StudentT((1,), 2.0)])
    base = Copula(marginals).double()
    with torch.no_grad():
        base.lower.fill_(1.5)
    z = base.sample(4000, generator=torch.Generator().manual_seed(0)).detach()
    for column, law in zip(z.mT, (stats.laplace(1, 4), stats.t(2)), strict=True):
        assert stats.kstest(column.numpy(), law.cdf).pvalue > 1e-3
    # Kendall's tau of a Gaussian copula is 2/pi arcsin(rho).
    rho = float(base.correlation()[0, 0, 1].detach())
    tau = stats.kendalltau(*z.mT.numpy()).statistic
    assert tau == pytest.approx(2 / math.pi * math.asin(rho), abs=0.04)


REFUSED = {
    "a scale of zero": (lambda: Laplace((2,), 0.0, 0.0), ConfigError, "scale"),
    "df at the floor": (lambda: StudentT((2,), 0.5), ConfigError, "above 0.5"),
    "df of another shape": (lambda: StudentT((2,), [1.0, 2.0, 3.0]), ConfigError, "(3,)"),
    "a net without a context": (lambda: Laplace((2,), net=mlp), ConfigError, "context_shape"),
    "a context without a net": (
        lambda: GaussianMixture((2,), context_shape=(1,)),
        ConfigError,
        "net",
    ),
    "a marginal without a quantile": (
        lambda: Copula(GeneralizedNormal((2,))),
        ConfigError,
        "GeneralizedNormal",
    ),
    "no marginal": (lambda: Copula(Logistic((2,))), ConfigError, "Logistic"),
    "a product of images": (lambda: Product([Laplace((1, 2, 2))]), ShapeError, "(1, 2, 2)"),
    "a product of two contexts": (
        lambda: Product([Laplace((1,), net=mlp, context_shape=(n,)) for n in (1, 2)]),
        ShapeError,
        "(2,)",
    ),
    "heavy entries first": (lambda: tail_adaptive([2.0, math.inf]), InputError, "first"),
    "too few rows": (lambda: tail_indices(torch.randn(5, 2)), InputError, "(5, 2)"),
    "too many order statistics": (lambda: hill(torch.randn(10), 10), InputError, "10"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    call, error, says = REFUSED[name]
    with pytest.raises(error) as caught:
        call()
    assert says in str(caught.value)


def test_tail_estimators() -> None:
    """On exact Pareto values with index 2, all three are within 4 standard errors; a Gaussian is light."""
    g = torch.Generator().manual_seed(0)
    u = torch.rand(10_000, 1, generator=g, dtype=torch.float64)
    pareto = u ** (-1 / 2)
    for estimate, spread in ((hill, 1.0), (moment, 3.0), (kernel, 1.5)):
        assert abs(float(estimate(pareto, 400)) / 2 - 1) < 4 * spread / math.sqrt(400)
    t2 = StudentT((1,), 2.0).double().sample(10_000, generator=g)
    x = torch.cat((t2, torch.randn(10_000, 1, generator=g, dtype=torch.float64)), dim=1).detach()
    nu = tail_indices(x, resamples=40)
    assert abs(float(nu[0]) - 2) < 0.6  # 4 standard errors of 100 order statistics are 0.8
    assert math.isinf(float(nu[1]))
    order = light_first(nu.tolist())
    assert order == [1, 0]
    base = tail_adaptive([nu.tolist()[i] for i in order])
    assert isinstance(base, Product)
    assert [type(b) for b in base.bases] == [DiagonalNormal, StudentT]
    assert isinstance(tail_adaptive([math.inf, math.inf]), DiagonalNormal)
    assert isinstance(tail_adaptive([0.4]), StudentT)


def test_two_stages() -> None:
    """First the marginals, with the rest frozen; then all. The second stage gains what the dependence is worth."""
    truth = Copula(StudentT((2,), 4.0, [1.0, -1.0]))
    with torch.no_grad():
        truth.lower.fill_(1.5)
    x = truth.sample(3000, generator=torch.Generator().manual_seed(0)).detach()
    base = Copula(StudentT((2,), 4.0))
    flow = diffeo.Flow(Elementwise((2,), Additive()), base)
    settings = {"lr": 5e-2, "batch_size": 500, "threads": 1, "warmup": 0, "progress": False}
    before = torch.nn.utils.parameters_to_vector(base.marginals.parameters()).clone()
    with frozen(flow.transform, base.lower):
        diffeo.fit(flow, x, steps=80, **settings)
    assert not bool(base.lower.any())
    after = torch.nn.utils.parameters_to_vector(base.marginals.parameters())
    assert bool((after - before).abs().max() > 0.3)
    first = float(flow.log_prob(x).mean().detach())
    diffeo.fit(flow, x, steps=80, **settings)
    rho = float(truth.correlation()[0, 0, 1].detach())
    worth = -0.5 * math.log(1 - rho**2)
    assert float(flow.log_prob(x).mean().detach()) - first == pytest.approx(worth, abs=0.15)
    assert all(p.requires_grad for p in flow.parameters())


def test_a_law_without_a_density_says_so() -> None:
    with pytest.raises(ConfigError, match="no standard_log_prob"):
        LocationScale((1,)).log_prob(torch.zeros(1, 1))
