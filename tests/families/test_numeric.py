"""The numeric inverse: where its roots are, how it fails, and its derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diffeo.errors import ConvergenceError
from diffeo.families import SumOfSquares
from diffeo.families.numeric import solve, solve_triangular

DTYPES = (torch.float32, torch.float64)
FAR = [-1e4, -30.0, -1.0, -1e-6, 0.0, 0.3, 5.0, 1e3, 1e4]


def _cubic(x: Tensor) -> tuple[Tensor, Tensor]:
    return 1e-3 * x + x**3, (1e-3 + 3 * x**2).log()


def _slow(x: Tensor) -> tuple[Tensor, Tensor]:
    """Grows like a logarithm: Newton's steps from the far side overshoot."""
    return x.asinh(), -0.5 * (1 + x * x).log()


def _steep(x: Tensor) -> tuple[Tensor, Tensor]:
    """A step of slope 1e4 at 2 between two nearly flat parts."""
    s = torch.sigmoid(1e4 * (x - 2))
    return 1e-3 * x + s, (1e-3 + 1e4 * s * (1 - s)).log()


def _kinked(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(x > 0, 1e3 * x, 1e-3 * x), torch.where(x > 0, 1.0, -1.0) * math.log(1e3)


def _exponential(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.exp(), x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("f", [_cubic, _slow, _steep, _kinked])
def test_roots_at_any_distance(f, dtype: torch.dtype) -> None:
    x = torch.tensor(FAR, dtype=dtype)
    y = f(x)[0]
    found, ladj = solve(f, y, name="f")
    slope = f(found)[1]
    eps = torch.finfo(dtype).eps
    # What y, rounded, says about x.
    error = (found - x).abs() / (x.abs().clamp(min=1) + y.abs() * (-slope).exp())
    assert float(error.max()) < 40 * eps
    assert torch.equal(ladj, -slope)


def test_a_bracket_that_no_guess_encloses() -> None:
    x = torch.tensor([1e4, -1e4, 1e12], dtype=torch.float64)
    found, _ = solve(lambda x: (x + 1e-2 * x.sin(), (1 + 1e-2 * x.cos()).log()), x, name="f",
                     guess=torch.zeros_like(x))  # fmt: skip
    assert torch.allclose(found + 1e-2 * found.sin(), x, rtol=1e-14)


def test_an_element_does_not_depend_on_the_others() -> None:
    y = torch.linspace(-1e4, 1e4, 21, dtype=torch.float64)
    together = solve(_cubic, y, name="f")[0]
    alone = torch.cat([solve(_cubic, v, name="f")[0] for v in y.split(1)])
    assert torch.equal(together, alone)


def test_values_that_are_not_finite_come_back() -> None:
    y = torch.tensor([math.nan, math.inf, -math.inf, 1.0], requires_grad=True)
    x, ladj = solve(_cubic, y, name="f")
    assert x[0].isnan()
    assert x[1:3].tolist() == [math.inf, -math.inf]
    assert ladj[:3].isnan().all()
    assert x[3].isfinite()
    assert ladj[3].isfinite()
    (grad,) = torch.autograd.grad(x[3] + ladj[3], y)
    assert grad.isfinite().all()


def test_no_root_is_an_error_that_says_where() -> None:
    y = torch.tensor([0.5, -1.0, 2.0, 0.9])
    with pytest.raises(ConvergenceError, match=r"bounded: the inverse of 2 of 4 values.*of -1:"):
        solve(lambda x: (x.sigmoid(), torch.log(x.sigmoid() * (-x).sigmoid())), y, name="bounded")
    with pytest.raises(ConvergenceError, match="1 of 4"):
        solve(_exponential, torch.tensor([0.5, -1.0, 2.0, 1.0]), name="positive")


def test_a_jump_is_no_root() -> None:
    def jump(x: Tensor) -> tuple[Tensor, Tensor]:
        return x + (x > 1).to(x.dtype), torch.zeros_like(x)

    with pytest.raises(ConvergenceError, match="1 of 2"):
        solve(jump, torch.tensor([1.5, 0.5]), name="jump")


def test_a_map_that_overflows() -> None:
    y = torch.tensor([1e30, -1e30, 1e4])
    x, _ = solve(lambda x: (x + x**9, (1 + 9 * x**8).log()), y, name="f")
    assert torch.allclose(x + x**9, y, rtol=1e-4)


def test_first_and_second_derivatives() -> None:
    g = torch.Generator().manual_seed(0)
    a = (torch.rand(5, generator=g, dtype=torch.float64) + 0.1).requires_grad_()
    y = (3 * torch.randn(5, generator=g, dtype=torch.float64)).requires_grad_()

    def inverse(y: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return solve(lambda x: (a * x.sinh() + x, (a * x.cosh() + 1).log()), y, name="f")

    torch.autograd.gradcheck(inverse, (y, a))
    torch.autograd.gradgradcheck(inverse, (y, a))


def test_third_derivative() -> None:
    y = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    x: Tensor = solve(lambda x: (x.sinh(), x.cosh().log()), y, name="f")[0]
    truth = y.asinh()
    for _ in range(3):
        (x,) = torch.autograd.grad(x, y, create_graph=True)
        (truth,) = torch.autograd.grad(truth, y, create_graph=True)
        assert torch.allclose(x, truth, rtol=1e-10)


def test_values_are_the_same_with_and_without_gradients() -> None:
    y = torch.linspace(-50, 50, 33)
    with torch.no_grad():
        plain = solve(_steep, y, name="f")
    again = solve(_steep, y.requires_grad_(), name="f")
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_compiled_with_the_search_left_out() -> None:
    family = SumOfSquares(1, 1)
    params = torch.tensor([0.1, 0.2, 0.5]).requires_grad_()
    y = torch.tensor([-3.0, 0.4, 1e4])
    compiled = torch.compile(family.inverse, backend="aot_eager")
    found, ladj = compiled(y, params)
    expected = family.inverse(y, params)
    assert torch.allclose(found, expected[0], rtol=1e-6)
    (grad,) = torch.autograd.grad(found.sum() + ladj.sum(), params)
    (truth,) = torch.autograd.grad(expected[0].sum() + expected[1].sum(), params)
    assert torch.allclose(grad, truth, rtol=1e-4)
    torch._dynamo.reset()


@pytest.mark.parametrize("size", [0, 1, 3])
def test_triangular(size: int) -> None:
    g = torch.Generator().manual_seed(1)
    lower = torch.randn(size, size, generator=g, dtype=torch.float64).tril(-1).requires_grad_()

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        return x + x**3 + x.sin() @ lower.mT, (1 + 3 * x**2).log()

    x = 2 * torch.randn(3, size, generator=g, dtype=torch.float64)
    y = f(x)[0].detach().requires_grad_()
    found, ladj = solve_triangular(f, y, name="f")
    assert torch.allclose(found, x, atol=1e-13)
    assert torch.allclose(ladj, -f(x)[1])
    if size:

        def inverse(y: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
            def shaped(x: Tensor) -> tuple[Tensor, Tensor]:
                return x + x**3 + x.sin() @ w.tril(-1).mT, (1 + 3 * x**2).log()

            return solve_triangular(shaped, y, name="f")

        torch.autograd.gradcheck(inverse, (y[:1], lower.detach().requires_grad_()))
        torch.autograd.gradgradcheck(
            inverse, (y[:1], lower.detach().requires_grad_()), fast_mode=True
        )
