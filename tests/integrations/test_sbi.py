"""sbi trains, samples, scores and pickles our flows; a bounded prior leaks nothing."""

import pickle
import sys
import warnings

import pytest
import torch
from torch import distributions as D
from torch.distributions import constraints

import diffeo
from diffeo.errors import ConfigError, InputError
from diffeo.integrations import sbi as ours
from diffeo.nets import DeepSet

PRIORS = {
    "box": D.Independent(D.Uniform(torch.tensor([0.1, -2.0]), torch.tensor([0.3, 5.0])), 1),
    "positive": D.Independent(D.LogNormal(torch.zeros(2), torch.ones(2)), 1),
    "line": D.MultivariateNormal(torch.zeros(2), torch.eye(2)),
}


@pytest.fixture(scope="module")
def inference():
    """sbi.inference, with torch's argument checks left on, which zuko switches off when it is imported."""
    pytest.importorskip("sbi", reason="sbi is not installed: pip install 'diffeo[sbi]'")
    checks = D.Distribution._validate_args
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sbi.inference

        D.Distribution.set_default_validate_args(False)
        yield sbi.inference
    D.Distribution.set_default_validate_args(checks)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    """sbi writes its logs into the folder where it runs."""
    monkeypatch.chdir(tmp_path)


def simulate(prior, n=300, seed=0):
    torch.manual_seed(seed)
    theta = prior.sample((n,))
    return theta, theta + 0.2 * theta.std(0) * torch.randn(n, 2)


@pytest.mark.parametrize("name", PRIORS)
def test_npe_trains_and_nothing_leaks(inference, name):
    prior = PRIORS[name]
    theta, x = simulate(prior)
    build = ours.posterior_estimator("nsf_coupling", prior, size="tiny")
    trainer = inference.NPE(prior, density_estimator=build, show_progress_bars=False)
    estimator = trainer.append_simulations(theta, x).train(max_num_epochs=2)
    posterior = trainer.build_posterior()
    # Where a flow on the whole space would leak most: the condition is at the edge of the prior.
    condition = x[theta[:, 0].argmin()]
    draws = estimator.sample((20_000,), condition[None])
    assert bool(prior.support.check(draws).all())
    assert float(posterior.leakage_correction(condition)) == 1
    found = posterior.log_prob(theta[:5], x=condition)
    torch.testing.assert_close(found, estimator.log_prob(theta[:5, None], condition[None])[:, 0])
    drawn = posterior.sample((10,), x=condition, show_progress_bars=False)
    assert drawn.shape == (10, 2)
    batched = posterior.sample_batched((10,), x=x[:3], show_progress_bars=False)
    assert batched.shape == (10, 3, 2)


def test_nle_gives_a_posterior(inference):
    prior = PRIORS["positive"]
    theta, _ = simulate(prior)
    x = theta * torch.exp(0.2 * torch.randn(300, 2))
    build = ours.likelihood_estimator("nsf_coupling", constraints.positive, size="tiny")
    trainer = inference.NLE(prior, density_estimator=build, show_progress_bars=False)
    likelihood = trainer.append_simulations(theta, x).train(max_num_epochs=2)
    assert bool((likelihood.sample((1000,), theta[:2]) > 0).all())
    posterior = trainer.build_posterior(sample_with="importance")
    assert posterior.sample((20,), x=x[0], show_progress_bars=False).shape == (20, 2)


@pytest.mark.usefixtures("inference")
def test_shapes_of_batched_conditions():
    theta, x = simulate(PRIORS["box"])
    estimator = ours.posterior_estimator("nsf_coupling", PRIORS["box"], size="tiny")(theta, x)
    from sbi.neural_nets.estimators import ConditionalDensityEstimator

    assert isinstance(estimator, ConditionalDensityEstimator)
    assert (estimator.input_shape, estimator.condition_shape) == ((2,), (2,))
    many = theta[:12].reshape(3, 4, 2)
    expected = torch.stack([estimator.flow.log_prob(many[:, i], x[i]) for i in range(4)], 1)
    torch.testing.assert_close(estimator.log_prob(many, x[:4]), expected)
    torch.testing.assert_close(estimator.log_prob(many, x[:4].expand(3, 4, 2)), expected)
    torch.testing.assert_close(estimator.log_prob(many[0], x[:4]), expected[:1])
    torch.testing.assert_close(estimator.loss(many[0], x[:4]), -expected[0])
    draws, log_q = estimator.sample_and_log_prob((5,), x[:4])
    assert draws.shape == (5, 4, 2)
    torch.testing.assert_close(log_q, estimator.log_prob(draws, x[:4]), atol=1e-4, rtol=1e-4)


