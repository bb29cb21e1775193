"""Sigmoidal families and UMNN: against their formulas, far out, with sharp parameters, and at zero parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from diffeo import zoo
from diffeo.errors import ConfigError
from diffeo.families import UMNN, DeepSigmoid, DenseSigmoid, Family
from diffeo.families.umnn import clenshaw_curtis

FAR = (-1e4, -50.0, -12.0, -1.0, 0.0, 0.5, 12.0, 20.0, 50.0, 1e4)
FAMILIES: dict[str, Callable[[], Family]] = {
    "deep": partial(DeepSigmoid, 6),
    "dense": partial(DenseSigmoid, 4),
    "umnn": partial(UMNN, 3, (8,)),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _random(family: Family, n: int, scale: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Parameters N(0, scale^2); the weights of a network, too, away from where they start."""
    for p in family.parameters():
        torch.nn.init.normal_(p, std=0.5)
    family.to(dtype)
    return scale * torch.randn(n, family.num_params, dtype=dtype)


def test_deep_sigmoid_is_its_formula() -> None:
    x = torch.randn(50, dtype=torch.float64)
    family = DeepSigmoid(5, spread=0.7, min_slope=1e-3)
    params = _random(family, 50, 1.0, torch.float64)
    raw_a, raw_b, raw_w = params.split(5, -1)
    a = (raw_a + torch.tensor(torch.e - 1).double().log()).exp().log1p()
    b = raw_b + torch.tensor([-0.7, -0.35, 0.0, 0.35, 0.7], dtype=torch.float64)
    c = (raw_w.softmax(-1) * (a * x[:, None] + b).sigmoid()).sum(-1)
    expected = 1e-3 * x + 0.999 * (c / (1 - c)).log()
    assert torch.allclose(family(x, params)[0], expected, atol=1e-6)


def test_dense_sigmoid_is_its_formula() -> None:
    x = torch.randn(20, dtype=torch.float64)
    family = DenseSigmoid(3, 2, spread=0.0, min_slope=1e-6)
    params = _random(family, 20, 1.0, torch.float64)
    raw = params.split(3, -1)
    h = x[:, None]
    for i, (a, b, w) in enumerate(((raw[0], raw[1], raw[2]), (raw[3], raw[4], raw[5]))):
        if i:
            u = (family.inner[0] + raw[6][:, None]).softmax(-1)
            h = torch.einsum("nki,ni->nk", u, h)
        s = ((a + torch.tensor(torch.e - 1).double().log()).exp().log1p() * h + b).sigmoid()
        h = torch.einsum("nok,nk->no", (family.outer[i] + w[:, None]).softmax(-1), s).logit()
    assert torch.allclose(family(x, params)[0], h[:, 0], atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_far_points_come_back_in_float32(name: str, scale: float) -> None:
    family = FAMILIES[name]()
    x = torch.tensor(FAR)
    params = _random(family, len(x), scale)
    y, ladj = family(x, params)
    assert bool(y.isfinite().all() and ladj.isfinite().all())
    back = family.inverse(y, params)[0].detach()
    # What the rounding of y says about x, for slopes of at least min_slope.
    error = (back - x).abs() / (x.abs().clamp(min=1) + y.abs() * (-ladj).exp())
    assert float(error.detach().max()) < 1e-5
    assert float((back / x)[[0, -1]].sub(1).abs().max()) < 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_sharp_parameters_in_float32(name: str) -> None:
    family = FAMILIES[name]()
    params = _random(family, 20_000, 20.0).requires_grad_()
    x = (3 * torch.randn(20_000)).requires_grad_()
    y, ladj = family(x, params)
    grads = torch.autograd.grad(y.sum() + ladj.sum(), (x, params, *family.parameters()))
    assert all(bool(t.isfinite().all()) for t in (y, ladj, *grads))
    assert float(ladj.detach().exp().min()) > 0.99e-3


def test_zero_params_are_near_the_identity() -> None:
    x = torch.linspace(-8, 8, 101, dtype=torch.float64)
    for family in (DeepSigmoid(8, spread=0.0), DenseSigmoid(4, 3, spread=0.0), UMNN()):
        y, ladj = family.double()(x, x.new_zeros(family.num_params))
        assert torch.allclose(y, x, atol=1e-7)
        assert torch.allclose(ladj, 0 * x, atol=1e-7)
    y, ladj = DeepSigmoid(8, spread=1.0)(x, x.new_zeros(24))
    assert float((y - x).abs().max()) < 1
    assert torch.allclose(y, -y.flip(0), atol=1e-12)
    assert float(ladj.abs().max()) < 0.15


def test_units_get_different_gradients_at_zero_params() -> None:
    params = torch.zeros(12, requires_grad=True)
    y, ladj = DeepSigmoid(4)(torch.randn(100), params)
    (grad,) = torch.autograd.grad((y.square() / 2 - ladj).sum(), params)
    for part in grad.split(4):
        assert len(set(part.tolist())) == 4


def test_clenshaw_curtis_integrates_polynomials() -> None:
    nodes, weights = (torch.tensor(v, dtype=torch.float64) for v in clenshaw_curtis(8))
    for degree in range(9):
        assert abs(float((weights * nodes**degree).sum()) - 1 / (degree + 1)) < 1e-14
    assert nodes[0] == 1


def test_quadrature_error_is_reported_and_falls_with_nodes() -> None:
    coarse, fine = (UMNN(3, (8, 8), nodes=n) for n in (4, 32))
    params = _random(coarse, 200, 1.0, torch.float64)
    fine.double().load_state_dict(coarse.state_dict())
    x = 2 * torch.randn(200, dtype=torch.float64)
    worst = [float(f.quadrature_error(x, params).max()) for f in (coarse, fine)]
    assert worst[0] > 1e-4
    assert worst[1] < 1e-3 * worst[0]
    assert "5 nodes" in coarse.properties.bias


def test_umnn_is_linear_beyond_its_bound() -> None:
    family = UMNN(2, (8,), bound=3.0)
    params = _random(family, 1, 1.0, torch.float64).expand(3, -1)
    y, ladj = family(torch.tensor([3.0, 5.0, 1e4], dtype=torch.float64), params)
    assert torch.allclose(ladj, ladj[0])
    assert torch.allclose((y[1:] - y[0]) / torch.tensor([2.0, 1e4 - 3]), ladj[0].exp())


@pytest.mark.parametrize("name", ["naf", "umnn", "bnaf"])
def test_samples_carry_gradients_to_all_parameters_in_eval_mode(name: str) -> None:
    flow = zoo.build(name, (2,), size="tiny").eval()
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x, log_q = flow.rsample_and_log_prob((3,))
    (x.square().sum() + log_q.sum()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in flow.parameters())
    assert sum(float(p.grad.abs().sum()) > 0 for p in flow.parameters()) > 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: DeepSigmoid(1),
        lambda: DenseSigmoid(2, 0),
        lambda: DeepSigmoid(2, min_slope=0.0),
        lambda: UMNN(0),
        lambda: UMNN(2, ()),
        lambda: UMNN(nodes=5),
        lambda: UMNN(bound=0.0),
        lambda: zoo.build("naf", (2,), family="wide"),
    ],
)
def test_wrong_settings_say_so(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=r"got|should be"):
        make()
