"""Fixed points: all methods reach them, examples alone, gradients of the implicit function of every order."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffeo import fixed_points
from diffeo.errors import ConfigError, ConvergenceError
from diffeo.fixed_points import fixed_point, recording, solve

METHODS = ("picard", "anderson", "broyden")


def _contraction(
    d: int, constant: float, dtype: torch.dtype = torch.float64, turn: bool = False
) -> Any:
    """x -> b + c sin(x M), M orthogonal (and symmetric, with both signs, unless it turns): constant c, reached at 0."""
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    m = q if turn else q @ torch.diag(torch.linspace(-1, 1, d).double().sign()) @ q.mT
    b = torch.randn(7, d, generator=generator, dtype=torch.float64).to(dtype)
    return lambda x, rows=slice(None): b[rows] + constant * (x @ m.to(dtype)).sin()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_the_fixed_point_is_found_to_the_rounding(method: Any, dtype: torch.dtype) -> None:
    g = _contraction(5, 0.9, dtype)
    found = solve(g, torch.zeros(7, 5, dtype=dtype), method=method)
    tolerance = fixed_points.default_tolerance(dtype)
    residual = (g(found.x) - found.x).square().mean(1).sqrt()
    scale = found.x.square().mean(1).sqrt().clamp(min=1)
    assert bool((found.residual <= tolerance * scale).all())
    assert bool((residual <= 0.9 * found.residual + 2 * torch.finfo(dtype).eps * scale).all())
    exact = solve(_contraction(5, 0.9), torch.zeros(7, 5).double(), tolerance=1e-14).x
    gap = (found.x.double() - exact).square().mean(1).sqrt()
    assert bool((gap <= found.error_bound(0.9).double() + 1e-13).all())


@pytest.mark.parametrize("method", METHODS)
def test_an_example_does_not_depend_on_its_batch_mates(method: Any) -> None:
    # Two entries: sums of so few have one order, whatever the batch.
    g = _contraction(2, 0.8, turn=True)
    x0 = torch.randn(7, 2, dtype=torch.float64)
    together = solve(g, x0, method=method)
    for i in range(7):
        one = slice(i, i + 1)
        alone = solve(lambda x, one=one: g(x, one), x0[one], method=method)
        assert torch.allclose(alone.x[0], together.x[i], rtol=0, atol=1e-13)
        assert abs(int(alone.steps) - int(together.steps[i])) <= 1


@pytest.mark.parametrize("turn", [True, False])
@pytest.mark.parametrize("method", METHODS[1:])
def test_acceleration_saves_evaluations(method: Any, turn: bool) -> None:
    g = _contraction(6, 0.9, turn=turn)
    x0 = torch.zeros(7, 6, dtype=torch.float64)
    slow, fast = solve(g, x0), solve(g, x0, method=method)
    assert int(fast.steps.max()) * 2 < int(slow.steps.max())


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_wrong_acceleration_only_costs_evaluations(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is proposed, a contraction's fixed point is found, with few evaluations more than without."""
    kind = fixed_points.ACCELERATIONS[method]

    class Wrong(kind):  # type: ignore[misc, valid-type]
        def step(self, x: Tensor, value: Tensor) -> Tensor:
            good = super().step(x, value)
            return torch.where(good > 0, torch.inf, -3 * good)

    g = _contraction(3, 0.8)
    x0 = torch.ones(7, 3, dtype=torch.float64)
    plain = solve(g, x0)
    monkeypatch.setitem(fixed_points.ACCELERATIONS, method, Wrong)
    other = solve(g, x0, method=method)  # type: ignore[arg-type]
    assert torch.allclose(other.x, plain.x, rtol=0, atol=1e-13)
    assert int(other.steps.max()) <= int(plain.steps.max()) + 2 * fixed_points._REJECTIONS


def test_no_contraction_is_an_error_that_names_layer_count_and_residual() -> None:
    slope = torch.tensor([[0.5], [-1.0], [2.0]])
    with pytest.raises(
        ConvergenceError, match=r"layer 3: the fixed point of 2 of 3 examples .* worst residual"
    ):
        solve(lambda x: 1 + slope * x, torch.ones(3, 1), name="layer 3")
    with pytest.raises(ConvergenceError, match=r"in 4 evaluations"):
        solve(lambda x: 1 + 0.9 * x, torch.ones(3, 1), max_steps=4)
    with pytest.raises(ConfigError, match="newton"):
        solve(lambda x: x, torch.ones(1, 1), method="newton")  # type: ignore[arg-type]


def test_broyden_finds_what_picard_does_not() -> None:
    found = solve(lambda x: 1 - 3 * x, torch.ones(2, 1, dtype=torch.float64), method="broyden")
    assert torch.allclose(found.x, torch.full((2, 1), 0.25, dtype=torch.float64))


def test_rows_that_are_not_finite_come_back_as_they_are() -> None:
    x0 = torch.tensor([[1.0, 1.0], [torch.inf, 0.0], [torch.nan, 0.0]])
    found = solve(lambda x: 0.5 * x + 1, x0, method="anderson")
    assert torch.allclose(found.x[0], torch.tensor([2.0, 2.0]))
    assert bool(found.x[1, 0].isposinf())
    assert bool(found.x[2, 0].isnan())


