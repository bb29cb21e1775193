"""Flows in Pyro: as a distribution in models and guides, in plates, and as the guide of a whole model."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributions as D

import diffeo
from diffeo.distributions import StandardNormal
from diffeo.errors import ConfigError, InputError
from diffeo.families import Affine
from diffeo.flow import Flow
from diffeo.testing import randomize
from diffeo.transforms import Chain, Elementwise

pyro = pytest.importorskip("pyro", reason="Pyro is not installed: pip install 'diffeo[pyro]'")
from pyro import distributions as dist  # noqa: E402
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO  # noqa: E402
from pyro.infer.autoguide import init_to_value  # noqa: E402
from pyro.optim import ClippedAdam  # noqa: E402

from diffeo.integrations.pyro import FlowDistribution, FlowGuide, _OnePass  # noqa: E402


@pytest.fixture(autouse=True)
def fresh():
    """An empty parameter store and float64, and both as before afterwards."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()
    torch.set_default_dtype(default)


def affine(size: int) -> Flow:
    """A normal with learned means and deviations."""
    return Flow(
        Chain((size,), [partial(Elementwise, family=Affine("exp"))]), StandardNormal((size,))
    )


def conditional(context: int = 3) -> Flow:
    flow = diffeo.zoo.build("realnvp", (2,), (context,), "tiny", scale="clamp")
    return randomize(flow, 1, 0.5).eval()


def train(model, guide, steps, *args, lr=0.03, particles=16, loss=Trace_ELBO):
    """The losses of `steps` steps, averaged over the first and the last tenth."""
    elbo = loss(num_particles=particles, vectorize_particles=True)
    svi = SVI(model, guide, ClippedAdam({"lr": lr, "lrd": 0.05 ** (1 / steps)}), elbo)
    losses = [svi.step(*args) for _ in range(steps)]
    tenth = max(1, steps // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


# -- as a distribution --------------------------------------------------------------------------


def test_shapes_are_those_of_a_pyro_distribution():
    flow = conditional()
    c = torch.randn(4, 3)
    d = FlowDistribution(flow, c)
    assert isinstance(d, dist.Distribution)
    assert isinstance(d, D.Distribution)
    assert d().shape == d.shape() == (4, 2)
    assert d(torch.Size([5])).shape == d.shape(torch.Size([5])) == (5, 4, 2)
    wide = d.expand_by([6])
    assert type(wide) is FlowDistribution
    assert (wide.batch_shape, wide.event_dim) == ((6, 4), 1)
    whole = d.to_event(1)
    assert (whole.batch_shape, whole.event_shape) == ((), (4, 2))
    x = torch.randn(4, 2)
    torch.testing.assert_close(whole.log_prob(x), flow.at(c).log_prob(x).sum())
    keep = torch.tensor([True, False, True, True])
    torch.testing.assert_close(d.mask(keep).log_prob(x), d.log_prob(x) * keep)
    positive = dist.TransformedDistribution(d, [dist.transforms.ExpTransform()])
    y = pyro.sample("y", positive)
    torch.testing.assert_close(positive.log_prob(y), d.log_prob(y.log()) - y.log().sum(-1))


def test_plates_and_subsamples():
    """A subsampled observed plate: each row its own context, and the sum scaled to the whole."""
    flow = conditional()
    c, x = torch.randn(10, 3), torch.randn(10, 2)

    def model(index):
        with pyro.plate("rows", 10, subsample=index) as i, pyro.plate("copies", 3):
            pyro.sample("x", FlowDistribution(flow, c[i]), obs=x[i].expand(3, -1, -1))

    index = torch.tensor([1, 4, 5, 7])
    trace = pyro.poutine.trace(model).get_trace(index)
    torch.testing.assert_close(trace.log_prob_sum(), 3 * 2.5 * flow.log_prob(x, c)[index].sum())

    def prior():
        with pyro.plate("rows", 4), pyro.plate("copies", 3):
            return pyro.sample("x", FlowDistribution(flow, c[:4]))

    drawn = prior()
    assert drawn.shape == (3, 4, 2)
    assert len(drawn.reshape(-1, 2).unique(dim=0)) == 12
    assert Predictive(prior, num_samples=5)()["x"].shape == (5, 3, 4, 2)


def test_a_flow_is_learned_in_a_model():
    """Maximum likelihood in Pyro: a model without latent sites, whose flow `pyro.module` registers."""
    flow = affine(2)
    data = torch.tensor([3.0, -1.0]) + torch.tensor([0.5, 2.0]) * torch.randn(500, 2)

    def model():
        pyro.module("flow", flow)
        with pyro.plate("rows", 500):
            pyro.sample("x", FlowDistribution(flow), obs=data)

    svi = SVI(model, lambda: None, ClippedAdam({"lr": 0.3, "lrd": 0.97}), Trace_ELBO())
    for _ in range(120):
        svi.step()
    assert any(name.startswith("flow$$$") for name in pyro.get_param_store())
    best = D.Independent(D.Normal(data.mean(0), data.std(0, correction=0)), 1).log_prob(data).mean()
    with torch.no_grad():
        assert float(flow.log_prob(data).mean()) > float(best) - 0.01


def observed():
    """mu ~ N(0, 1); x | mu ~ a flow that is N(mu + 1, e^2 / 4) inside: the posterior of mu is known."""
    flow = Flow(
        Chain((1,), [partial(Elementwise, family=Affine("exp"), net=_shift, context_shape=(1,))]),
        StandardNormal((1,)),
    )
    x = torch.tensor([2.0, 1.2, 3.1, 1.9])

    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 4):
            pyro.sample("x", FlowDistribution(flow, mu.expand(4, 1)), obs=x[:, None])

    grid = torch.linspace(-4, 6, 4001)
    log_p = D.Normal(0.0, 1.0).log_prob(grid)
    log_p = log_p + flow.log_prob(x[:, None, None], grid[:, None]).sum(0)
    p = log_p.softmax(0)
    mean = float((p * grid).sum())
    return model, mean, float((p * (grid - mean).square()).sum().sqrt())


