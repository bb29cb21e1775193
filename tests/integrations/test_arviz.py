"""ArviZ reads the draws, and its summaries agree with the project's own diagnostics."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import diffeo
from diffeo.applications.diagnostics import effective_size, split_rhat
from diffeo.applications.restoring import Posterior
from diffeo.errors import ConfigError, InputError
from diffeo.integrations.arviz import to_arviz

arviz = pytest.importorskip("arviz")


@pytest.fixture(scope="module")
def chains():
    """Autoregressive chains [4, 500, 2]; the first entry of one chain is elsewhere."""
    torch.manual_seed(0)
    draws = torch.zeros(4, 500, 2, dtype=torch.float64)
    for t in range(1, 500):
        draws[:, t] = 0.7 * draws[:, t - 1] + torch.randn(4, 2, dtype=torch.float64)
    draws[0, :, 0] += 1.5
    return draws


def test_summaries_agree(chains):
    data = to_arviz(chains, chains=True, names=["a", "b"])
    table = arviz.summary(data, round_to="none")
    rank = arviz.rhat(data, method="z_scale")
    size = arviz.ess(data, method="bulk")
    for i, name in enumerate("ab"):
        assert data.posterior[name].shape == (4, 500)
        np.testing.assert_allclose(table.loc[name, "mean"], chains[..., i].mean(), rtol=1e-9)
        np.testing.assert_allclose(table.loc[name, "sd"], chains[..., i].flatten().std(), rtol=1e-3)
        np.testing.assert_allclose(float(rank[name]), split_rhat(chains[..., i]), rtol=1e-3)
        np.testing.assert_allclose(float(size[name]), effective_size(chains[..., i]), rtol=0.05)
    assert float(rank["a"]) > 1.05 > float(rank["b"])


def test_draws_of_a_flow():
    torch.manual_seed(0)
    flow = diffeo.zoo.build("realnvp", (3,), (2,), "tiny").eval()
    draws = flow.sample((100,), torch.zeros(4, 2))
    data = to_arviz(draws, name="theta")
    assert data.posterior["theta"].shape == (1, 100, 4, 3)
    np.testing.assert_array_equal(data.posterior["theta"].values[0], draws.numpy())
    with_grad = flow.at(torch.zeros(2)).rsample((100,))
    data = to_arviz(
        {"theta": with_grad, "tau": with_grad[:, 0].exp()},
        log_likelihood={"y": flow.log_prob(with_grad, torch.zeros(2))},
    )
    assert data.posterior["tau"].shape == (1, 100)
    assert data.log_likelihood["y"].shape == (1, 100)


def test_a_posterior_of_pictures(chains):
    draws = chains[:, :, None, :, None]  # [chains, draws, n, *event]
    flat = Posterior(draws, torch.ones(1), torch.ones(1), torch.ones(1))
    assert to_arviz(flat).posterior["x"].shape == (4, 500, 1, 2, 1)


def test_newer_arviz_takes_a_dict_of_groups(chains, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace(from_dict=lambda groups: groups))
    made = to_arviz({"a": chains[..., 0]}, chains=True, prior={"a": chains[..., 1]})
    assert {k: v["a"].shape for k, v in made.items()} == {"posterior": (4, 500), "prior": (4, 500)}


def test_mistakes_are_one_sentence(chains, monkeypatch):
    for draws, options, words in (
        (chains, {"names": ["a"]}, "1 names"),
        ({"a": chains}, {"names": ["a"]}, "own names"),
        (torch.zeros(5), {"chains": True}, r"\[chains, draws"),
        (torch.zeros(()), {}, r"\[draws"),
        ({"a": torch.zeros(3), "b": torch.zeros(4)}, {}, "same chains and draws"),
    ):
        with pytest.raises(InputError, match=words):
            to_arviz(draws, **options)
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ConfigError, match=r"diffeo\[arviz\]"):
        to_arviz(chains)
