"""Conjugate gradients and the quadrature of log A, against dense linear algebra."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from diffeo.krylov import conjugate_gradients, log_quadratic_form


def matrices(n: int, size: int, condition: float = 30.0) -> Tensor:
    """Symmetric positive definite, eigenvalues between 1/2 and condition / 2."""
    g = torch.Generator().manual_seed(size)
    q = torch.linalg.qr(torch.randn(n, size, size, generator=g, dtype=torch.float64))[0]
    values = torch.logspace(0, 1, size, base=condition, dtype=torch.float64) / 2
    return (q * values) @ q.mT


def log_form(a: Tensor, b: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    return ((vectors.mT @ b[..., None])[..., 0].square() * values.log()).sum(-1)


def product(a: Tensor):
    return lambda v: (a @ v[..., None])[..., 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_solutions_are_those_of_dense_algebra(dtype: torch.dtype) -> None:
    a = matrices(4, 9).to(dtype)
    b = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = conjugate_gradients(product(a), b)
    exact = torch.linalg.solve(a.double(), b.double())
    assert (found.x - exact).norm() <= 300 * torch.finfo(dtype).eps * exact.norm()
    assert bool((found.steps <= 19).all())


def test_rows_end_by_themselves() -> None:
    """A multiple of the identity needs one product, zero none; neither depends on its neighbours."""
    a = matrices(3, 6)
    a[0] = 3 * torch.eye(6)
    b = torch.ones(3, 6, dtype=torch.float64)
    b[1] = 0
    found = conjugate_gradients(product(a), b, tolerance=1e-12)
    assert found.steps[0] == 1
    assert found.steps[1] == 0
    assert torch.allclose(found.x[0], b[0] / 3)
    assert bool((found.x[1] == 0).all())
    alone = conjugate_gradients(product(a[2:]), b[2:], tolerance=1e-12)
    assert torch.equal(found.x[2], alone.x[0])
    for floor in (None, 0.4):
        forms = log_quadratic_form(found, floor)
        assert torch.allclose(forms, log_form(a, b), rtol=1e-10, atol=1e-12)


def test_a_mean_over_all_signs_is_the_log_determinant() -> None:
    """With all D steps the quadrature is exact for each vector, and E v v^T = I."""
    a = matrices(2, 5)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=5)), dtype=torch.float64)
    v = signs.expand(2, -1, -1)
    for floor in (None, 0.45):
        found = conjugate_gradients(product(a[:, None]), v, steps=15, tolerance=1e-15)
        mean = log_quadratic_form(found, floor).mean(1)
        assert torch.allclose(mean, torch.linalg.slogdet(a)[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_rules_enclose_the_truth(steps: int) -> None:
    a = matrices(8, 20, condition=1000.0)
    b = torch.randn(8, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = conjugate_gradients(product(a), b, steps=steps)
    truth = log_form(a, b)
    assert bool((log_quadratic_form(found, 0.5) < truth).all())
    assert bool((truth < log_quadratic_form(found)).all())


def test_all_steps_are_taken_where_values_cannot_be_looked_at() -> None:
    a, b = matrices(3, 4), torch.ones(3, 4, dtype=torch.float64)

    def form(a: Tensor, b: Tensor) -> Tensor:
        return log_quadratic_form(conjugate_gradients(product(a), b, tolerance=1e-12), 0.4)

    assert torch.allclose(torch.func.vmap(form)(a, b), form(a, b))
