"""What a model is given of pictures, and the sets of pictures with a split of their own."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.files import DATA, needs, picture, pictures

from diffeo.data import given_of, load
from diffeo.errors import DataError, InputError


def some(*shape):
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=g).to(torch.uint8)


def test_grey_is_that_of_pillow():
    x = some(50, 3, 6, 4)
    expected = [np.asarray(Image.fromarray(p.permute(1, 2, 0).numpy()).convert("L")) for p in x]
    assert given_of(x, "grey").equal(torch.tensor(np.stack(expected))[:, None])
    real = given_of(x.double(), "grey")
    assert (real - given_of(x, "grey")).abs().max() <= 0.5


@pytest.mark.parametrize(("given", "n"), [("half", 2), ("quarter", 4)])
def test_small_pictures_are_rounded_means(given, n):
    x = some(2, 5, 3, 8, 4)
    small = given_of(x, given)
    assert small.shape == (2, 5, 3, 8 // n, 4 // n)
    assert small.dtype == torch.uint8
    mean = torch.nn.functional.avg_pool2d(x.double().flatten(0, 1), n).reshape(small.shape)
    assert small.equal((mean + 0.5).floor().to(torch.uint8))
    torch.testing.assert_close(given_of(x.double(), given), mean)


def test_what_cannot_be_given():
    with pytest.raises(InputError, match="given must be grey, half or quarter, got 'third'"):
        given_of(some(1, 3, 4, 4), "third")
    with pytest.raises(DataError, match="grey is for pictures in colour"):
        given_of(some(1, 1, 4, 4), "grey")
    with pytest.raises(
        DataError, match="quarter needs a height and a width that 4 divides, got 6x4"
    ):
        given_of(some(1, 3, 6, 4), "quarter")
    with pytest.raises(DataError, match="is for pictures"):
        load("moons", size=100, given="half")


def test_a_folder_of_pictures(tmp_path):
    for i in range(12):
        picture(
            tmp_path, f"{i}.png", np.random.default_rng(i).integers(0, 256, (4, 8, 3), np.uint8)
        )
    data = load(tmp_path, given="grey")
    assert data.context_shape == (1, 4, 8)
    assert data.context(data.test).shape == (len(data.test), 1, 4, 8)
    assert data.source.endswith("given grey")
    plain = load(tmp_path)
    assert plain.context_shape is None
    assert plain.context(plain.test) is None
    with pytest.raises(DataError, match="grey is for pictures in colour"):
        load(pictures(tmp_path / "grey"), given="grey")


@needs("orl_faces")
def test_faces_of_other_people():
    data = load("orl_faces", bits=5)
    people = [set(labels.tolist()) for labels in data.labels]
    assert [len(p) for p in people] == [30, 4, 6]
    assert len(set.union(*people)) == 40
    assert data.train.shape == (300, 1, 64, 64)
    assert int(data.train.max()) == 31
    other = load("orl_faces", bits=5, seed=1)
    assert set(other.labels[2].tolist()) != people[2]


@needs("bsds300")
def test_crops_of_photographs():
    from diffeo.data.picture_sets import _crops

    path = sorted((DATA / "bsds300" / "bsds300_test").glob("*.jpg"))[0]
    crops = torch.tensor(_crops(path))
    assert crops.shape == (35, 3, 32, 32)
    photograph = torch.tensor(np.asarray(Image.open(path).convert("RGB"))).permute(2, 0, 1)
    across = photograph.shape[2] // 64
    half = given_of(photograph[:, :-1, :-1], "half")
    assert crops[across + 1].equal(half[:, 32:64, 32:64])


@pytest.mark.slow
@needs("bsds300")
def test_all_crops():
    data = load("bsds300_crops", given="quarter")
    assert [len(x) for x in (data.train, data.validation, data.test)] == [6300, 700, 3500]
    pictures_of_parts = [set(labels.tolist()) for labels in data.labels]
    assert not pictures_of_parts[0] & (pictures_of_parts[1] | pictures_of_parts[2])
    assert data.context_shape == (3, 8, 8)
