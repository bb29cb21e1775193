"""Block neural autoregressive transform: its triangle, its reach, and its settings."""

from __future__ import annotations

import pytest
import torch

from diffeo.errors import ConfigError
from diffeo.testing import randomize
from diffeo.transforms import BlockAutoregressive


def _made(dtype: torch.dtype, entries: int = 4) -> BlockAutoregressive:
    torch.manual_seed(0)
    made = BlockAutoregressive((entries,), width=5, layers=2)
    return randomize(made, 0, 2.0).to(dtype)  # type: ignore[return-value]


def test_the_jacobian_is_triangular_with_a_positive_diagonal() -> None:
    made = _made(torch.float64)
    for x in 2 * torch.randn(5, 4, dtype=torch.float64):
        j = torch.autograd.functional.jacobian(lambda x: made(x[None])[0][0], x)
        assert torch.equal(j.triu(1), torch.zeros_like(j))
        assert bool((j.diagonal() > 0).all())
        assert bool((j.tril(-1).abs() > 0).any())
        assert torch.allclose(made(x[None])[1][0], j.diagonal().log().sum(), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_image_is_the_whole_space(dtype: torch.dtype) -> None:
    made = _made(dtype)
    z = torch.tensor([[1e4] * 4, [-1e4] * 4, [1e4, -30.0, 0.0, 30.0]], dtype=dtype)
    with torch.no_grad():
        x, ladj = made.inverse(z)
        again, forward = made(x)
    assert torch.allclose(again, z, rtol=1e-5, atol=1e-3)
    assert torch.allclose(ladj, -forward, rtol=1e-3, atol=1e-3)


def test_sharp_weights_stay_finite() -> None:
    made = _made(torch.float32)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=10.0)
    x = (3 * torch.randn(2000, 4)).requires_grad_()
    z, ladj = made(x)
    grads = torch.autograd.grad(z.sum() + ladj.sum(), (x, *made.parameters()))
    assert all(bool(t.isfinite().all()) for t in (z, ladj, *grads))


def test_wrong_settings_say_so() -> None:
    with pytest.raises(ConfigError, match="width and layers"):
        BlockAutoregressive((2,), width=0)
