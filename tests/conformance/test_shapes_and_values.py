"""Shapes and values by hypothesis: round trip, Jacobian and batch promises at whatever size."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffeo.families import Affine
from diffeo.nets import MLP, ConvResNet
from diffeo.testing import check_transform
from diffeo.transforms import (
    ActNorm,
    Alternating,
    BatchNorm,
    Checkerboard,
    Coupling,
    Halves,
    Mask,
    Permutation,
    Squeeze,
)

MATHS = ("jacobian", "inverse_jacobian", "round_trip", "inverse_ladj", "ladj_shape_dtype", "batch_of_one")  # fmt: skip

quick = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
vectors = st.tuples(st.integers(1, 7))
images = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
partitions = st.builds(
    lambda kind, flip: partial(kind, flip=flip),
    st.sampled_from([Halves, Alternating, Checkerboard]),
    st.booleans(),
)
seeds = st.integers(0, 10_000)


@quick
@given(vectors, partitions, st.sampled_from(["exp", "tanh", "sigmoid", "clamp"]), st.integers(1, 4), seeds)  # fmt: skip
def test_vector_coupling(shape: Any, partition: Any, scale: Any, batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = Coupling(shape, Affine(scale), partial(MLP, hidden=(6,)), partition)
    check_transform(layer, checks=MATHS, batch=batch, seed=seed)


@quick
@given(images, partitions, st.integers(1, 3), seeds)
def test_image_coupling(shape: Any, partition: Any, batch: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = Coupling(shape, None, partial(ConvResNet, width=2, blocks=1), partition)
    check_transform(layer, checks=MATHS, batch=batch, seed=seed)


@quick
@given(st.lists(st.booleans(), min_size=1, max_size=6), seeds)
def test_any_mask(visible: list[bool], seed: int) -> None:
    shape = (len(visible),)
    layer = Coupling(shape, None, partial(MLP, hidden=(6,)), Mask(shape, visible))
    check_transform(layer, checks=MATHS, seed=seed)
    check_transform(BatchNorm(shape, Mask(shape, visible)), checks=MATHS, seed=seed)


@quick
@given(st.permutations(range(5)), st.integers(1, 3), seeds)
def test_any_permutation(order: list[int], width: int, seed: int) -> None:
    check_transform(Permutation((5, width), list(order)), checks=MATHS, seed=seed)


@quick
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["plain", "checkerboard"]),
)
def test_any_squeeze(channels: int, rows: int, columns: int, factor: int, order: Any) -> None:
    layer = Squeeze((channels, rows * factor, columns * factor), factor, order)
    x = torch.arange(2 * layer.latent_shape[0] * rows * columns).reshape(2, *layer.event_shape)
    z, ladj = layer(x.double())
    assert tuple(z.shape[1:]) == (channels * factor**2, rows, columns)
    assert not ladj.any()
    assert torch.equal(layer.inverse(z)[0], x.double())
    assert torch.equal(z.flatten().sort().values, x.double().flatten())


@quick
@given(st.integers(0, 2), images, seeds)
def test_any_rank_of_event(rank: int, shape: Any, seed: int) -> None:
    check_transform(ActNorm(shape[: rank + 1]), checks=MATHS, seed=seed)


@quick
@given(
    st.lists(
        st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), min_size=1, max_size=4
    ),
    partitions,
)  # fmt: skip
def test_any_values(values: list[list[float]], partition: Any) -> None:
    layer = Coupling((3,), Affine("clamp"), partial(MLP, hidden=(6,)), partition)
    x = torch.tensor(values, dtype=torch.float64)
    check_transform(layer, x, checks=("jacobian", "round_trip", "inverse_ladj", "batch_of_one"))
