"""Continuous flows against closed forms: linear fields, enumerated probes, orders of solvers, gradients."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffeo
from diffeo.errors import ConfigError, ConvergenceError, DirectionError, ShapeError
from diffeo.nets import ConcatSquash, ConcatSquashConv, Field
from diffeo.parts import register
from diffeo.solving import evaluations, straightness, with_solver
from diffeo.testing import randomize
from diffeo.transforms import Chain, Continuous

small = partial(ConcatSquash, hidden=(6, 5))
fine: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}


@register
class Linear(Field):
    """f = x A^T; counts its calls."""

    def __init__(self, event_shape: Any, context_shape: Any = None) -> None:
        super().__init__(event_shape, context_shape)
        self.matrix = nn.Parameter(torch.tensor([[0.4, -1.1], [0.9, 0.3]], dtype=torch.float64))
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, context: Any = None) -> Tensor:
        self.calls += 1
        return x @ self.matrix.T


class Explosive(Field):
    """x' = 1000 x^2 has no solution until 1."""

    def forward(self, x: Tensor, t: Tensor, context: Any = None) -> Tensor:
        return 1000 * x**2


def made(shape: Any = (2,), field: Any = small, **options: Any) -> Continuous:
    layer = Continuous(shape, field, **options).double()
    randomize(layer, 0, 1.0)
    return layer


def points(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("solver", ["dopri5", "dopri8"])
@pytest.mark.parametrize("time", [0.5, 2.0])
def test_linear_fields_have_closed_forms(solver: str, time: float) -> None:
    layer = Continuous((2,), Linear, time=time, solver=solver, **fine)
    x = points(5, 2)
    z, ladj = layer(x)
    matrix = layer.field.matrix.detach()
    assert torch.allclose(z, x @ torch.matrix_exp(time * matrix).T, rtol=1e-7, atol=1e-7)
    assert torch.allclose(ladj, (time * matrix.trace()).expand(5), atol=1e-7)
    back, minus = layer.inverse(z)
    assert torch.allclose(back, x, atol=1e-7)
    assert torch.allclose(minus, -ladj, atol=1e-7)


@pytest.mark.parametrize(
    ("solver", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4), ("dopri5", 5)]
)
def test_errors_fall_with_the_order_of_the_solver(solver: str, order: int) -> None:
    x = points(3, 2)
    truth = x @ torch.matrix_exp(Linear((2,)).matrix.detach()).T
    errors = [
        float((Continuous((2,), Linear, solver=solver, steps=n)(x)[0] - truth).detach().abs().max())
        for n in (8, 16)
    ]
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.3


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (partial(ConcatSquash, hidden=()), (3,)),
        (partial(ConcatSquash, hidden=(5,), activation="softplus"), (3,)),
        (partial(ConcatSquash, hidden=(5, 4, 6), activation="silu"), (3,)),
        (partial(ConcatSquash, hidden=(4, 4), gated=False), (2, 2)),
        (partial(ConcatSquashConv, channels=(3, 2)), (2, 2, 3)),
        (partial(ConcatSquashConv, channels=(3,), gated=False, activation="tanh"), (1, 2, 2)),
    ],
)
@pytest.mark.parametrize("context_shape", [None, (2,)])
def test_derivatives_of_fields_are_those_of_autograd(
    net: Any, shape: Any, context_shape: Any
) -> None:
    field = randomize(net(shape, context_shape).double())
    x, t = points(3, *shape), points(3)
    context = None if context_shape is None else points(3, 2)
    size = x[0].numel()
    full = torch.autograd.functional.jacobian(lambda x: field(x, t, context).sum(0), x)
    full = full.reshape(size, 3, size).movedim(1, 0)
    value, trace = field.with_trace(x, t, context)
    assert torch.allclose(value, field(x, t, context))
    assert torch.allclose(trace, full.diagonal(dim1=1, dim2=2).sum(-1))
    directions = points(2, 3, *shape)
    value, along = field.with_tangents(x, t, directions, context)
    assert torch.allclose(
        along.flatten(2), torch.einsum("boi,kbi->kbo", full, directions.flatten(2))
    )
    # What a field without closed derivatives gets.
    assert torch.allclose(Field.with_tangents(field, x, t, directions, context)[1], along)
    # A number for t is the same time for all.
    one = field(x, t[0], context)
    assert torch.allclose(one, field(x, t[:1].expand(3), context))


