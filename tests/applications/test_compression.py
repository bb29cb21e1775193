"""Which latents are kept, counted exactly, and what comes back."""

import pytest
import torch

from diffeo import zoo
from diffeo.applications.compression import (
    FRACTIONS,
    has_spatial_levels,
    importance,
    keep,
    keep_first,
    latent_order,
)
from diffeo.errors import InputError
from diffeo.transforms import Squeeze


def images(n=5, shape=(1, 8, 8), levels=17):
    return torch.randint(0, levels, (n, *shape), dtype=torch.uint8)


def image_flow(shape=(1, 8, 8), **settings):
    torch.manual_seed(0)
    return zoo.build("realnvp", shape, size="tiny", levels=17, zero_init=False, **settings).eval()


def coarsest(flow, fraction, x=None):
    return keep_first(latent_order(flow, x), fraction)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 16), (1, 16, 16)])
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_keeps_that_many_and_coarse_levels_first(shape, fraction):
    flow = image_flow(shape)
    which = coarsest(flow, fraction)
    size = torch.Size(shape).numel()
    assert which.shape == (size,)
    assert which.dtype == torch.bool
    assert int(which.sum()) == fraction * size
    # Levels come fine to coarse: once a level loses a latent, every finer one loses all.
    kept = [int(which[level.slice].sum()) for level in flow.levels]
    sizes = [level.slice.stop - level.slice.start for level in flow.levels]
    left = int(fraction * size)
    for have, room in zip(reversed(kept), reversed(sizes), strict=True):
        assert have == min(left, room)
        left -= have


def test_half_is_exactly_the_coarse_level():
    flow = image_flow()
    fine, coarse = flow.levels
    which = coarsest(flow, 0.5)
    assert which[coarse.slice].all()
    assert not which[fine.slice].any()


def test_inside_a_level_the_first_half_of_the_checkerboard_squeeze():
    flow = image_flow()
    coarse = flow.levels[-1]
    kept = coarsest(flow, 0.25)[coarse.slice].reshape(1, *coarse.shape)
    squeezed, _ = Squeeze(coarse.shape, order="checkerboard")(kept.double())
    half = squeezed.shape[1] // 2
    assert squeezed[:, :half].all()
    assert not squeezed[:, half:].any()
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    assert torch.equal(kept[0, 0], (rows + columns) % 2 == 0)


@pytest.mark.parametrize("shape", [(1, 6, 6), (2, 12, 20), (1, 28, 28), (1, 5, 7)])
def test_the_order_is_a_permutation_for_odd_sides_too(shape):
    flow = image_flow(shape)
    order = latent_order(flow)
    assert torch.equal(order.sort().values, torch.arange(len(order)))


def test_a_single_channel_of_odd_sides_keeps_its_checkerboard():
    which = coarsest(image_flow((1, 5, 5)), 13 / 25).reshape(5, 5)
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij")
    assert torch.equal(which, (rows + columns) % 2 == 0)


@pytest.mark.parametrize("name", ["nice", "realnvp"])
def test_everything_kept_gives_the_input_back(name):
    torch.manual_seed(0)
    flow = zoo.build(name, (1, 8, 8), size="tiny", levels=17, zero_init=False).eval()
    x = images()
    assert torch.equal(keep(flow, x, 1.0), x)


def test_kept_latents_stay_and_the_others_are_drawn_by_the_seed():
    torch.manual_seed(0)
    flow = zoo.build("realnvp", (6,), size="tiny", zero_init=False).eval().double()
    x = torch.randn(4, 6).double()
    which = torch.tensor([True, False, True, False, False, True])
    one, again, other = (
        keep(flow, x, which, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    before, z, z2 = flow.encode(x), flow.encode(one), flow.encode(other)
    torch.testing.assert_close(z[:, which], before[:, which])
    torch.testing.assert_close(z2[:, which], before[:, which])
    assert (z[:, ~which] - z2[:, ~which]).abs().min() > 1e-6
    cold = flow.encode(keep(flow, x, 0.0, temperature=0.0))
    torch.testing.assert_close(cold, torch.zeros_like(cold), atol=1e-8, rtol=0.0)


def test_flat_latents_are_ranked_by_what_they_change():
    torch.manual_seed(0)
    flow = zoo.build("nice", (4,), size="tiny", standardize=False).eval()
    assert not has_spatial_levels(flow)
    # Zero-initialized couplings leave the diagonal scaling z = exp(s) x, so latent d moves x_d by exp(-s_d).
    scaling = list(flow.transform)[-1]
    with torch.no_grad():
        for parameter in scaling.parameters():
            parameter.copy_(torch.tensor([3.0, 0.0, 9.0, -4.0]).reshape(parameter.shape))
    effect = importance(flow, torch.zeros(16, 4))
    assert effect.argsort(descending=True).tolist() == [3, 1, 0, 2]
    assert coarsest(flow, 0.5).tolist() == [False, True, False, True]


@pytest.mark.parametrize("fraction", [-0.5, 1.5, float("nan")])
def test_fractions_out_of_range_are_refused(fraction):
    with pytest.raises(InputError, match="fraction of latents"):
        keep_first(torch.arange(4), fraction)