def _shift(in_shape, out_shape, context_shape):
    net = diffeo.nets.MLP(in_shape, out_shape, context_shape, hidden=(4,), zero_init=False)
    return randomize(net, 3, 0.3)


@pytest.mark.slow
def test_nuts_sees_the_gradient_of_a_flow_likelihood():
    model, mean, deviation = observed()
    chain = MCMC(
        NUTS(model, max_tree_depth=3), num_samples=150, warmup_steps=50, disable_progbar=True
    )
    chain.run()
    mu = chain.get_samples()["mu"]
    assert abs(float(mu.mean()) - mean) < 5 * deviation / np.sqrt(50)
    assert 0.7 < float(mu.std()) / deviation < 1.4


def test_kl_divergence_is_left_to_the_loss():
    """There is no formula, so Pyro's analytic ELBO falls back on samples, as for any other distribution."""
    p = FlowDistribution(conditional(), torch.zeros(3))
    with pytest.raises(NotImplementedError):
        D.kl_divergence(p, D.Independent(D.Normal(torch.zeros(2), torch.ones(2)), 1))
    flow = affine(2)

    def model():
        pyro.sample("z", dist.Normal(torch.ones(2), torch.ones(2)).to_event(1))

    def guide():
        pyro.module("flow", flow)
        pyro.sample("z", FlowDistribution(flow))

    before, after = train(model, guide, 100, lr=0.1, loss=TraceMeanField_ELBO)
    assert after < 0.05 < 0.3 < before


# -- as a guide ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_amortized_guide_by_hand():
    """z_i ~ N(0, 1), x_i ~ N(z_i, 1): q(z | x) = N(x / 2, 1/2), a flow whose context is x, with subsampled rows."""
    flow = diffeo.zoo.build(
        "maf", (1,), (1,), layers=1, hidden=(), batch_norm=False, standardize=False
    )
    x = torch.randn(200, 1) * 2**0.5

    def model():
        with pyro.plate("rows", 200, subsample_size=50) as i:
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([1]).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[i])

    def guide():
        pyro.module("flow", flow)
        with pyro.plate("rows", 200, subsample_size=50) as i:
            pyro.sample("z", FlowDistribution(flow, x[i]))

    svi = SVI(model, guide, ClippedAdam({"lr": 0.05, "lrd": 0.98}), Trace_ELBO())
    for _ in range(250):
        svi.step()
    z = flow.sample((4000,), x[:5])[..., 0]
    assert float((z.mean(0) - x[:5, 0] / 2).abs().max()) < 0.1
    assert float((z.std(0) - 0.5**0.5).abs().max()) < 0.1


