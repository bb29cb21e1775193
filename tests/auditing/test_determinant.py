"""log|det J| by every method against slogdet of the full Jacobian, and singular values by power iteration."""

from functools import partial

import pytest
import torch

from diffeo.auditing import audit
from diffeo.auditing.determinant import log_det
from diffeo.auditing.linear import Linearization, jacobian, lipschitz
from diffeo.families import Affine
from diffeo.flow import Flow
from diffeo.nets import MLP
from diffeo.testing import randomize
from diffeo.transforms import (
    Chain,
    Checkerboard,
    Coupling,
    Flatten,
    Inverse,
    Rotation,
    Squeeze,
    Standardize,
    Transform,
)

SMALL = partial(MLP, hidden=(8,))
D = 300


def coupling(shape, partition=None):
    made = Coupling(shape, Affine("clamp"), SMALL, *([] if partition is None else [partition]))
    return randomize(made, seed=5)


IMAGE = (3, 10, 10)


def mixed(shape, std=1.0):
    """Couplings over both colours of the board, run backwards as one layer: ladj is about 300 log std."""
    first = partial(coupling, partition=Checkerboard)
    second = partial(coupling, partition=partial(Checkerboard, flip=True))
    layer = Chain(shape, [first, Standardize, Rotation, second])
    list(layer)[1].std.fill_(std)
    return Inverse(layer)


class _Mixing(Transform):
    """One matrix for the channels of every pixel, scaled by the pixel's own place."""

    def __init__(self, shape):
        super().__init__(shape)
        g = torch.Generator().manual_seed(0)
        self.matrix = torch.nn.Parameter(torch.randn(shape[0], shape[0], generator=g))
        self.place = torch.nn.Parameter(torch.rand(shape[1:], generator=g) + 0.5)

    def forward(self, x, context=None):
        return torch.einsum("kc,bchw->bkhw", self.matrix, x) * self.place, x.new_zeros(len(x))


CASES = {
    "full Jacobian": (lambda: coupling((30,)), (30,)),
    "rearrangement": (lambda: Squeeze(IMAGE), IMAGE),
    "triangular": (lambda: coupling((D,)), (D,)),
    "triangular image": (lambda: coupling(IMAGE, Checkerboard), IMAGE),
    "elementwise": (lambda: randomize(Standardize((D,))), (D,)),
    "channel blocks": (lambda: _Mixing(IMAGE), IMAGE),
    "full Jacobian of a long vector": (lambda: Inverse(Chain((D,), [coupling, Rotation])), (D,)),
    "Lanczos estimate": (lambda: mixed(IMAGE), IMAGE),
}


@pytest.mark.parametrize("name", CASES)
def test_every_method_gives_the_determinant(name):
    make, shape = CASES[name]
    torch.manual_seed(0)
    layer = make().double().eval().requires_grad_(False)
    x = torch.randn(2, *shape, dtype=torch.float64)
    back = (lambda t, rows: layer.inverse(t)[0], layer(x)[0])
    found = log_det(lambda t, rows: layer(t)[0], x, torch.Generator().manual_seed(0), back)
    truth = torch.stack([torch.linalg.slogdet(jacobian(lambda t: layer(t)[0], r))[1] for r in x])
    assert name.startswith(found.method)
    gap = (found.value - truth[found.rows]).abs()
    if name == "Lanczos estimate":
        assert (gap <= found.tolerance).all()
        assert (found.tolerance < D).all()
        alone = log_det(lambda t, rows: layer(t)[0], x, torch.Generator().manual_seed(0))
        assert alone.tolerance.isinf().all()
    else:
        assert gap.max() < 1e-9 * D


def test_one_wide_entry_among_rearranged_ones_is_no_rearrangement():
    class _Almost(Flatten):
        def forward(self, x, context=None):
            z, ladj = super().forward(x)
            return torch.cat((z[:, 1:], 1.001 * z[:, :1]), 1), ladj

    layer = _Almost(IMAGE)
    x = torch.randn(1, *IMAGE, dtype=torch.float64)
    found = log_det(lambda t, rows: layer(t)[0], x, torch.Generator().manual_seed(0))
    assert found.method != "rearrangement"


def test_the_estimate_finds_a_wrong_sign():
    class _WrongSign(Inverse):
        def forward(self, x, context=None):
            z, ladj = super().forward(x, context)
            return z, -ladj

        def inverse(self, z, context=None):
            x, ladj = super().inverse(z, context)
            return x, -ladj

    torch.manual_seed(0)
    sound = mixed(IMAGE, std=20.0)
    x = torch.randn(20, *IMAGE)
    assert audit(Flow(sound).eval(), x).passes
    found = audit(Flow(_WrongSign(sound.transform)).eval(), x)
    assert "Lanczos estimate" in found.verdict
    assert "sign is wrong" in found.verdict


def test_power_iteration_finds_the_largest_singular_value():
    torch.manual_seed(0)
    layer = coupling((12,)).double().requires_grad_(False)
    x = torch.randn(3, 12, dtype=torch.float64)
    j = Linearization(lambda t: layer(t)[0], x)
    truth = torch.stack([torch.linalg.svdvals(jacobian(lambda t: layer(t)[0], r))[0] for r in x])
    found = lipschitz(j, 30, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, truth, rtol=1e-3, atol=0)
    assert (found <= truth * (1 + 1e-12)).all()


def test_products_with_the_jacobian():
    torch.manual_seed(0)
    layer = coupling((7,)).double().requires_grad_(False)
    x, u = torch.randn(2, 3, 7, dtype=torch.float64)
    j = Linearization(lambda t: layer(t)[0], x)
    full = torch.stack([jacobian(lambda t: layer(t)[0], r) for r in x])
    torch.testing.assert_close(j.jvp(u), (full @ u[..., None])[..., 0])
    torch.testing.assert_close(j.vjp(u), (full.mT @ u[..., None])[..., 0])


def test_a_map_without_a_derivative_has_the_zero_one():
    j = Linearization(lambda t: torch.ones_like(t), torch.zeros(2, 3))
    assert not j.jvp(torch.ones(2, 3)).any()
    assert not j.vjp(torch.ones(2, 3)).any()
