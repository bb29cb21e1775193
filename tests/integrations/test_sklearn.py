"""The estimators are scikit-learn's: its own checks, its own tools, and the numbers of the flow inside."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import diffeo
from diffeo.errors import ConfigError, DataError, InputError
from diffeo.integrations.sklearn import (
    ConditionalFlowDensity,
    FlowDensity,
    FlowTransformer,
    log_likelihood,
)

TINY = {"size": "tiny", "steps": 2, "random_state": 0}
# One affine autoregressive layer whose shift and scale are linear in x: learns a linear regression in a moment.
LINEAR = {"model": "maf", "hyper": {"layers": 1, "hidden": []}, "steps": 40, "lr": 0.1}
DENSITY = FlowDensity(**TINY)
TRANSFORMER = FlowTransformer(**TINY)
CONDITIONAL = ConditionalFlowDensity(**LINEAR, draws=20, random_state=0)
# The checks that estimators trained by gradients are likely to fail; all of them together are slow.
CORE = {
    "check_sample_weight_equivalence_on_dense_data", "check_methods_subset_invariance", "check_fit_idempotent",
    "check_estimators_pickle", "check_transformer_general", "check_regressors_int", "check_supervised_y_2d",
    "check_regressor_multioutput", "check_estimators_nan_inf",
}  # fmt: skip


def core(estimator):
    for _, check in estimator_checks_generator(estimator):
        name = getattr(check, "func", check).__name__
        if name in CORE:
            yield pytest.param(estimator, check, id=f"{type(estimator).__name__}-{name}")


@pytest.mark.parametrize(
    ("estimator", "check"),
    [*core(DENSITY), *core(TRANSFORMER), *core(clone(CONDITIONAL).set_params(steps=3))],
)
def test_checks_that_are_hard(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([DENSITY, TRANSFORMER, CONDITIONAL])
def test_every_check_of_sklearn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def table():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)) * [2.0, 30.0] + [100.0, -5.0]
    return pandas.DataFrame(x, columns=["height", "weight"])


def test_scores_are_those_of_the_flow(table):
    density = FlowDensity(**TINY).fit(table)
    x = torch.tensor(table.to_numpy())
    with torch.no_grad():
        log_prob = density.flow_.log_prob(x).numpy()
    assert isinstance(density.flow_, diffeo.Flow)
    np.testing.assert_array_equal(density.score_samples(table), log_prob)
    assert density.score(table) == log_prob.mean()
    assert density.n_features_in_ == 2
    assert list(density.feature_names_in_) == ["height", "weight"]
    with pytest.raises(ValueError, match="feature names"):
        density.score_samples(table[["weight", "height"]])


def test_weights_are_copies_and_zero_is_none(table):
    weights = np.arange(60) % 3
    copies = table.loc[np.repeat(np.arange(60), weights)]
    a = FlowDensity(**TINY).fit(table, sample_weight=weights).score_samples(table)
    b = FlowDensity(**TINY).fit(copies.sample(frac=1, random_state=1)).score_samples(table)
    c = FlowDensity(**TINY).fit(table).score_samples(table)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3


def test_random_state_decides(table):
    before = torch.get_rng_state()
    scores = [
        FlowDensity(**TINY | {"random_state": s}).fit(table).score_samples(table)
        for s in (0, 0, 1, np.random.RandomState(0), np.random.RandomState(0))
    ]
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[3], scores[4])
    assert np.abs(scores[0] - scores[2]).max() > 1e-3
    density = FlowDensity(**TINY).fit(table)
    a, b, c = (density.sample(5, random_state=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert a.shape == (5, 2)
    assert not np.array_equal(a, c)


def test_pipeline_search_and_clone(table):
    pipeline = make_pipeline(StandardScaler(), FlowDensity(**TINY))
    grid = {"flowdensity__hyper": [{"bins": 2}, {"bins": 3}], "flowdensity__steps": [1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(table)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_[-1]
    assert (best.hyper, best.steps, best.n_steps_) == (
        search.best_params_["flowdensity__hyper"],
        1,
        1,
    )
    assert search.score(table) == search.score_samples(table).mean()
    again = clone(best).set_params(steps=3)
    assert (again.steps, again.hyper) == (3, best.hyper)
    assert not hasattr(again, "flow_")
    scores = cross_val_score(
        CONDITIONAL, table[["height"]], table["weight"], cv=2, scoring=log_likelihood
    )
    assert np.isfinite(scores).all()


def test_pickle(table):
    for made in (FlowDensity(**TINY).fit(table), CONDITIONAL.fit(table, table["weight"] ** 2)):
        again = pickle.loads(pickle.dumps(made))
        np.testing.assert_array_equal(made.score_samples(table), again.score_samples(table))


def test_latents_and_back_with_names(table):
    made = FlowTransformer(**TINY).set_output(transform="pandas")
    z = made.fit_transform(table)
    assert list(z.columns) == ["flowtransformer0", "flowtransformer1"]
    assert z.index.equals(table.index)
    with torch.no_grad():
        expected = made.flow_.encode(torch.tensor(table.to_numpy())).numpy()
    np.testing.assert_array_equal(z.to_numpy(), expected)
    np.testing.assert_allclose(made.inverse_transform(z), table.to_numpy(), rtol=1e-9)


@pytest.mark.parametrize("n", [40, 400])
def test_held_out_rows_choose_the_weights(n):
    x = np.random.default_rng(0).normal(size=(n, 1))
    made = FlowDensity(
        "maf", hyper={"layers": 1, "hidden": []}, steps=200, lr=0.5, random_state=0,
        settings={"schedule": "constant", "patience": 1, "validate_every": 2, "warmup": 0},
    ).fit(x)  # fmt: skip
    assert made.n_steps_ < 200
    assert made.score(x) > -1.6  # the normal that made x has -1.42
    whole = clone(made).set_params(validation_fraction=0, steps=5, settings=None).fit(x)
    assert whole.n_steps_ == 5


@pytest.fixture(scope="module")
def regression():
    """y = 3 x_1 + exp(x_2 / 2) e, e normal, with x_1 in units of thousands: linear shift and log-scale."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 2)) * [1000.0, 1.0]
    scale = np.exp(x[:, 1] / 2)
    y = 0.003 * x[:, 0] + scale * rng.normal(size=2000)
    made = ConditionalFlowDensity(
        "maf", hyper={"layers": 1, "hidden": []}, steps=300, lr=0.02, random_state=0
    )
    return made.fit(x, y), x, y


