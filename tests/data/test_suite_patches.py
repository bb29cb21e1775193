"""BSDS300: patches by picture, the noise and the mean, the cache, the published file."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.files import DATA, lengths, needs, picture, rows
from tests.data.test_bad_inputs import check_sentence

from diffeo.data import suite_patches
from diffeo.data.suite_patches import centred, load_bsds300
from diffeo.errors import DataError
from diffeo.evaluation import baselines

TRAIN, TEST = 10, 3
RAMP = np.arange(20)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of 12x20 pixels, each a ramp with a slope of its own: 0 to 9 for training, 10 to 12 for test."""
    monkeypatch.setenv("DIFFEO_CACHE", str(tmp_path / "cache"))
    for i in range(TRAIN + TEST):
        pixels = np.broadcast_to(i * RAMP, (12, 20)).astype(np.uint8)
        part = "train" if i < TRAIN else "test"
        picture(tmp_path, f"bsds300_{part}/{i:03}.png", pixels)
    return tmp_path


def slopes(x: torch.Tensor) -> Any:
    """The slope of the ramp in each row, by least squares over the 63 pixels."""
    column = torch.arange(8.0).repeat(8)[:63]
    column = column - column.mean()
    return (256 * (x - x.mean(1, keepdim=True)) @ column / column.square().sum()).round().int()


def test_parts_share_no_picture_and_rows_go_round(folder: Path) -> None:
    data = load_bsds300(folder, (90, 20, 30))
    assert lengths(data) == (90, 20, 30)
    assert (data.event_shape, data.levels) == ((63,), None)
    found = [slopes(part).tolist() for part in (data.train, data.validation, data.test)]
    train, validation, test = (set(part) for part in found)
    assert test == {10, 11, 12}
    assert len(validation) == 1
    assert train | validation == set(range(10))
    assert not train & validation
    for part in found:
        n = len(set(part))
        assert part == (part[:n] * len(part))[: len(part)]


def test_noise_mean_and_the_dropped_pixel(folder: Path) -> None:
    data = load_bsds300(folder, (90, 40, 30))
    x = rows(data).double()
    x = 256 * torch.cat((x, -x.sum(1, keepdim=True)), 1)
    ramp = slopes(rows(data))[:, None] * torch.arange(8.0).repeat(8)
    noise = x - (ramp - ramp.mean(1, keepdim=True))
    # u - mean(u), u uniform on [0, 1): variance (1 - 1/64) / 12, of the pixel that is dropped, too.
    assert abs(noise.var() * 12 * 64 / 63 - 1) < 0.05
    assert abs(noise[:, -1].var() * 12 * 64 / 63 - 1) < 0.35
    assert noise.abs().max() < 1
    y = np.random.default_rng(0).random((3, 64))
    assert np.allclose(centred(y), (y - y.mean(1)[:, None])[:, :63], atol=1e-7)


def test_made_once_and_again_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rows(load_bsds300(folder, (90, 20, 30))).clone()
    (made,) = (folder / "cache").iterdir()
    assert not any(p.name.startswith(".") for p in (folder / "cache").iterdir())
    with monkeypatch.context() as patch:
        patch.delattr(suite_patches, "_patches")
        assert torch.equal(rows(load_bsds300(folder, (90, 20, 30))), first)
    made.rename(folder / "old")
    assert torch.equal(rows(load_bsds300(folder, (90, 20, 30))), first)


def test_patches_of_a_picture_are_at_different_places(folder: Path) -> None:
    g = np.random.default_rng(0)
    path = picture(folder, "noise.png", g.integers(0, 256, (12, 20), dtype=np.uint8))
    found = suite_patches._some_patches(path, 65, np.random.RandomState(0))
    assert len(np.unique(found, axis=0)) == 65
    with pytest.raises(DataError, match="65 patches of 8x8, expected at least 66") as info:
        suite_patches._some_patches(path, 66, np.random.RandomState(0))
    check_sentence(str(info.value))


def test_the_published_file_is_read_instead(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "BSDS300.hdf5").write_bytes(b"stands for the published file")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match="pip install h5py") as info:
        load_bsds300(folder)
    check_sentence(str(info.value))

    class File(dict[str, Any]):
        def __init__(self, path: Path, mode: str) -> None:
            super().__init__(parts)

        def __enter__(self) -> File:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    library = types.ModuleType("h5py")
    library.File = File  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "h5py", library)
    values = np.random.default_rng(0).normal(size=(3, 20, 63))
    parts: dict[str, Any] = dict(zip(("train", "validation", "test"), values, strict=True))
    data = load_bsds300(folder)
    assert np.allclose(rows(data).numpy(), values.reshape(-1, 63), atol=1e-6)
    for wrong in ({"train": values[0]}, parts | {"test": values[0, :, :62]}):
        parts = wrong
        with pytest.raises(DataError, match=r"BSDS300\.hdf5") as info:
            load_bsds300(folder)
        check_sentence(str(info.value))


@pytest.mark.slow
@needs("bsds300")
def test_the_gaussian_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published full-covariance Gaussian has 96.67 nats: the check of scale, noise and mean."""
    monkeypatch.setenv("DIFFEO_CACHE", str(tmp_path))
    data = load_bsds300(DATA / "bsds300", (100_000, 5_000, 100_000))
    (row,) = baselines(data)
    assert abs(-row.nats - 96.67) < 1.5
