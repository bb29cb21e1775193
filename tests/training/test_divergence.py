"""A run that diverges says where, and leaves its last good weights."""

import math

import pytest
import torch

import diffeo
from diffeo.errors import TrainingError
from diffeo.families import Affine
from diffeo.training.divergence import Diverged
from diffeo.transforms import Chain, Coupling

QUIET = {"progress": False, "batch_size": 32, "warmup": 0}


def gaussian(n=200):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1))


def flow(**hyper):
    torch.manual_seed(0)
    return diffeo.zoo.build("realnvp", (2,), size="tiny", **hyper)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_rate_that_is_too_large(tmp_path):
    model = flow()
    with pytest.raises(Diverged) as raised:
        diffeo.fit(model, gaussian(), steps=50, lr=1e6, folder=tmp_path, **QUIET)
    said = str(raised.value)
    assert "\n" not in said
    assert "step" in said
    assert "log-scale of transform.parts." in said
    assert "the largest parameter is transform.parts." in said
    assert "lower lr (now 1e+06)" in said
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert torch.isfinite(model.log_prob(gaussian())).all()
    assert not model.training


def test_the_best_weights_are_kept():
    model = flow()
    seen = {}

    class Broken(torch.utils.data.Dataset):
        """Rows that are fine until the 40th batch."""

        calls = 0

        def __len__(self):
            return 64

        def __getitem__(self, i):
            Broken.calls += 1
            if Broken.calls > 40 * 32:
                seen["broken"] = True
                return torch.full((2,), math.nan)
            return gaussian(64)[i]

    held_out = gaussian(50)
    with pytest.raises(Diverged, match="the batch itself holds NaN") as raised:
        diffeo.fit(model, Broken(), validation=held_out, steps=90, validate_every=10, **QUIET)
    assert seen
    assert isinstance(raised.value, TrainingError)
    loss = float(-model.log_prob(held_out).mean().detach())
    start = flow()
    start.initialize(gaussian(64))
    assert loss < float(-start.log_prob(held_out).mean().detach())


def test_the_layer_with_the_broken_parameter_is_named():
    model = diffeo.Flow(Chain((2,), [Coupling, Coupling]))
    with torch.no_grad():
        list(model.transform)[1].net.layers[0].weight[0, 0] = math.inf
    with pytest.raises(Diverged, match=r"transform\.parts\.1\.net\.layers\.0\.weight \(Linear\)"):
        diffeo.fit(model, gaussian(), steps=3, **QUIET)


def test_the_log_scale_that_overflows_is_named():
    layers = [Coupling((2,), Affine("exp")) for _ in range(3)]
    model = diffeo.Flow(Chain((2,), layers))
    with torch.no_grad():
        final = [m for m in layers[1].net.modules() if isinstance(m, torch.nn.Linear)][-1]
        final.bias.fill_(812.0)
    with pytest.raises(
        Diverged, match=r"the log-scale of transform\.parts\.1 reached 812"
    ) as raised:
        diffeo.fit(model, gaussian(), steps=3, **QUIET)
    assert "transform.parts.1.family (Affine)" in str(raised.value)


def test_a_gradient_that_overflows_is_named():
    class Root(torch.autograd.Function):
        """Finite forward, infinite backward."""

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * math.inf

    class Steep(Affine):
        def forward(self, x, params):
            return super().forward(x, Root.apply(params))

    model = diffeo.Flow(Chain((2,), [Coupling, Coupling((2,), Steep())]))
    with pytest.raises(Diverged, match=r"the gradient of transform\.parts\.1\.net") as raised:
        diffeo.fit(model, gaussian(), steps=3, **QUIET)
    assert "(Linear)" in str(raised.value)


def test_integers_out_of_range_are_one_sentence():
    model = diffeo.zoo.build("nice", (1, 4, 4), size="tiny", levels=4)
    x = torch.full((32, 1, 4, 4), 9, dtype=torch.uint8)
    with pytest.raises(TrainingError, match=r"transform\.parts\.0 \(Dequantize\)"):
        diffeo.fit(model, x, steps=2, **QUIET)


def test_without_clipping_too():
    with pytest.raises(Diverged):
        diffeo.fit(flow(), gaussian(), steps=50, lr=1e6, clip=None, **QUIET)