def test_hutchinson_is_unbiased_over_all_sign_vectors() -> None:
    """Value and gradients, by enumeration: the path does not depend on the probe, so the mean is exact."""
    options: dict[str, Any] = {"solver": "rk4", "steps": 3, "kinetic": 0.5, "jacobian": 2.0}
    exact, estimate = made((3,), **options), made((3,), trace="hutchinson", **options)
    x = points(2, 3)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    found = [estimate.penalized(x, None, e.expand(2, 3)) for e in signs]
    z, ladj, penalty = exact.penalized(x)
    for i, truth in enumerate((z, ladj, penalty)):
        mean = torch.stack([f[i] for f in found]).mean(0)
        assert torch.allclose(mean, truth, rtol=0, atol=1e-12)
        wanted = torch.autograd.grad(
            truth.sum(), exact.parameters(), retain_graph=True, allow_unused=True
        )
        got = torch.autograd.grad(
            mean.sum(), estimate.parameters(), retain_graph=True, allow_unused=True
        )
        for a, b in zip(wanted, got, strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b, atol=1e-12)
    assert torch.equal(estimate(x)[1], exact(x)[1])  # without noise
    assert bool(estimate.inverse(z)[1].isnan().all())


def test_rademacher_probes_are_exact_for_diagonal_jacobians() -> None:
    layer = Continuous((2,), Linear, solver="rk4", steps=4, trace="hutchinson")
    with torch.no_grad():
        layer.field.matrix.copy_(torch.diag(torch.tensor([0.5, -1.0])))
    e = layer.draw(4, generator=torch.Generator().manual_seed(0), like=layer.field.matrix)
    assert set(e.unique().tolist()) == {-1.0, 1.0}
    assert torch.allclose(layer(points(4, 2), None, e)[1], torch.tensor(-0.5, dtype=torch.float64))


def test_penalties_of_a_linear_field() -> None:
    """The Jacobian is constant: its penalty is T |A|^2 / D."""
    layer = Continuous((2,), Linear, time=0.5, jacobian=3.0, solver="rk4", steps=2)
    _, _, penalty = layer.penalized(points(3, 2))
    expected = 3.0 * 0.5 * layer.field.matrix.square().sum() / 2
    assert torch.allclose(penalty, expected.expand(3))


@pytest.mark.parametrize(("solver", "limit"), [("dopri5", 1e-12), ("dopri8", 1e-4)])
def test_a_point_does_not_depend_on_its_batch_mates(solver: str, limit: float) -> None:
    """Our steps: not at all. The shared steps of torchdiffeq: within the tolerance, though its mates are harder."""
    layer = made(solver=solver, rtol=1e-5, atol=1e-5, time=2.0)
    x = torch.cat((points(1, 2), 30 * points(20, 2)))
    together, alone = layer(x), layer(x[:1])
    truth = with_solver(diffeo.Flow(layer).double(), rtol=1e-7, atol=1e-7).transform(x)
    for a, b, c in zip(together, alone, truth, strict=True):
        assert float((a[:1] - b).detach().abs().max()) <= limit
        # And every example meets the tolerance, whatever the others are.
        assert float(((a - c).abs() / c.abs().clamp(min=1)).detach().max()) < 1e-3


