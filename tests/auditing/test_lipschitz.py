"""Bi-Lipschitz analysis: certified constants hold, measured ones reach them, and the total variation they force."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

import diffeo
from diffeo import Flow
from diffeo.auditing import separated_modes_bound, total_variation_bound
from diffeo.auditing.layers import _estimate
from diffeo.auditing.lipschitz import gaussian_concentration, singular_values
from diffeo.auditing.record import record
from diffeo.distributions import DiagonalNormal, GaussianMixture, StandardNormal
from diffeo.errors import InputError
from diffeo.estimating import with_estimator
from diffeo.families import Additive, Affine, Inverted, Rescale, Scaling
from diffeo.nets import LipschitzMLP
from diffeo.testing import randomize
from diffeo.transforms import (
    ActNorm,
    BatchNorm,
    Chain,
    Coupling,
    Elementwise,
    Exact,
    Halves,
    Householder,
    Implicit,
    Inverse,
    InvertibleConv1x1,
    LULinear,
    Permutation,
    Residual,
    Rotation,
    Split,
    Squeeze,
    Standardize,
    Transform,
    logdet,
)

SHAPE = (2, 2, 4)


def _total_variation(s: float, t: float) -> float:
    """Between N(0, s^2) and N(0, t^2): they cross at +-x, x^2 (1/s^2 - 1/t^2) = 2 log(t/s)."""
    s, t = min(s, t), max(s, t)
    if s == t:
        return 0.0
    x = math.sqrt(2 * math.log(t / s) / (1 / s**2 - 1 / t**2))
    return math.erf(x / s / math.sqrt(2)) - math.erf(x / t / math.sqrt(2))


# -- total variation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("constant", "expected"), [(0.5, 0.3227), (0.25, 0.5818)])
def test_the_numbers_of_the_sheet(constant: float, expected: float) -> None:
    found = total_variation_bound(Normal(0.0, 1.0), Normal(3.0, 1.0), lipschitz=constant)
    assert found == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("scale", [0.05, 0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("constant", [0.3, 1.0, 4.0])
def test_it_is_attained_by_gaussians_in_one_dimension(scale: float, constant: float) -> None:
    """The best affine map x / s with slope at most L, and with slope at least 1 / L, for the target N(0, scale^2)."""
    base, target = StandardNormal((1,)), Normal(torch.tensor(2.0).double(), scale)
    steep = total_variation_bound(base, target, lipschitz=constant)
    assert steep == pytest.approx(_total_variation(scale, max(scale, 1 / constant)), abs=1e-8)
    flat = total_variation_bound(base, target, inverse_lipschitz=constant)
    assert flat == pytest.approx(_total_variation(scale, min(scale, constant)), abs=1e-8)
    both = total_variation_bound(base, target, lipschitz=constant, inverse_lipschitz=constant)
    assert both == max(steep, flat)


def test_it_grows_with_the_dimension() -> None:
    bounds = [
        total_variation_bound(StandardNormal((d,)), DiagonalNormal((d,), 0.0, 0.5), lipschitz=1.0)
        for d in (1, 4, 16, 64)
    ]
    assert bounds == sorted(bounds)
    assert bounds[-1] > 0.99
    # Of the plane: C(r) = 1 - exp(-r^2 / 2 s^2), so sup of u^s - u^t.
    u = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    plane = Independent(Normal(torch.zeros(2), 0.5 * torch.ones(2)), 1)
    found = total_variation_bound(StandardNormal((2,)), plane, lipschitz=1.0)
    assert found == pytest.approx(float((u - u**4).max()), abs=1e-6)


def test_other_laws_by_their_heaviest_balls() -> None:
    """A uniform law on [0, w] has C(r) = min(1, 2 r / w): its density is above that of a map of slope L up to 1 / w."""

    def uniform(r: Tensor) -> Tensor:
        return (2 * r / 0.1).clamp(max=1)

    found = total_variation_bound(StandardNormal((1,)), uniform, lipschitz=2.0)
    assert found == pytest.approx(1 - math.erf(2 * 0.05 / math.sqrt(2)), abs=1e-6)
    same = total_variation_bound(uniform, uniform, lipschitz=1.0, inverse_lipschitz=1.0)
    assert same == 0.0


def test_examples_give_a_bound_below_that_of_their_law() -> None:
    g = torch.Generator().manual_seed(0)
    x = 0.2 * torch.randn(4000, 2, generator=g)
    base = StandardNormal((2,))
    exact = total_variation_bound(base, DiagonalNormal((2,), 0.0, 0.2), lipschitz=1.0)
    found = total_variation_bound(base, x, lipschitz=1.0)
    assert exact - 0.1 < found < exact
    assert total_variation_bound(base, x, lipschitz=5.0) == 0.0
    assert total_variation_bound(base, x, inverse_lipschitz=1.0) == 0.0


def test_gaussians_with_several_deviations_and_densities_of_the_plane() -> None:
    base, scales = StandardNormal((2,)), torch.tensor([0.2, 0.3])
    several = total_variation_bound(base, DiagonalNormal((2,), 0.0, scales), lipschitz=1.0)
    least, most = (
        total_variation_bound(base, DiagonalNormal((2,), 0.0, s), lipschitz=1.0) for s in (0.3, 0.2)
    )
    assert several == pytest.approx(least)
    assert several < most
    turn = torch.linalg.qr(torch.randn(2, 2, generator=torch.Generator().manual_seed(0)))[0]
    turned = MultivariateNormal(torch.zeros(2), turn @ torch.diag(scales**2) @ turn.T)
    assert total_variation_bound(base, turned, lipschitz=1.0) == pytest.approx(several, abs=1e-5)
    assert total_variation_bound(turned, base, inverse_lipschitz=1.0) > 0
    moons = diffeo.data.density("moons")
    found = total_variation_bound(base, moons, lipschitz=0.2)
    assert 0.1 < found < total_variation_bound(base, moons, lipschitz=0.1) < 1


def test_separated_modes() -> None:
    """Two atoms at distance D, inverse constant K: a model may drop one of them, and then misses Phi(D / K) - 1/2."""
    assert separated_modes_bound(4.0, 2.0) == pytest.approx(0.5 * math.erf(2 / math.sqrt(2)))
    assert separated_modes_bound(1e-6, 1.0) == pytest.approx(0.0, abs=1e-6)
    # The bound is the least over the mass a that the model has in the first set.
    p, q, r = 0.3, 0.6, 0.8
    a = torch.linspace(1e-6, 1 - 1e-6, 200_001, dtype=torch.float64)
    rest = 1 - torch.special.ndtr(torch.special.ndtri(a) + r)
    least = ((p - a).clamp(min=0) + (q - rest).clamp(min=0)).min()
    assert separated_modes_bound(r, 1.0, (p, q)) == pytest.approx(float(least), abs=1e-5)


def test_bad_questions() -> None:
    base = StandardNormal((2,))
    with pytest.raises(InputError, match="2 dimensions, target 3"):
        total_variation_bound(base, StandardNormal((3,)), lipschitz=1.0)
    with pytest.raises(InputError, match="2 dimensions, the examples 3"):
        total_variation_bound(base, torch.zeros(9, 3), lipschitz=1.0)
    with pytest.raises(InputError, match="lipschitz must be positive, got 0"):
        total_variation_bound(base, base, lipschitz=0.0)
    with pytest.raises(InputError, match=r"a Gaussian, .* got GaussianMixture"):
        total_variation_bound(base, GaussianMixture((2,), 2), lipschitz=1.0)
    with pytest.raises(InputError, match="four finite examples"):
        total_variation_bound(base, torch.full((9, 2), math.nan), lipschitz=1.0)
    with pytest.raises(InputError, match="two shares of one"):
        separated_modes_bound(1.0, 1.0, (0.7, 0.7))


def test_mass_of_gaussian_balls() -> None:
    found = gaussian_concentration(1, 2.0)(torch.tensor([0.0, 2.0, 4.0]))
    assert found.tolist() == pytest.approx([0.0, math.erf(0.5**0.5), math.erf(2**0.5)])


# -- constants --------------------------------------------------------------------------------------------------------

near = partial(LipschitzMLP, hidden=(3,))
AFFINE: dict[str, Any] = {
    "actnorm": lambda: ActNorm(SHAPE),
    "standardize": lambda: Standardize((3,)),
    "batchnorm": lambda: BatchNorm((4,)),
    "batchnorm/half": lambda: BatchNorm((4,), Halves),
    "scaling": lambda: Elementwise(SHAPE, Scaling()),
    "affine": lambda: Elementwise((3,), Affine("sigmoid")),
    "affine/inverted": lambda: Elementwise((3,), Inverted(Affine("tanh"))),
    "additive": lambda: Elementwise((3,), Additive()),
    "rescale": lambda: Elementwise((3,), Rescale((0, 256))),
    "conv1x1": lambda: InvertibleConv1x1(SHAPE),
    "lu": lambda: LULinear((4,)),
    "rotation": lambda: Rotation((4,), learned=True),
    "householder": lambda: Householder((4,)),
    "permutation": lambda: Permutation((4,)),
    "squeeze": lambda: Squeeze(SHAPE),
    "split": lambda: Split((4,), lambda s: Elementwise(s, Scaling())),
    "inverse": lambda: Inverse(LULinear((4,))),
}
BOUNDED: dict[str, Any] = {
    "affine/context": lambda: Elementwise((3,), Affine(bound=1.0), diffeo.nets.MLP, context_shape=(2,)),
    "implicit": lambda: Implicit((2,), near, estimator=Exact()),
    "chain": lambda: Chain((4,), [ActNorm, LULinear, Permutation, partial(Split, rest=ActNorm)]),
}  # fmt: skip


def _measured(t: Transform) -> tuple[float, float]:
    t.double().eval()
    x = torch.randn(3, *t.event_shape, generator=torch.Generator().manual_seed(0)).double()
    context = None if t.context_shape is None else torch.ones(3, *t.context_shape).double()
    most, least = singular_values(lambda x: t(x, context)[0], x)
    return float(most.max()), 1 / float(least.min())


@pytest.mark.parametrize("name", [*AFFINE, *BOUNDED])
def test_certified_constants_hold_and_are_those_of_affine_maps(name: str) -> None:
    torch.manual_seed(0)
    t = randomize((AFFINE | BOUNDED)[name](), seed=0)
    for found, bound in zip(_measured(t), t.lipschitz_bounds(), strict=True):
        assert bound is not None
        assert found <= bound * (1 + 1e-6)
        if name in AFFINE:
            assert found == pytest.approx(bound, rel=1e-5)


def test_what_is_not_known_is_none() -> None:
    t = Chain((4,), [ActNorm, Coupling, Permutation])
    assert t.lipschitz_bounds() == (None, None)
    t = Elementwise((2,), Affine("exp"), diffeo.nets.MLP, context_shape=(1,))
    assert t.lipschitz_bounds() == (None, None)


# -- in the audit -----------------------------------------------------------------------------------------------------


def _implicit_flow() -> Flow:
    torch.manual_seed(0)
    made = partial(Implicit, net_x=near, estimator=Exact())
    return randomize(Flow(Chain((2,), [ActNorm, made])), seed=0, scale=0.3).eval()


def test_the_audit_shows_both_and_the_iterations() -> None:
    flow = _implicit_flow()
    x = 0.02 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    found = diffeo.audit(flow, x)
    assert found.passes
    first, second = flow.transform.lipschitz_bounds()
    assert found.certified_lipschitz == pytest.approx(first)
    assert found.certified_inverse_lipschitz == pytest.approx(second)
    assert found.lipschitz <= first
    assert found.inverse_lipschitz <= second
    most, _ = singular_values(flow.double().encode, x.double())
    # Of some of the examples, and of samples.
    assert found.lipschitz >= 0.9 * float(most.max())
    assert 2 <= found.steps < 200
    assert found.total_variation == total_variation_bound(StandardNormal((2,)), x, lipschitz=first)
    assert found.total_variation > 0.5
    shown = str(found)
    assert f"at most {first:.3g}, {second:.3g} certified" in shown
    assert "evaluations of an iterative layer" in shown
    assert "no model with these constants" in shown


def test_draws_that_are_no_numbers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> tuple[Tensor, Tensor]:
        value, vector = terms(*arguments)
        return torch.where(torch.rand_like(value) < 0.1, math.nan, value), vector

    terms = logdet._terms
    flow = diffeo.zoo.build("residual_flow", (2,), size="tiny").eval()
    torch.manual_seed(0)
    layer = next(m for m in flow.modules() if isinstance(m, Residual))
    monkeypatch.setattr(logdet, "_terms", broken)
    call = record(layer, {}, torch.randn(3, 2), None, layer.draw(3))
    found = _estimate(call, torch.Generator().manual_seed(0))
    assert found["ladj_error"] == math.inf
    assert math.isfinite(found["ladj_tolerance"])


@pytest.mark.parametrize("name", ["residual_flow", "idensenet", "iresnet", "impflow"])
@pytest.mark.parametrize("size", [2, 40])
def test_constants_of_models_with_estimates_are_measured(name: str, size: int) -> None:
    torch.manual_seed(0)
    flow = randomize(diffeo.zoo.build(name, (size,), size="tiny"), scale=2.0).eval()
    found = diffeo.audit(flow, torch.randn(8, size))
    assert found.passes, found.verdict
    assert 0 < found.lipschitz <= found.certified_lipschitz
    assert 0 < found.inverse_lipschitz <= found.certified_inverse_lipschitz
    if size == 2:
        exact = with_estimator(flow, Exact())
        same = diffeo.audit(exact, torch.randn(8, size, generator=torch.Generator().manual_seed(1)))
        assert same.ladj_method == "full Jacobian"
        assert all(layer.ladj_error is not None for a in (found, same) for layer in a.layers)


def test_an_estimate_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: Any) -> tuple[Tensor, Tensor]:
        value, vector = terms(*arguments)
        return 1.5 * value, vector

    terms = logdet._terms
    torch.manual_seed(0)
    flow = randomize(diffeo.zoo.build("residual_flow", (2,), size="tiny"), scale=2.0).eval()
    monkeypatch.setattr(logdet, "_terms", wrong)
    found = diffeo.audit(flow, torch.randn(8, 2))
    assert not found.passes
    assert "the mean of 64 estimates" in found.verdict


def test_what_is_not_compared_is_said() -> None:
    flow = diffeo.zoo.build("cpflow", (20,), size="tiny", estimator="lanczos").eval()
    found = diffeo.audit(flow, torch.randn(8, 20))
    assert "ladj of 1 of 4 layers was not compared" in found.verdict


def test_a_constant_that_does_not_hold_is_an_error() -> None:
    class Wrong(ActNorm):
        def lipschitz_bounds(self) -> tuple[float, float]:
            return 0.5, 0.5

    found = diffeo.audit(Flow(Wrong((2,))), torch.randn(20, 2))
    assert not found.passes
    assert "stretches by 1, more than its certified 0.5" in found.verdict
