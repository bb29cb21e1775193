"""Folders of pictures: order, size, channels, bits, orientation, labels, parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.files import DATA, lengths, needs, picture, pictures, rows

from diffeo.data import load

RANDOM = np.random.default_rng(0)


def same_pictures(a: torch.Tensor, b: np.ndarray) -> bool:
    return sorted(x.numpy().tobytes() for x in a) == sorted(x.tobytes() for x in b)


def test_grey_pictures(tmp_path: Path) -> None:
    data = load(pictures(tmp_path, 20))
    original = np.stack([np.asarray(Image.open(p)) for p in sorted(tmp_path.glob("*.png"))])
    assert data.event_shape == (1, 6, 4)
    assert data.train.dtype == torch.uint8
    assert data.levels == 256
    assert data.labels is None
    assert lengths(data) == (16, 2, 2)
    assert same_pictures(rows(data)[:, 0], original)
    assert "20 pictures" in data.source


def paletted(path: Path, pixels: np.ndarray) -> None:
    colours, index = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    image = Image.frombytes("P", pixels.shape[1::-1], index.astype(np.uint8).tobytes())
    image.putpalette(colours.astype(np.uint8).tobytes())
    image.save(path)


def test_modes_of_one_picture(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 4, (6, 4, 3), dtype=np.uint8) * 85
    for i in range(20):
        pixels[0, 0] = i
        if i % 3 == 2:
            paletted(tmp_path / "deep" / "er" / f"{i:02}.PNG", pixels)
        else:
            picture(tmp_path / "deep" / "er", f"{i:02}.PNG", pixels, ("RGB", "RGBA")[i % 3])
    found = rows(load(tmp_path))
    assert found.shape == (20, 3, 6, 4)
    assert sorted(found[:, 0, 0, 0].tolist()) == list(range(20))
    exact = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
    assert (found[:, :, 1:] == exact[:, :, 1:]).all()


def test_channels(tmp_path: Path) -> None:
    pictures(tmp_path, 10)
    for i in range(10):
        picture(tmp_path, f"c{i}.png", RANDOM.integers(0, 256, (6, 4, 3), dtype=np.uint8))
    assert load(tmp_path, channels=1).event_shape == (1, 6, 4)
    assert load(tmp_path, channels=3).event_shape == (3, 6, 4)


@pytest.mark.parametrize("bits", [1, 3, 5, 8])
def test_bits(bits: int, tmp_path: Path) -> None:
    pictures(tmp_path)
    whole, some = load(tmp_path), load(tmp_path, bits=bits)
    assert some.levels == 2**bits
    assert same_pictures(rows(some), rows(whole).numpy() // 2 ** (8 - bits))


def test_fit(tmp_path: Path) -> None:
    """A picture of four bands: resize keeps all of them, crop the two in the middle."""
    for i in range(12):
        bands = np.repeat(np.array([0, 80, 160, 240], np.uint8) + np.uint8(i), 8)
        picture(tmp_path, f"{i}.png", np.tile(bands, (16, 1)))
    resized = load(tmp_path, image_size=8)
    cropped = load(tmp_path, image_size=(8, 8), fit="crop")
    assert resized.event_shape == cropped.event_shape == (1, 8, 8)
    first = rows(resized)[rows(resized)[:, 0, 0, 0].argsort()][0, 0, 4].float()
    assert torch.allclose(first, torch.tensor([0, 0, 80, 80, 160, 160, 240, 240.0]), atol=12)
    first = rows(cropped)[rows(cropped)[:, 0, 0, 0].argsort()][0, 0, 4].float()
    assert torch.allclose(first, torch.tensor([80.0] * 4 + [160.0] * 4), atol=12)
    assert "resized to 8x8" in resized.source
    assert "scaled and cropped to 8x8" in cropped.source


def test_resize_is_antialiased(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 254).astype(np.uint8)
    for i in range(12):
        board[:8, :8] = 20 * i
        picture(tmp_path, f"{i}.png", board)
    data = load(tmp_path, image_size=8)
    assert ((rows(data)[:, :, 3:, 3:].float() - 127).abs() <= 2).all()


def test_orientation(tmp_path: Path) -> None:
    for i in range(12):
        pixels = np.full((8, 16), i, np.uint8)
        pixels[:, 8:] = 200
        exif = Image.Exif()
        exif[0x0112] = 6  # turn clockwise to see it upright
        picture(tmp_path, f"{i:02}.jpg", pixels, exif=exif, quality=95)
    data = load(tmp_path)
    assert data.event_shape == (1, 16, 8)
    assert (rows(data)[:, 0, 12:].float() - 200).abs().max() < 12
    assert rows(data)[:, 0, :4].max() < 40


def test_labels_are_subfolders(tmp_path: Path) -> None:
    for i in range(20):
        pixels = RANDOM.integers(1, 99, (4, 4), dtype=np.uint8) + np.uint8(100 * (i % 2))
        picture(tmp_path / ("night", "day")[i % 2], f"{i}.png", pixels)
    data = load(tmp_path)
    assert data.labels is not None
    labels = torch.cat(data.labels)
    assert torch.equal(labels == 0, (rows(data) >= 100).flatten(1).any(1))
    assert "labels 0..1 are the subfolders day, night" in data.source


def test_parts_are_subfolders(tmp_path: Path) -> None:
    pictures(tmp_path / "train", 20)
    picture(tmp_path / "test", "b.png", np.zeros((6, 4), np.uint8))
    data = load(tmp_path)
    assert lengths(data) == (18, 2, 1)
    assert data.labels is None
    assert data.test.max() == 0


@needs("bsds300")
def test_photographs() -> None:
    """Portrait and landscape, from 481x321 pixels."""
    folder = DATA / "bsds300" / "bsds300_test"
    data = load(folder, image_size=(16, 24), fit="crop", bits=5)
    assert data.event_shape == (3, 16, 24)
    assert lengths(data) == (80, 10, 10)
    assert data.levels == 32
