"""Ray Data gives the rows of the local engine, and says what is wrong in one sentence."""

import sys

import numpy as np
import pytest
import torch
from pyarrow import parquet

import diffeo
from diffeo.applications import sample_table, score_table
from diffeo.errors import ConfigError, DataError
from diffeo.testing import randomize


@pytest.fixture(scope="module")
def cluster():
    """Two workers on this machine."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffeo[ray]'")
    pytest.importorskip("ray.data", reason="Ray Data is not installed: pip install 'diffeo[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield ray
        ray.shutdown()


@pytest.fixture(scope="module")
def flow():
    """A flow over three integers, so that scores have noise."""
    torch.manual_seed(0)
    made = diffeo.zoo.build("nice", (3,), size="tiny", levels=9)
    return randomize(made, seed=1, scale=0.3).eval()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
def test_scores_are_those_of_the_local_engine(flow, tmp_path, suffix):
    import pyarrow
    from pyarrow import csv

    x = np.random.default_rng(0).integers(0, 9, size=(5000, 3), dtype=np.uint8)
    source = tmp_path / f"x{suffix}"
    table = pyarrow.table({c: x[:, i] for i, c in enumerate("abc")})
    if suffix == ".npy":
        np.save(source, x)
    else:
        (csv.write_csv if suffix == ".csv" else parquet.write_table)(table, source)
    local, ray = tmp_path / "local.parquet", tmp_path / "ray.parquet"
    score_table(flow, source, local, batch_size=300, draws=2)
    scores = score_table(flow, source, ray, batch_size=300, draws=2, engine="ray")
    assert scores.rows == 5000
    a, b = parquet.read_table(local), parquet.read_table(ray)
    assert a.column("row").equals(b.column("row"))
    np.testing.assert_allclose(a["log_prob"].to_numpy(), b["log_prob"].to_numpy(), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_one_engine_goes_on_where_the_other_stopped(flow, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 9, size=(1000, 3)))

    def stop(done, total):
        if done >= 300:
            raise KeyboardInterrupt

    out = tmp_path / "s.csv"
    with pytest.raises(KeyboardInterrupt):
        score_table(flow, tmp_path / "x.npy", out, batch_size=100, progress=stop)
    scores = score_table(flow, tmp_path / "x.npy", out, batch_size=100, engine="ray")
    assert (scores.resumed, scores.rows) == (300, 1000)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_samples_are_those_of_the_local_engine(flow, tmp_path):
    local = sample_table(flow, 5000, tmp_path / "a.npy", seed=2, batch_size=300)
    ray = sample_table(flow, 5000, tmp_path / "b.npy", seed=2, batch_size=300, engine="ray")
    np.testing.assert_array_equal(np.load(local), np.load(ray))


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_an_error_on_a_worker_is_the_same_sentence():
    from diffeo.integrations.ray import ordered_map

    with pytest.raises(DataError, match=r"^row 3 is bad$"):
        list(ordered_map(_fails, [3]))


def _fails():
    def work(start):
        from diffeo.errors import DataError

        raise DataError(f"row {start} is bad")

    return work


def test_without_ray_one_sentence_says_what_to_install(flow, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"diffeo\[ray\]"):
        sample_table(flow, 5, tmp_path / "x.npy", engine="ray")
    assert not list(tmp_path.iterdir())


def _breaks():
    def work(start):
        raise ZeroDivisionError("a defect")

    return work


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_failure_of_a_worker_is_one_sentence():
    from diffeo.integrations.ray import ordered_map

    with pytest.raises(
        diffeo.DiffeoError, match=r"^a Ray worker failed with ZeroDivisionError: a defect$"
    ):
        list(ordered_map(_breaks, [3]))