def test_conditional_density(regression):
    made, x, y = regression
    with torch.no_grad():
        log_prob = made.flow_.log_prob(torch.from_numpy(y)[:, None], torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(made.score_samples(x, y), log_prob)
    scale = np.exp(x[:, 1] / 2)
    truth = -0.5 * ((y - 0.003 * x[:, 0]) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    assert log_likelihood(made, x, y) > truth.mean() - 0.2  # one normal for all y: 1.2 below
    assert np.abs(made.predict(x) - 0.003 * x[:, 0]).mean() < 0.3
    np.testing.assert_array_equal(made.score_samples(x), made.score_samples(x, made.predict(x)))


def test_quantiles_are_exact_for_one_output(regression):
    made, x, y = regression
    levels = [0.001, 0.25, 0.5, 0.9]
    found = made.predict_quantiles(x, levels)
    assert found.shape == (4, 2000)
    assert (np.diff(found, axis=0) > 0).all()
    # The flow's own distribution function, by its latent, at its own quantiles.
    for q, values in zip(levels, found, strict=True):
        with torch.no_grad():
            z = made.flow_.encode(torch.from_numpy(values)[:, None], torch.from_numpy(x))
        p = torch.special.ndtr(z).flatten().numpy()
        np.testing.assert_allclose(np.minimum(p, 1 - p), min(q, 1 - q), atol=1e-9)
    assert abs((y < found[3]).mean() - 0.9) < 0.06
    median = clone(made).set_params(center="median", steps=1).fit(x, y)
    np.testing.assert_array_equal(median.predict(x), median.predict_quantiles(x, 0.5))


def test_samples_and_several_outputs(regression):
    made, x, _ = regression
    draws = made.sample(x[:3], 4000, random_state=0)
    assert draws.shape == (4000, 3)
    assert made.sample(x).shape == (2000,)
    error = np.abs(draws.mean(0) - made.predict(x[:3]))
    assert (error < 4 * draws.std(0) / np.sqrt(4000)).all()
    both = clone(made).set_params(steps=2, draws=500).fit(x, x[:, ::-1] + 1.0)
    assert both.predict(x).shape == (2000, 2)
    assert both.sample(x[:5], 7).shape == (7, 5, 2)
    low, high = both.predict_quantiles(x, [0.1, 0.9])
    assert low.shape == (2000, 2)
    assert (low < high).all()


def test_mistakes_are_one_sentence(table):
    x = table.to_numpy()
    cases = [
        (FlowDensity(**TINY), (np.c_[x, np.ones(60)],), {}, DataError, "one value"),
        (FlowDensity(**TINY), (np.c_[x, x[:, 0]],), {}, DataError, "copy"),
        (FlowDensity(**TINY), (x,), {"sample_weight": -np.ones(60)}, InputError, "not negative"),
        (FlowDensity(**TINY), (x,), {"sample_weight": np.ones(59)}, InputError, r"\(60,\)"),
        (FlowDensity(**TINY | {"validation_fraction": 1.5}), (x,), {}, ConfigError, "1.5"),
        (FlowDensity("nice2"), (x,), {}, ConfigError, "no model 'nice2'"),
        (FlowDensity(**TINY, hyper={"levels": 8}), (x,), {}, ConfigError, "real numbers"),
        (FlowDensity(lambda *_: torch.nn.Linear(2, 2)), (x,), {}, ConfigError, "diffeo.Flow"),
        (clone(CONDITIONAL).set_params(center="mode"), (x, x[:, 0]), {}, ConfigError, "'mode'"),
        (clone(CONDITIONAL).set_params(draws=0), (x, x[:, 0]), {}, ConfigError, "draws"),
        (clone(CONDITIONAL), (x, np.ones(60)), {}, DataError, "one value"),
    ]
    for made, data, more, kind, words in cases:
        with pytest.raises(kind, match=words):
            made.fit(*data, **more)
    made = clone(CONDITIONAL).set_params(steps=1).fit(x, x[:, 0])
    with pytest.raises(InputError, match="between 0 and 1"):
        made.predict_quantiles(x, 1.0)
    with pytest.raises(InputError, match="60 rows and 1 outputs"):
        made.score_samples(x, x)


def test_a_flow_of_your_own(table):
    seen = []

    def build(event_shape, context_shape):
        seen.append((event_shape, context_shape))
        return diffeo.zoo.build("realnvp", event_shape, context_shape, "tiny")

    FlowDensity(build, steps=1).fit(table)
    ConditionalFlowDensity(build, steps=1).fit(table, table["height"])
    assert seen == [((2,), None), ((1,), (2,))]
