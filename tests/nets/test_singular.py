"""The search for greatest singular values: it reaches those of dense SVD, whatever the maps and the beginning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo.nets.singular import most_stretched, search


def _maps(kind: str, dtype: torch.dtype) -> Tensor:
    g = torch.Generator().manual_seed(0)
    if kind == "random":
        return torch.randn(5, 30, 20, generator=g, dtype=dtype)
    if kind == "column":
        return torch.randn(5, 6, 1, generator=g, dtype=dtype)
    if kind == "row":
        return torch.randn(5, 1, 6, generator=g, dtype=dtype)
    if kind == "orthogonal":
        return torch.linalg.qr(torch.randn(5, 8, 8, generator=g, dtype=dtype))[0]
    if kind == "close":
        q = torch.linalg.qr(torch.randn(5, 40, 40, generator=g, dtype=dtype))[0]
        return q * torch.linspace(0.9, 1.0, 40, dtype=dtype)
    return torch.stack([torch.zeros(4, 3, dtype=dtype), torch.ones(4, 3, dtype=dtype)])


def _found(w: Tensor, v: Tensor, **settings: Any) -> Tensor:
    settings = {"tolerance": 1e-5, "steps": 500} | settings
    return most_stretched(*_products(w), v, torch.zeros_like(v), **settings)[0]


def _products(w: Tensor) -> tuple[Any, Any]:
    def image(a: Tensor) -> Tensor:
        return (w @ a[..., None])[..., 0]

    def back(a: Tensor) -> Tensor:
        return (a[:, None] @ w)[:, 0]

    return image, back


@pytest.mark.parametrize("thorough", [False, True])
def test_what_a_singular_vector_has_no_part_of_is_found(thorough: bool) -> None:
    """At once where it is asked for; otherwise in some calls, from any beginning that is kept between them."""
    w = torch.diag_embed(torch.linspace(1.0, 2.0, 40)[None]).double()
    w[0, 7, 7] = 4.0
    v = torch.eye(40).double()[:1]
    beside = torch.zeros_like(v)
    for _ in range(1 if thorough else 6):
        v, beside = search(*_products(w), v, beside, 1e-3, 1, thorough=thorough)
    v, _ = most_stretched(*_products(w), v, beside, 1e-6, 500)
    assert float((w @ v[..., None]).norm()) == pytest.approx(4.0, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["random", "column", "row", "orthogonal", "close", "zero"])
def test_the_greatest_singular_value_is_reached(kind: str, dtype: torch.dtype) -> None:
    w = _maps(kind, dtype)
    start = torch.randn(len(w), w.shape[2], generator=torch.Generator().manual_seed(1)).to(dtype)
    v = _found(w, start / start.norm(dim=1, keepdim=True))
    assert torch.allclose(v.norm(dim=1), torch.ones_like(v[:, 0]), atol=1e-5)
    sigma = (w @ v[..., None]).norm(dim=(1, 2))
    assert torch.allclose(sigma, torch.linalg.matrix_norm(w, 2), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("start", [[0.0, 0.6, 0.8], [0.0, 0.0, 1.0]])
def test_a_beginning_without_any_of_the_answer_finds_it(start: list[float]) -> None:
    """Power iteration would not: it stays among the singular vectors it begins with."""
    w = torch.diag_embed(torch.tensor([[3.0, 1.0, 2.0]])).double()
    v = _found(w, torch.tensor([start]).double())
    assert float((w @ v[..., None]).norm()) == pytest.approx(3.0, rel=1e-9)


def test_it_takes_fewer_products_than_power_iteration() -> None:
    w = _maps("close", torch.float64)
    start = torch.ones(len(w), w.shape[2]).double() / w.shape[2] ** 0.5
    truth = torch.linalg.matrix_norm(w, 2)
    short = 1 - (w @ _found(w, start, tolerance=0.0, steps=30)[..., None]).norm(dim=(1, 2)) / truth
    v = start
    for _ in range(30):
        v = (w.mT @ (w @ v[..., None]))[..., 0]
        v = v / v.norm(dim=1, keepdim=True)
    powers = 1 - (w @ v[..., None]).norm(dim=(1, 2)) / truth
    assert bool((short < 0.1 * powers).all())