def regression(n=20):
    """w ~ N(0, I), y ~ N(X w, 1/4): the posterior is normal, with correlation about -0.9; and -log p(y)."""
    a = torch.randn(n)
    features = torch.stack([a, a + 0.4 * torch.randn(n)], -1)
    y = features @ torch.tensor([1.0, -0.5]) + 0.5 * torch.randn(n)

    def model():
        w = pyro.sample("w", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
        with pyro.plate("rows", n):
            pyro.sample("y", dist.Normal((features * w).sum(-1), 0.5), obs=y)

    covariance = torch.linalg.inv(torch.eye(2) + 4 * features.T @ features)
    evidence = D.MultivariateNormal(torch.zeros(n), 0.25 * torch.eye(n) + features @ features.T)
    return model, covariance @ (4 * features.T @ y), covariance, -float(evidence.log_prob(y))


BUILDS = {
    "coupling": partial(diffeo.zoo.build, "realnvp", size="tiny"),
    "fast inverse alone": partial(diffeo.zoo.build, "iaf", size="tiny", scale="clamp"),
}


@pytest.mark.parametrize(
    ("name", "steps", "lr", "nats", "error"),
    [
        ("coupling", 250, 0.05, 0.2, 0.4),
        pytest.param("coupling", 800, 0.01, 0.05, 0.2, marks=pytest.mark.slow),
        pytest.param("fast inverse alone", 800, 0.01, 0.05, 0.2, marks=pytest.mark.slow),
    ],
)
def test_a_conjugate_posterior_is_recovered(name, steps, lr, nats, error):
    """Within `nats` of KL, and `error` posterior deviations or shares of (co)variances."""
    model, mean, covariance, evidence = regression()
    guide = FlowGuide(model, BUILDS[name])
    before, after = train(model, guide, steps, lr=lr, particles=8 if steps < 500 else 32)
    assert after < before
    assert evidence - 0.02 < after < evidence + nats
    w = guide.draws(20_000)["w"]
    off = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (w - mean).T, upper=False
    )
    assert float(off.mean(1).abs().max()) < error
    assert float((off.cov() - torch.eye(2)).abs().max()) < error
    # Its parameters are in Pyro's store, under the guide's name.
    assert all(n.startswith("FlowGuide.flow$$$") for n in pyro.get_param_store())


def hierarchy():
    """Constrained sites of every shape: a scalar, a simplex, and one in a plate, whose support is an interval."""
    tau = pyro.sample("tau", dist.HalfNormal(2.0))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("groups", 4):
        level = pyro.sample("level", dist.Uniform(-1.0, 3.0))
    with pyro.plate("rows", 12, subsample_size=6) as i:
        rate = level[..., i % 4] + share[..., 0]
        pyro.sample("y", dist.Normal(rate, tau), obs=torch.linspace(0.0, 2.0, 12)[i])


def test_constrained_sites_and_plates():
    guide = FlowGuide(
        hierarchy,
        BUILDS["coupling"],
        init_loc_fn=init_to_value(values={"tau": torch.tensor(1.5)}),
        init_scale=0.1,
    )
    found = guide()
    assert guide.latent_dim == 1 + 2 + 4
    assert {k: v.shape for k, v in found.items()} == {"tau": (), "share": (3,), "level": (4,)}
    draws = guide.draws(500)
    assert {k: v.shape for k, v in draws.items()} == {
        "tau": (500,),
        "share": (500, 3),
        "level": (500, 4),
    }
    assert bool((draws["tau"] > 0).all())
    assert bool(((draws["level"] > -1) & (draws["level"] < 3)).all())
    torch.testing.assert_close(draws["share"].sum(-1), torch.ones(500))
    # It starts around the point asked for, with the deviation asked for.
    assert abs(float(draws["tau"].log().mean()) - np.log(1.5)) < 0.05
    assert 0.05 < float(draws["tau"].log().std()) < 0.2
    # The density of the guide is that of the draws in their own units: the Jacobian by hand for tau and level.
    trace = pyro.poutine.trace(guide).get_trace()
    u = trace.nodes["_FlowGuide_latent"]["value"]
    bounded = D.TransformedDistribution(
        D.Independent(D.Normal(0.0, 1.0).expand((4,)), 1),
        D.biject_to(D.constraints.interval(-1.0, 3.0)),
    )
    level = trace.nodes["level"]["value"]
    jacobian = bounded.log_prob(level) - D.Normal(0.0, 1.0).log_prob(u[3:]).sum()
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["level"]["log_prob"].sum(), jacobian)
    torch.testing.assert_close(trace.nodes["tau"]["log_prob"], -u[0])
    before, after = train(hierarchy, guide, 30, particles=4)
    assert after < before
    assert Predictive(hierarchy, guide=guide, num_samples=3)()["level"].shape == (3, 4)