def test_attempts_at_a_step_are_compiled() -> None:
    layer = made((2,), context_shape=(2,), rtol=1e-8, atol=1e-8)
    x, context = points(12, 2) * torch.linspace(0.01, 20, 12).double()[:, None], points(12, 2)

    def both(x: Tensor) -> list[Tensor]:
        return [*layer(x, context), layer.inverse(x, context)[0]]

    compiled = torch.compile(both, backend="eager")
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found, expected = compiled(x), both(x)
        if grad:
            found, expected = (
                torch.autograd.grad(sum(t.sin().sum() for t in out), list(layer.parameters()))
                for out in (found, expected)
            )
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"adjoint": True}, {"trace": "hutchinson"}])
def test_examples_that_are_done_leave_and_come_back_in_their_place(options: Any) -> None:
    """Values and gradients of a batch, easy and hard ones mixed, are those of its examples alone."""
    layer = made((3,), context_shape=(2,), rtol=1e-7, atol=1e-7, **options)
    x = points(12, 3) * torch.tensor([0.01, 1.0, 30.0], dtype=torch.float64).repeat(4)[:, None]
    context = points(12, 2).requires_grad_()
    noise = None
    if layer.stochastic:
        noise = layer.draw(12, generator=torch.Generator().manual_seed(0), like=x)

    def found(rows: slice) -> list[Tensor]:
        z, ladj = layer(x[rows], context[rows], None if noise is None else noise[rows])
        total = z.sin().sum() + (z[:, 0] * ladj).sum()
        return [z, ladj, *torch.autograd.grad(total, [context, *layer.parameters()])]

    together = found(slice(None))
    apart = list(zip(*(found(slice(i, i + 1)) for i in range(12)), strict=True))
    for i, (a, parts) in enumerate(zip(together, apart, strict=True)):
        b = torch.cat(parts) if i < 2 else torch.stack(parts).sum(0)
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "rk4", "steps": 10},
        {"rtol": 1e-6, "atol": 1e-6},
        {"solver": "dopri8", "rtol": 1e-6, "atol": 1e-6},
    ],
)
def test_adjoint_gradients_are_those_of_backpropagation(options: Any) -> None:
    plain = made(learn_time=True, context_shape=(2,), **options)
    adjoint = made(learn_time=True, context_shape=(2,), adjoint=True, **options)
    x, context = points(3, 2).requires_grad_(), points(3, 2).requires_grad_()

    def gradients(layer: Continuous) -> list[Tensor]:
        z, ladj = layer(x, context)
        return list(
            torch.autograd.grad(z.sin().sum() + ladj.sum(), [x, context, *layer.parameters()])
        )

    for a, b in zip(gradients(plain), gradients(adjoint), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_adjoint_says_that_it_has_no_second_derivatives() -> None:
    x = points(2, 2).requires_grad_()
    z, _ = made(adjoint=True, solver="euler", steps=2)(x)
    with pytest.raises(DirectionError, match="leave it out to differentiate twice"):
        torch.autograd.grad(z.sin().sum(), x, create_graph=True)


def test_memory_of_the_adjoint_does_not_grow_with_the_steps() -> None:
    def stored(adjoint: bool, steps: int) -> int:
        layer = made(adjoint=adjoint, solver="euler", steps=steps)
        total = [0]

        def pack(t: Tensor) -> Tensor:
            total[0] += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            layer(points(4, 2))
        return total[0]

    assert stored(True, 30) == stored(True, 3)
    assert stored(False, 30) > 5 * stored(False, 3)


def test_a_field_that_explodes_is_an_error_that_names_the_layer() -> None:
    layer = Continuous((2,), Explosive, rtol=1e-2)
    with pytest.raises(ConvergenceError, match=r"Continuous\(2,\): .* of 3 examples .*rtol 0.01"):
        layer(points(3, 2).abs())


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("solver", ["dopri5", "dopri8"])
def test_rows_that_are_no_numbers_and_no_rows_at_all(solver: str, adjoint: bool) -> None:
    settings = {"hidden": (8,), "solver": solver, "adjoint": adjoint, "context_shape": (1,)}
    flow = diffeo.zoo.build("ffjord", (2,), **settings).double()
    x, context = torch.randn(5, 2).double(), torch.randn(5, 1).double()
    expected, z = flow.log_prob(x, context), flow.encode(x, context)
    x[1, 0], context[3] = math.inf, math.nan
    good = torch.tensor([True, False, True, False, True])
    x.requires_grad_()
    found = flow.log_prob(x, context)
    assert found.isnan().tolist() == (~good).tolist()
    tolerance = 1e-4 if solver == "dopri8" else 1e-9
    assert (found - expected)[good].abs().max() < tolerance
    assert (flow.encode(x, context) - z)[good].abs().max() < tolerance
    found[good].sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in flow.parameters() if p.grad is not None)
    flow.log_prob(torch.zeros(0, 2).double(), torch.zeros(0, 1).double()).sum().backward()


