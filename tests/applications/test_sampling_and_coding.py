"""Samples and latents as files: the same rows however the work is cut, and the way back."""

import numpy as np
import pytest
import torch
from pyarrow import csv, parquet

from diffeo.applications import Reading, decode_table, encode_table, sample_table
from diffeo.errors import DataError, InputError


def rows(path):
    if path.suffix == ".npy":
        return np.load(path)
    table = parquet.read_table(path) if path.suffix == ".parquet" else csv.read_csv(path)
    return np.stack([c.to_numpy() for c in table.columns], axis=1)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_samples_depend_on_seed_and_number_alone(vectors, tmp_path, suffix):
    def drawn(n=50, **options):
        return rows(sample_table(vectors, n, tmp_path / f"x{suffix}", **options))

    whole = drawn()
    assert whole.shape == (50, 3)
    np.testing.assert_array_equal(drawn(batch_size=16), whole)
    np.testing.assert_allclose(drawn(batch_size=7), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(drawn(n=20), whole[:20], rtol=1e-4, atol=1e-5)
    assert not np.allclose(drawn(seed=1), whole)
    assert len(np.unique(whole[:, 0])) == 50


def test_samples_follow_the_flow(vectors, tmp_path):
    x = rows(sample_table(vectors, 20000, tmp_path / "x.npy", seed=3))
    z = vectors.encode(torch.from_numpy(x)).detach()
    assert z.mean(0).abs().max() < 4 / 20000**0.5
    assert (z.T @ z / len(z) - torch.eye(3)).abs().max() < 0.06


def test_temperature_zero_is_one_point(vectors, tmp_path):
    x = rows(sample_table(vectors, 5, tmp_path / "x.npy", temperature=0.0))
    np.testing.assert_allclose(x, x[:1].repeat(5, 0), rtol=1e-5)


def test_names_of_columns(vectors, tmp_path):
    out = sample_table(vectors, 5, tmp_path / "x.csv", columns=("a", "b c", "d"))
    assert out.read_text().splitlines()[0] == "a,b c,d"
    out = sample_table(vectors, 5, tmp_path / "x.parquet")
    assert parquet.read_table(out).column_names == ["x0", "x1", "x2"]


def test_pictures(pictures, tmp_path):
    from PIL import Image

    sample_table(pictures, 10, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (8 * 32 + 7 * 4, 2 * 32 + 4)
    x = rows(sample_table(pictures, 10, tmp_path / "x.npy"))
    assert (x.dtype, x.shape) == (np.uint8, (10, 1, 4, 4))
    with pytest.raises(InputError, match="4096"):
        sample_table(pictures, 5000, tmp_path / "y.png")
    with pytest.raises(InputError, match=r"use \.npy"):
        sample_table(pictures, 5, tmp_path / "y.csv")


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_integers_come_back_exactly(pictures, tmp_path, suffix):
    x = np.random.default_rng(0).integers(0, 9, size=(50, 1, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    z = encode_table(pictures, tmp_path / "x.npy", tmp_path / f"z{suffix}", batch_size=7)
    assert len(rows(z)) == 50
    back = decode_table(pictures, z, tmp_path / "back.npy", batch_size=11)
    np.testing.assert_array_equal(rows(back), x)
    assert rows(back).dtype == np.uint8


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_latents_are_those_of_the_flow_bit_for_bit(vectors, table, tmp_path, suffix):
    z = encode_table(vectors, table[1], tmp_path / f"z{suffix}", reading=Reading(("a", "b", "c")))
    expected = vectors.encode(torch.from_numpy(table[0])).detach().numpy()
    np.testing.assert_array_equal(rows(z).astype(np.float32), expected)
    back = decode_table(vectors, z, tmp_path / "back.csv", columns=("a", "b", "c"))
    assert back.read_text().splitlines()[0] == "a,b,c"
    np.testing.assert_allclose(rows(back), table[0], rtol=1e-3, atol=1e-4)


def test_an_array_of_a_text_file_has_its_length_in_the_header(vectors, tmp_path):
    # The number of rows of a csv is known at its end only.
    x = np.random.default_rng(0).normal(size=(1234, 3))
    np.savetxt(tmp_path / "x.csv", x, delimiter=",")
    z = encode_table(vectors, tmp_path / "x.csv", tmp_path / "z.npy", batch_size=100)
    assert np.load(z, mmap_mode="r").shape == (1234, 3)


def test_what_does_not_fit_leaves_nothing(vectors, pictures, table, tmp_path):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"\(2,\).*\(3,\)"):
        decode_table(vectors, two_columns(table[1]), tmp_path / "x.npy")
    with pytest.raises(DataError, match="shape"):
        encode_table(pictures, table[1], tmp_path / "z.npy", reading=Reading(("a", "b", "c")))
    with pytest.raises(InputError, match="temperature"):
        sample_table(vectors, 5, tmp_path / "x.npy", temperature=-1.0)
    assert sorted(p for p in tmp_path.iterdir() if p.name != "two.csv") == before


def two_columns(path):
    two = path.with_name("two.csv")
    csv.write_csv(csv.read_csv(path).select(["a", "b"]), two)
    return two


def test_a_bad_row_late_in_the_table_leaves_no_file(vectors, tmp_path):
    x = np.zeros((100, 3), dtype=np.float32)
    x[95] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match="row 95"):
        encode_table(vectors, tmp_path / "x.npy", tmp_path / "z.csv", batch_size=10)
    assert [p.name for p in tmp_path.iterdir()] == ["x.npy"]
