"""Linear maps along the first axis: what the conformance table does not reach."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from diffeo.errors import ConfigError, ShapeError
from diffeo.flow import Flow
from diffeo.transforms import (
    ActNorm,
    Chain,
    Flatten,
    Householder,
    InvertibleConv1x1,
    LULinear,
    PeriodicConv,
    Rotation,
    Squeeze,
)


@pytest.mark.parametrize("form", ["plu", "direct"])
def test_conv1x1_starts_as_a_rotation(form: str) -> None:
    torch.manual_seed(0)
    w = InvertibleConv1x1((96, 2, 2), form).double().matrix()
    torch.testing.assert_close(w @ w.mT, torch.eye(96).double(), rtol=0, atol=1e-5)
    assert (w - torch.eye(96)).abs().max() > 0.1


def test_both_forms_of_conv1x1_are_one_matrix() -> None:
    plu, direct = (InvertibleConv1x1((5, 2, 3), form).double() for form in ("plu", "direct"))
    with torch.no_grad():
        direct.weight.copy_(plu.matrix())
    x = torch.randn(2, 5, 2, 3).double()
    for ours, theirs in zip(
        (*plu(x), *plu.inverse(x)), (*direct(x), *direct.inverse(x)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", ["plu", "direct"])
@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_badly_scaled_conv1x1_in_float32(form: str, size: float) -> None:
    """det W is size^96, which float32 cannot hold; log|det W| and the inverse it can."""
    torch.manual_seed(0)
    layer = InvertibleConv1x1((96, 4, 4), form)
    with torch.no_grad():
        if form == "direct":
            layer.weight.mul_(size)
        else:
            layer.log_diagonal.add_(torch.tensor(size).log())
            layer.upper.mul_(size)
    assert not 0 < torch.linalg.det(layer.matrix()).abs() < float("inf")
    x = torch.randn(2, 96, 4, 4)
    z, ladj = layer(x)
    expected = 16 * torch.linalg.slogdet(layer.matrix().double())[1]
    torch.testing.assert_close(ladj.double(), expected.expand(2), rtol=1e-5, atol=0)
    torch.testing.assert_close(layer.inverse(z)[0], x, rtol=0, atol=1e-4)


def test_householder_is_the_product_of_its_reflections() -> None:
    torch.manual_seed(0)
    layer = Householder((6,), 4).double()
    product = torch.eye(6).double()
    for v in layer.directions.detach():
        product = product @ (torch.eye(6) - 2 * torch.outer(v, v) / (v @ v))
    torch.testing.assert_close(layer.matrix(), product, rtol=0, atol=1e-13)
    with torch.no_grad():
        layer.directions[1].zero_()
    # A direction of length zero reflects nothing.
    assert layer.matrix().isfinite().all()
    assert float(torch.linalg.det(layer.matrix().detach())) == pytest.approx(-1)


def test_images_stay_channels_last() -> None:
    x = torch.randn(2, 4, 3, 5).to(memory_format=torch.channels_last)
    for layer in (InvertibleConv1x1((4, 3, 5)), Rotation((4, 3, 5)), LULinear((4, 3, 5))):
        for y in (layer(x)[0], layer.inverse(x)[0]):
            assert y.is_contiguous(memory_format=torch.channels_last)


def test_periodic_convolution_commutes_with_shifts() -> None:
    torch.manual_seed(0)
    layer = PeriodicConv((2, 3, 5), 5).double()
    with torch.no_grad():
        layer.weight.add_(0.1 * torch.randn(2, 2, 5, 5).double())
    x = torch.randn(1, 2, 3, 5).double()
    for f in (layer, layer.inverse):
        moved = f(x.roll((1, 2), (2, 3)))[0]
        torch.testing.assert_close(f(x)[0].roll((1, 2), (2, 3)), moved, rtol=1e-9, atol=1e-9)


def test_periodic_convolution_is_resized() -> None:
    torch.manual_seed(0)
    steps = [Squeeze, ActNorm, PeriodicConv, InvertibleConv1x1, Householder, Flatten]
    flow = Flow(Chain((1, 4, 6), steps)).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn(p.shape).double())
    large = flow.resized((1, 8, 6))
    x = torch.randn(3, 1, 8, 6).double()
    torch.testing.assert_close(large.decode(large.encode(x)), x, rtol=1e-9, atol=1e-9)
    assert list(large.parameters())[2] is list(flow.parameters())[2]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (partial(InvertibleConv1x1, (4,), "qr"), ConfigError, "plu or direct"),
        (partial(InvertibleConv1x1, ()), ShapeError, "at least one axis"),
        (partial(Householder, (4,), 0), ConfigError, "at least one reflection"),
        (partial(PeriodicConv, (4,)), ShapeError, "images"),
        (partial(PeriodicConv, (1, 4, 4), 2), ConfigError, "odd kernel"),
    ],
)
def test_what_cannot_be_built(make: partial, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()