def test_other_solvers_share_the_weights_and_say_what_they_are() -> None:
    flow = diffeo.zoo.build("ffjord", (2,), hidden=(8,), standardize=False).eval()
    assert "dopri5 to rtol 0.0001" in flow.properties.bias
    other = with_solver(flow, solver="rk4", steps=3)
    assert other.properties.bias == "rk4 in 3 steps"
    assert {id(p) for p in other.parameters()} == {id(p) for p in flow.parameters()}
    x = torch.randn(4, 2)
    assert torch.allclose(other.log_prob(x), flow.log_prob(x), atol=1e-2)
    assert evaluations(other, x) == {"encode": 12, "decode": 12}
    with pytest.raises(ConfigError, match="got 'stepz'"):
        with_solver(flow, stepz=3)
    with pytest.raises(ConfigError, match="no continuous layer"):
        with_solver(diffeo.zoo.build("nice", (2,), size="tiny"), steps=3)


def test_evaluations_are_counted() -> None:
    layer = Continuous((2,), Linear, trace="hutchinson")  # so that no derivative calls the field
    before = layer.field.calls
    found = evaluations(diffeo.Flow(Chain((2,), [layer])).double(), points(3, 2))
    assert found["encode"] + found["decode"] == layer.field.calls - before


def test_the_audit_counts_evaluations() -> None:
    flow = diffeo.Flow(made(solver="rk4", steps=3)).double()
    found = diffeo.audit(flow, points(20, 2))
    assert found.evaluations == {"encode": 12, "decode": 12}
    assert "12 to encode the batch, 12 to decode it" in str(found)
    assert (
        diffeo.audit(diffeo.zoo.build("nice", (2,), size="tiny"), points(20, 2).float()).evaluations
        is None
    )


def test_straightness() -> None:
    class Translation(Linear):
        def forward(self, x: Tensor, t: Tensor, context: Any = None) -> Tensor:
            return torch.ones_like(x) + 0 * (x @ self.matrix.T)

    x = points(8, 2)
    assert (
        float(straightness(diffeo.Flow(Continuous((2,), Translation, **fine)).double(), x)) < 1e-8
    )
    turned = Continuous((2,), Linear, time=math.pi, **fine)
    with torch.no_grad():
        turned.field.matrix.copy_(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    # Half a circle: distance 2 r at speed pi r, so 1 - (2 / pi)^2.
    found = float(straightness(diffeo.Flow(turned).double(), x, points=200))
    assert abs(found - (1 - 4 / math.pi**2)) < 1e-3


def test_round_trips_in_float64_to_nine_digits() -> None:
    flow = diffeo.zoo.build("ffjord", (2,), hidden=(8,), blocks=2).double()
    randomize(flow, 0, 1.0)
    flow = with_solver(flow, rtol=1e-11, atol=1e-11).eval()
    x = points(200, 2)
    with torch.no_grad():
        back = flow.decode(flow.encode(x))
    assert float(((back - x).abs() / x.abs().clamp(min=1)).max()) < 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "rk5"}, "solver must be one of euler"),
        ({"solver": "rk4"}, "steps=20"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"solver": "dopri8", "steps": 3}, "steps .* are for euler"),
        ({"rtol": -1.0}, "rtol and atol"),
        ({"time": 0.0}, "time must be above zero"),
        ({"trace": "some"}, "trace must be one of exact, hutchinson"),
        ({"probe": "uniform"}, "probe must be one of"),
        ({"kinetic": -1.0}, "kinetic and jacobian"),
        ({"field": nn.Linear(2, 2)}, "needs a Field"),
        ({"field": partial(ConcatSquash, activation="relu")}, "activation of a field"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, TypeError), match=message):
        Continuous((2,), **{"field": small} | options)


def test_fields_must_fit() -> None:
    with pytest.raises(ShapeError, match="needs a field on"):
        Continuous((3,), small((2,)))
    with pytest.raises(ShapeError, match="takes images"):
        ConcatSquashConv((3,))
    with pytest.raises(ConfigError, match="kernel must be odd"):
        ConcatSquashConv((1, 2, 2), kernel=2)
