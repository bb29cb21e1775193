"""Edits by latents: ends and corners are what was given, norms and levels are as promised."""

import pytest
import torch

import diffeo
from diffeo.applications import attribute, interpolate, manifold, shift
from diffeo.errors import ConfigError, InputError, ShapeError


@pytest.fixture(scope="module")
def flow():
    return diffeo.load("digits-glow")


@pytest.fixture(scope="module")
def digits():
    return torch.as_tensor(diffeo.data.load("digits").test)


@pytest.fixture(scope="module")
def plain():
    """A flow over numbers in float64."""
    made = diffeo.zoo.build("realnvp", (1, 8, 8), size="tiny", levels=None, standardize=False)
    made = made.double()
    made.initialize(torch.randn(64, 1, 8, 8, dtype=torch.float64))
    return made.eval()


@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_a_path_has_its_ends(flow, digits, path):
    found = interpolate(flow, digits[0], digits[1], 5, path=path)
    assert found.shape == (5, *flow.event_shape)
    assert torch.equal(found[0], digits[0])
    assert torch.equal(found[-1], digits[1])


def test_norms_along_a_path(plain):
    a, b = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    ends = plain.encode(torch.stack((a, b))).norm(dim=1)
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    norms = plain.encode(interpolate(plain, a, b, 7)).norm(dim=1)
    assert torch.allclose(norms, ends[0] + t * (ends[1] - ends[0]))
    assert plain.encode(interpolate(plain, a, b, 7, path="linear")).norm(dim=1)[3] < ends.min()


def test_a_path_through_zero_is_a_line(plain):
    z = torch.randn(64, dtype=torch.float64)
    a, b = plain.decode(torch.stack((z, -2 * z)))
    middle = plain.encode(interpolate(plain, a, b, 3)[1])
    assert torch.allclose(middle, -0.5 * z, atol=1e-8)
    same = interpolate(plain, a, a, 3)
    assert torch.allclose(same, a.expand_as(same), atol=1e-8)


def test_a_manifold_has_its_corners(flow, digits):
    found = manifold(flow, digits[:4], 8)
    assert found.shape == (8, 8, *flow.event_shape)
    for k, (row, column) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        assert torch.equal(found[row, column], digits[k])


def test_an_attribute_moves_the_mean(plain):
    x = torch.randn(40, 1, 8, 8, dtype=torch.float64)
    direction = attribute(plain, x[:20] + 1, x[20:])
    shifted = shift(plain, x[:3], direction, (0.0, 1.0))
    assert torch.allclose(shifted[:, 0], x[:3])
    assert torch.allclose(plain.encode(shifted[:, 1]), plain.encode(x[:3]) + direction)


def test_wrong_use_is_a_sentence(flow, digits):
    with pytest.raises(ShapeError, match="one event has shape"):
        interpolate(flow, digits[:2], digits[1])
    with pytest.raises(ConfigError, match="path must be"):
        interpolate(flow, digits[0], digits[1], path="straight")
    with pytest.raises(InputError, match="four corners"):
        manifold(flow, digits[:3])
    with pytest.raises(InputError, match="steps must be"):
        manifold(flow, digits[:4], 1)
    with pytest.raises(InputError, match="none of one kind"):
        attribute(flow, digits[:0], digits)
    with pytest.raises(ShapeError, match="a direction has shape"):
        shift(flow, digits[:2], torch.zeros(3))