def test_one_pass_scores_as_log_prob_does():
    flow = randomize(BUILDS["coupling"]((3,)), 1, 0.3).eval()
    d = _OnePass(flow).expand((2, 5))
    assert type(d) is _OnePass
    x = d.rsample()
    fast, slow = d.log_prob(x), flow.log_prob(x)
    assert fast.shape == (2, 5)
    torch.testing.assert_close(fast, slow)
    grads = [
        torch.autograd.grad(v.sum(), list(flow.parameters()), retain_graph=True)
        for v in (fast, slow)
    ]
    torch.testing.assert_close(*grads)
    # Only once, and only for the draw itself: later parameters count.
    randomize(flow, 2, 0.3)
    torch.testing.assert_close(d.log_prob(x), flow.log_prob(x))
    d.rsample()
    torch.testing.assert_close(d.log_prob(x), flow.log_prob(x))


def test_mistakes_are_one_sentence():
    def subsampled():
        with pyro.plate("rows", 10, subsample_size=5):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def simple():
        pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    mixture = diffeo.distributions.GaussianMixture((2,), 2)
    for model, build, words in (
        (subsampled, None, "subsampled plate 'rows'"),
        (simple, lambda shape: diffeo.zoo.build("realnvp", (3,), size="tiny"), r"shape \(2,\)"),
        (simple, lambda shape: torch.nn.Linear(2, 2), r"shape \(2,\)"),
        (simple, lambda shape: Flow(affine(2).transform, mixture), "gradients"),
    ):
        with pytest.raises(ConfigError, match=words):
            FlowGuide(model, build)()
    with pytest.raises(InputError, match="init_scale"):
        FlowGuide(simple, init_scale=0.0)


SCHOOLS = Path(os.environ.get("DIFFEO_DATA", "/nowhere")) / "posteriordb"


@pytest.mark.slow
@pytest.mark.skipif(not SCHOOLS.is_dir(), reason="DIFFEO_DATA has no posteriordb")
def test_eight_schools_against_the_reference_draws():
    """Non-centred eight schools: means within 0.15 and deviations within 20 % of 10,000 reference draws."""
    name = "eight_schools-eight_schools_noncentered"
    data = json.loads((SCHOOLS / f"{name}.data.json").read_text())
    y, sigma = torch.tensor(data["y"]).double(), torch.tensor(data["sigma"]).double()

    def model():
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", 8):
            theta = pyro.sample("theta_trans", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(mu + tau * theta, sigma), obs=y)

    guide = FlowGuide(
        model, partial(diffeo.zoo.build, "nsf_coupling", layers=4, width=32, blocks=1)
    )
    train(model, guide, 800, lr=0.01, particles=32)
    draws = guide.draws(10_000)
    theta = draws["mu"][:, None] + draws["tau"][:, None] * draws["theta_trans"]
    reference = np.load(SCHOOLS / f"{name}.npz")
    known = dict(
        zip(
            reference["names"].tolist(),
            torch.from_numpy(reference["draws"]).double().T,
            strict=True,
        )
    )
    found = {f"theta[{i + 1}]": theta[:, i] for i in range(8)} | {
        "mu": draws["mu"],
        "log tau": draws["tau"].log(),
    }
    known["log tau"] = known["tau"].log()
    for key, value in found.items():
        deviation = known[key].std()
        assert abs(float((value.mean() - known[key].mean()) / deviation)) < 0.15, key
        assert 0.8 < float(value.std() / deviation) < 1.2, key