def test_a_posterior_is_pickled_and_its_flow_saved(inference, tmp_path):
    prior = PRIORS["box"]
    theta, x = simulate(prior)
    estimator = ours.posterior_estimator("nsf_coupling", prior, size="tiny")(theta, x)
    posterior = inference.NPE(prior, show_progress_bars=False).build_posterior(estimator)
    copy = pickle.loads(pickle.dumps(posterior))
    expected = posterior.log_prob(theta[:5], x=x[0])
    torch.testing.assert_close(copy.log_prob(theta[:5], x=x[0]), expected)
    flow = diffeo.load(estimator.flow.save(tmp_path / "flow"))
    torch.testing.assert_close(flow.log_prob(theta[:5], x[0]), expected)


def test_fit_estimator_learns_a_posterior_that_is_known(inference):
    torch.manual_seed(0)
    prior = D.MultivariateNormal(torch.zeros(1), torch.eye(1))
    theta = prior.sample((2000,))
    x = theta + 0.5 * torch.randn(2000, 1)
    build = ours.posterior_estimator("maf", prior, size="tiny")
    estimator = ours.fit_estimator(build, theta, x, steps=300, lr=2e-2)
    posterior = inference.NPE(prior, show_progress_bars=False).build_posterior(estimator)
    draws = posterior.sample((4000,), x=torch.tensor([1.0]), show_progress_bars=False)
    assert draws.mean().item() == pytest.approx(0.8, abs=0.06)
    assert draws.std().item() == pytest.approx(0.2**0.5, abs=0.06)


@pytest.mark.usefixtures("inference")
def test_an_embedding_sees_scaled_data():
    theta, x = simulate(PRIORS["box"])
    sets = 1e4 + 1e3 * (x[:, None] + torch.randn(300, 5, 2))

    def embedding(in_shape, context_shape):
        return DeepSet(in_shape, (4,), context_shape, width=8, hidden=(8,), head=(8,))

    build = ours.posterior_estimator("nsf_coupling", size="tiny", embedding=embedding)
    estimator = build(theta, sets)
    seen = []
    estimator.embedding_net.net.net.register_forward_hook(lambda _, args, __: seen.append(args[1]))
    assert estimator.log_prob(theta[:4], sets[:4]).shape == (1, 4)
    assert seen[0].abs().max() < 10


@pytest.mark.usefixtures("inference")
def test_bounds_of_a_prior_of_several_parts():
    from sbi.utils import MultipleIndependent

    prior = MultipleIndependent(
        [D.Uniform(torch.tensor([1.0]), torch.tensor([2.0])), D.Exponential(torch.tensor([1.0])),
         D.MultivariateNormal(torch.zeros(2), torch.eye(2))]
    )  # fmt: skip
    theta = prior.sample((100,))
    flow = ours.posterior_estimator("nsf_coupling", prior, size="tiny")(theta, theta).flow
    first = next(iter(flow.transform))
    inf = torch.inf
    assert (first.low, first.high) == ((1, 0, -inf, -inf), (2, inf, inf, inf))


def test_a_support_without_bounds_is_refused():
    prior = D.Dirichlet(torch.ones(3))
    with pytest.raises(ConfigError, match=r"intervals, half lines and lines, not on Simplex"):
        ours.posterior_estimator("nsf_coupling", prior)


@pytest.mark.usefixtures("inference")
def test_simulations_that_do_not_fit():
    theta, x = simulate(PRIORS["line"], n=20)
    build = ours.posterior_estimator("nsf_coupling", size="tiny")
    with pytest.raises(InputError, match="got 20 and 19"):
        ours.fit_estimator(build, theta, x[:19])
    x[3] = torch.nan
    with pytest.raises(InputError, match=r"1 of 20 simulations hold NaN"):
        ours.fit_estimator(build, theta, x)


def test_without_sbi_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sbi.neural_nets.estimators", None)
    theta, x = simulate(PRIORS["line"], n=20)
    with pytest.raises(ConfigError, match=r"diffeo\[sbi\]"):
        ours.posterior_estimator("nsf_coupling", size="tiny")(theta, x)