def test_a_compiled_search_is_that_of_eager_code_in_one_graph() -> None:
    b = torch.tensor([1.0, 2.0], dtype=torch.float64)

    def search(x0: Tensor) -> Tensor:
        return fixed_point(lambda x: 0.5 * x.sin() + b, x0, name="sine", lipschitz=0.5)

    compiled = torch.compile(search, backend="aot_eager", fullgraph=True)
    for n in (3, 5, 0):  # the second batch of another size makes it dynamic
        x0 = torch.randn(n, 2, dtype=torch.float64)
        x0[1:2] = math.nan
        with torch.no_grad(), recording() as found:
            torch.testing.assert_close(compiled(x0), search(x0), equal_nan=True, rtol=0, atol=1e-15)
        (name, one), (_, other) = found
        assert name == "sine"
        assert torch.equal(one.steps, other.steps)
        assert torch.equal(one.x.isnan(), other.x.isnan())


def test_a_compiled_search_that_fails_is_the_same_error() -> None:
    @torch.compile(backend="aot_eager", fullgraph=True)
    def search(x0: Tensor) -> Tensor:
        return fixed_point(lambda x: 2 * x + 1, x0, name="line", max_steps=40, lipschitz=0.5)

    with (
        torch.no_grad(),
        pytest.raises(ConvergenceError, match=r"line: .* of 2 of 2 .* in 40 eval"),
    ):
        search(torch.zeros(2, 1))


def test_a_compiled_search_takes_any_layout_and_gives_up_where_there_are_no_numbers() -> None:
    weight = torch.tensor([[0.3, 0.2], [0.1, -0.4]], dtype=torch.float64)

    def search(x0: Tensor, weight: Tensor) -> Tensor:
        return fixed_point(lambda x: x @ weight + 1, x0, name="line", lipschitz=0.7)

    compiled = torch.compile(search, backend="aot_eager", fullgraph=True)
    big = torch.randn(2, 5, dtype=torch.float64)
    with torch.no_grad():
        for x0 in (big.t(), big[:1, 3:5]):
            torch.testing.assert_close(compiled(x0, weight), search(x0, weight))
        with pytest.raises(ConvergenceError, match="in 1 evaluations, worst residual nan"):
            compiled(big[:, :2], math.nan * weight)


@pytest.mark.parametrize("lipschitz", [-0.1, 1.0, 1.2])
def test_a_constant_of_no_contraction_is_refused(lipschitz: float) -> None:
    x0 = torch.zeros(2, 1)
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        fixed_point(torch.cos, x0, lipschitz=lipschitz)
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        solve(torch.cos, x0).error_bound(lipschitz)


def test_iterations_are_recorded() -> None:
    g = _contraction(2, 0.5)
    solve(g, torch.zeros(7, 2).double(), name="outside")
    with recording() as found:
        solve(g, torch.zeros(7, 2).double(), name="inside")
    assert [name for name, _ in found] == ["inside"]
    assert found[0][1].steps.shape == (7,)


def _unrolled(a: Tensor, w: Tensor) -> Tensor:
    x = torch.zeros_like(a)
    for _ in range(80):
        x = a + 0.6 * (x @ w).sin()
    return x


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_the_unrolled_iteration(method: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    q = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    a = torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    w = q.clone().requires_grad_()
    # The scale of a gradient does not matter: 1e-9 is far below the tolerance of x.
    weight = 1e-9 * torch.randn(4, 3, generator=generator, dtype=torch.float64)

    def implicit(a: Tensor, w: Tensor) -> Tensor:
        return fixed_point(lambda x: a + 0.6 * (x @ w).sin(), torch.zeros_like(a), method=method)

    def derivatives(f: Any) -> list[Tensor]:
        first = torch.autograd.grad((f(a, w) * weight).sum(), (a, w), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (a, w))
        return [*first, *second]

    for found, expected in zip(derivatives(implicit), derivatives(_unrolled), strict=True):
        assert (found - expected).abs().max() <= 1e-11 * expected.abs().max()


def test_gradients_of_second_order_by_differences() -> None:
    a = torch.tensor([[0.3, -0.7]], dtype=torch.float64, requires_grad=True)
    w = torch.tensor([[0.5, 0.2], [-0.4, 0.6]], dtype=torch.float64, requires_grad=True)

    def implicit(a: Tensor, w: Tensor) -> Tensor:
        return fixed_point(lambda x: a + (x @ w).tanh(), torch.zeros_like(a), method="broyden")

    assert torch.autograd.gradcheck(implicit, (a, w))
    assert torch.autograd.gradgradcheck(implicit, (a, w))


def test_a_map_without_x_in_it() -> None:
    a = torch.ones(2, 2, requires_grad=True)
    x = fixed_point(lambda x: 3 * a, torch.zeros(2, 2))
    assert torch.equal(torch.autograd.grad(x.sum(), a)[0], torch.full((2, 2), 3.0))


def test_an_empty_batch_has_gradients() -> None:
    a = torch.zeros(0, 2, requires_grad=True)
    x = fixed_point(lambda x: 0.5 * x + a, torch.zeros(0, 2))
    assert torch.autograd.grad(x.sum(), a)[0].shape == (0, 2)
