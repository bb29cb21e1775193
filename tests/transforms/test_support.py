"""ToReal: entries with different bounds in one event, its ends, and what a flow over it can never give."""

import math
from functools import partial

import pytest
import torch

from diffeo import zoo
from diffeo.distributions import StandardNormal
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.testing import check_transform, randomize
from diffeo.transforms import Chain, ToReal

LOW, HIGH = (0.1, 1.0, None, None), (1.1, None, -1.0, None)


def mixed():
    return ToReal((4,), LOW, HIGH)


def test_entries_with_different_bounds():
    x = torch.tensor([[0.2, 2.0, -3.0, 5.0], [1.0, 9.0, -1e3, -5.0]], dtype=torch.float64)
    check_transform(Chain((4,), [mixed()]), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_sample_is_outside_however_far_the_latent(dtype):
    z = torch.tensor([-1e30, -40.0, -9.0, 0.0, 9.0, 40.0, 1e30], dtype=dtype)
    x, ladj = mixed().inverse(z[:, None].expand(-1, 4))
    low = torch.tensor([0.1, 1.0, -torch.inf, -torch.inf], dtype=dtype)
    high = torch.tensor([1.1, torch.inf, -1.0, torch.inf], dtype=dtype)
    assert bool(((x > low) & (x < high)).all())
    assert not bool(ladj.isnan().any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_belong_to_the_support_and_the_outside_does_not(dtype):
    t = ToReal((2,), (0.1, 0.1), (0.3, None))
    ends = torch.tensor([[0.1, 0.1], [0.3, 0.2]], dtype=dtype, requires_grad=True)
    z, ladj = t(ends)
    assert bool(z.isfinite().all())
    assert bool(ladj.isfinite().all())
    outside = torch.tensor([[0.0, 0.2], [0.4, 0.2], [0.2, 0.0]], dtype=dtype, requires_grad=True)
    z, ladj = t(outside)
    assert bool((ladj == -torch.inf).all())
    assert not bool(z.isnan().any())
    (gradient,) = torch.autograd.grad(z.sum(), outside)
    assert not bool(gradient.isnan().any())


def test_a_uniform_becomes_normal_and_the_density_of_the_identity_is_flat():
    flow = Flow(
        Chain((2,), [partial(ToReal, low=(-3.0, 2.0), high=(1.0, 2.5))]), StandardNormal((2,))
    )
    g = torch.Generator().manual_seed(0)
    x = torch.rand(1000, 2, generator=g) * torch.tensor([4.0, 0.5]) + torch.tensor([-3.0, 2.0])
    flat = -torch.tensor(4.0 * 0.5).log()
    torch.testing.assert_close(flow.log_prob(x), flat.expand(1000), atol=1e-4, rtol=0)


def test_density_over_bounds_integrates_to_one():
    torch.manual_seed(0)
    model = zoo.build("nsf_coupling", (2,), size="tiny")
    bounds = partial(ToReal, low=(-3.0, 0.0), high=(1.0, None))
    flow = Flow(Chain((2,), [bounds, *model.transform]), model.base).double()
    randomize(flow, 0, 0.2)
    u = torch.linspace(-7, 7, 701, dtype=torch.float64)
    s = torch.linspace(-12, 8, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(u, s)
    x = torch.stack((4 * torch.special.ndtr(grid[:, 0]) - 3, grid[:, 1].exp()), 1)
    stretched = math.log(4 / math.sqrt(2 * math.pi)) - grid[:, 0].square() / 2 + grid[:, 1]
    total = (flow.log_prob(x).detach() + stretched).exp().sum().item() * (14 / 700) * (20 / 800)
    assert total == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("low", "high"), [((1.0, 0.0), (1.0, 2.0)), ((0.0,), None)])
def test_bounds_that_do_not_fit(low, high):
    with pytest.raises(ConfigError, match="ToReal"):
        ToReal((2,), low, high)
