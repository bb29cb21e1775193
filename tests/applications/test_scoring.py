"""score_table: every row, in order, however the work is cut, and after a kill."""

import copy
import csv as text_csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from pyarrow import csv, parquet

import diffeo
from diffeo.applications import Reading, score_table
from diffeo.applications.tables import Forward, open_for
from diffeo.errors import DataError, InputError

ABC = Reading(columns=("a", "b", "c"))


def column(path, name="log_prob"):
    table = parquet.read_table(path) if path.suffix == ".parquet" else csv.read_csv(path)
    return table.column(name).to_numpy()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("source", [1, 2])
def test_rows_are_scored_in_order(vectors, table, tmp_path, suffix, source):
    x = table[0]
    out = tmp_path / f"scores{suffix}"
    scores = score_table(vectors, table[source], out, reading=ABC, batch_size=7)
    expected = vectors.log_prob(torch.from_numpy(x)).detach().double()
    np.testing.assert_allclose(column(out), expected, rtol=1e-5)
    np.testing.assert_array_equal(column(out, "row"), np.arange(100))
    assert (scores.rows, scores.kind, scores.outside, scores.resumed) == (100, "exact", 0, 0)
    assert scores.mean == pytest.approx(float(expected.mean()), rel=1e-6)
    assert scores.error == pytest.approx(float(expected.std() / 10), rel=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.csv", "rows.parquet", out.name]


def test_columns_are_matched_by_name(vectors, table, tmp_path):
    turned = tmp_path / "turned.csv"
    csv.write_csv(csv.read_csv(table[1]).select(["c", "n", "a", "b"]), turned)
    score_table(vectors, table[1], tmp_path / "1.parquet", reading=ABC)
    score_table(vectors, turned, tmp_path / "2.parquet", reading=ABC)
    np.testing.assert_array_equal(column(tmp_path / "1.parquet"), column(tmp_path / "2.parquet"))


@pytest.mark.parametrize("source", [1, 2])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_kept_columns_are_unchanged(vectors, table, tmp_path, source, suffix):
    out = tmp_path / f"scores{suffix}"
    score_table(vectors, table[source], out, reading=ABC, keep=["n", "id"], batch_size=9)
    if suffix == ".parquet":
        found = parquet.read_table(out)
        assert found.column_names == ["row", "n", "id", "log_prob"]
        assert found.column("id").to_pylist() == [f"{i:03d}" for i in range(100)]
        assert found.column("n").to_pylist() == list(range(100))
    else:
        header, *found = text_csv.reader(out.read_text().splitlines())
        assert header == ["row", "n", "id", "log_prob"]
        assert [row[:3] for row in found] == [[str(i), str(i), f"{i:03d}"] for i in range(100)]


@pytest.mark.usefixtures("small_blocks")
def test_noise_belongs_to_the_row(counts, tmp_path):
    x = np.random.default_rng(0).integers(0, 9, size=(100, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)

    def scored(batch_size, **options):
        out = tmp_path / "scores.parquet"
        score_table(counts, tmp_path / "x.npy", out, batch_size=batch_size, **options)
        return column(out)

    whole = scored(100)
    for batch_size in (16, 48):  # whole blocks: bit for bit
        np.testing.assert_array_equal(scored(batch_size), whole)
    for batch_size in (1, 7, 50):
        np.testing.assert_allclose(scored(batch_size), whole, rtol=1e-5)
    # Equal rows get different noise, and other seeds too.
    assert len(np.unique(whole)) > 90
    assert not np.allclose(scored(100, seed=1), whole)


def test_more_draws_come_nearer_the_mean(counts, tmp_path):
    np.save(tmp_path / "x.npy", np.full((200, 3), 4, dtype=np.uint8))
    spread = {}
    for draws in (1, 16):
        out = tmp_path / "scores.parquet"
        score_table(counts, tmp_path / "x.npy", out, draws=draws)
        spread[draws] = column(out).std()
    assert spread[16] < 0.5 * spread[1]


KILLED = """
import os, signal, sys
import diffeo
from diffeo.applications import Reading, score_table
from diffeo.applications import scoring
run, table, out, chunks = sys.argv[1:]
stored = scoring._Job.store
def store(self, index, part):
    if index == int(chunks):
        os.kill(os.getpid(), signal.SIGKILL)
    stored(self, index, part)
scoring._Job.store = store
score_table(diffeo.load(run), table, out, reading=Reading(("a", "b", "c")), keep=["id"], batch_size=10)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_job_goes_on(vectors, table, tmp_path):
    vectors.save(tmp_path / "run")
    out = tmp_path / "scores.parquet"
    args = [sys.executable, "-c", KILLED, tmp_path / "run", table[1], out, "4"]
    ended = subprocess.run(list(map(str, args)), capture_output=True, text=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not out.exists()
    options = {"reading": ABC, "keep": ["id"], "batch_size": 10}
    scores = score_table(vectors, table[1], out, **options)
    assert (scores.resumed, scores.rows) == (40, 100)
    whole = tmp_path / "whole.parquet"
    assert score_table(vectors, table[1], whole, **options).resumed == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "scores.parquet.parts").exists()


def interrupted(flow, source, out, **options):
    """A job that stops after two chunks."""

    def stop(done, total):
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_table(flow, source, out, batch_size=10, progress=stop, **options)


def test_other_inputs_are_named(vectors, table, tmp_path):
    out = tmp_path / "scores.csv"
    interrupted(vectors, table[1], out, reading=ABC)
    with pytest.raises(InputError, match="another batch_size"):
        score_table(vectors, table[1], out, reading=ABC, batch_size=20)
    with pytest.raises(InputError, match="another table"):
        score_table(vectors, table[2], out, reading=ABC, batch_size=10)
    os.utime(table[1], ns=(time.time_ns(), time.time_ns() + 1))
    with pytest.raises(InputError, match="another table"):
        score_table(vectors, table[1], out, reading=ABC, batch_size=10)
    manifest = json.loads((tmp_path / "scores.csv.parts" / "manifest.json").read_text())
    assert manifest["rows"] == 100


def test_another_model_does_not_go_on(vectors, table, tmp_path):
    out = tmp_path / "scores.csv"
    interrupted(vectors, table[2], out, reading=ABC)
    other = copy.deepcopy(vectors)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    with pytest.raises(InputError, match="another model"):
        score_table(other, table[2], out, reading=ABC, batch_size=10)
    scores = score_table(vectors, table[2], out, reading=ABC, batch_size=10)
    assert scores.resumed == 20


def test_a_bad_row_is_found_before_any_is_scored(vectors, table, tmp_path):
    lines = table[1].read_text().splitlines()
    lines[90] = lines[90].replace(lines[90].split(",")[-1], "nan")
    table[1].write_text("\n".join(lines))
    with pytest.raises(DataError, match="row 89"):
        score_table(vectors, table[1], tmp_path / "s.csv", reading=ABC, batch_size=10)
    assert not list(tmp_path.glob("s.csv*"))


def test_rows_outside_the_support_are_counted(tmp_path):
    flow = diffeo.Flow(
        diffeo.transforms.Permutation((2,)), diffeo.distributions.Uniform((2,))
    ).eval()
    np.save(tmp_path / "x.npy", np.array([[0.5, 0.5], [2.0, 0.5]], dtype=np.float32))
    scores = score_table(flow, tmp_path / "x.npy", tmp_path / "s.csv")
    assert (scores.outside, scores.mean) == (1, -np.inf)
    np.testing.assert_array_equal(column(tmp_path / "s.csv"), [0, -np.inf])


MISTAKES = {
    "a suffix": ({"out": "s.npy"}, InputError, r"\.parquet, \.csv"),
    "an engine": ({"engine": "spark"}, ValueError, "'spark'"),
    "a batch size": ({"batch_size": 0}, InputError, "batch_size"),
    "draws": ({"draws": 0}, InputError, "draws"),
    "columns that are not there": ({"reading": Reading(("a", "b", "d"))}, DataError, "'d'"),
    "too few columns": ({"reading": Reading(("a", "b"))}, DataError, r"\(2,\)"),
    "a kept column that is not there": ({"keep": ["idd"]}, DataError, "did you mean 'id'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name, vectors, table, tmp_path):
    options, kind, words = MISTAKES[name]
    options = {"reading": ABC, "out": "s.csv"} | options
    out = tmp_path / options.pop("out")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind, match=words):
        score_table(vectors, table[1], out, **options)
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_of_pictures(pictures, tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    x = np.random.default_rng(0).integers(0, 256, size=(12, 4, 4), dtype=np.uint8)
    for i, image in enumerate(x):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    flow = diffeo.zoo.build("nice", (1, 4, 4), size="tiny", levels=32).eval()
    out = tmp_path / "s.parquet"
    score_table(flow, folder, out, reading=Reading(bits=5), keep=["file"], batch_size=5)
    assert parquet.read_table(out).column("file").to_pylist() == [f"{i:02d}.png" for i in range(12)]
    np.save(tmp_path / "x.npy", x[:, None] >> 3)
    score_table(flow, tmp_path / "x.npy", tmp_path / "t.parquet")
    np.testing.assert_allclose(column(out), column(tmp_path / "t.parquet"), rtol=1e-5)


def test_text_of_a_csv_becomes_numbers_where_all_cells_are(vectors, tmp_path):
    rows = ["a,b,c,count,weight,name"]
    rows += [f"0.1,0.2,{i},{i},{i if i < 90 else i / 8},{i if i < 95 else 'x'}" for i in range(100)]
    (tmp_path / "x.csv").write_text("\n".join(rows))
    keep = ["count", "weight", "name"]
    out = tmp_path / "s.parquet"
    score_table(vectors, tmp_path / "x.csv", out, reading=ABC, keep=keep, batch_size=30)
    kinds = [str(parquet.read_schema(out).field(name).type) for name in keep]
    assert kinds == ["int64", "double", "string"]


@pytest.mark.parametrize("source", [1, 2])
def test_chunks_by_their_start_in_any_order(vectors, table, source):
    chunks = Forward(lambda: open_for(vectors, table[source], ABC), 10)
    for start in (0, 10, 40, 50, 20, 90, 95, 0):
        np.testing.assert_allclose(chunks(start), table[0][start : start + 10], rtol=1e-6)
