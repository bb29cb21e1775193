"""The oracle is itself tested: every deliberate mistake is caught by name, and its correct twin passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffeo.distributions import StandardNormal
from diffeo.errors import InputError
from diffeo.families import Additive, Affine, Family
from diffeo.flow import Flow
from diffeo.nets import MLP, Conditioner
from diffeo.properties import Properties
from diffeo.testing import (
    CheckFailed,
    check_conditioner,
    check_distribution,
    check_family,
    check_flow,
    check_transform,
    randomize,
)
from diffeo.transforms import Dequantize, Transform

# Test classes are not registered, and compiling them says nothing more.
FAST = {"skip": ("config_round_trip", "export"), "backend": "none"}


class Scale(Transform):
    """z = exp(s_c) x + t_c per channel of [C, H, W], or per entry: the correct twin."""

    def __init__(self, event_shape: tuple[int, ...] = (2, 2, 3)) -> None:
        super().__init__(event_shape)
        self.s = nn.Parameter(torch.zeros(event_shape[0], *(1 for _ in event_shape[1:])))
        self.t = nn.Parameter(torch.zeros_like(self.s))

    def ladj(self, x: Tensor) -> Tensor:
        return self.s.expand(self.event_shape).sum().expand(len(x))

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return x * self.s.exp() + self.t, self.ladj(x)

    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return (z - self.t) * (-self.s).exp(), -self.ladj(z)


class SignFlipped(Scale):
    def ladj(self, x: Tensor) -> Tensor:
        return -super().ladj(x)


class FactorOfPixelsMissing(Scale):
    def ladj(self, x: Tensor) -> Tensor:
        return self.s.sum().expand(len(x))


class InverseSignFlipped(Scale):
    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        x, ladj = super().inverse(z)
        return x, -ladj


class InverseTermDropped(Scale):
    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return z * (-self.s).exp(), -self.ladj(z)


class ScalarLadj(Scale):
    def ladj(self, x: Tensor) -> Tensor:
        return self.s.expand(self.event_shape).sum()


class Float32Ladj(Scale):
    def ladj(self, x: Tensor) -> Tensor:
        return super().ladj(x).float()


class LeaksAcrossTheBatch(Scale):
    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        z, ladj = super().forward(x)
        return z + 0.01 * x.mean(0, keepdim=True), ladj


class BatchOfOneDiffers(Scale):
    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        z, ladj = super().forward(x)
        return (z if len(x) > 1 else z + 1), ladj


class EditsInPlace(Scale):
    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        z, ladj = super().forward(x)
        with torch.no_grad():
            x.add_(1.0)
        return z, ladj


class CountsCalls(Scale):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        self.calls.add_(1)
        return super().forward(x)


class CachesByTensor(Scale):
    """As pyro: the value of the same tensor object survives an update of the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[int, Any] = {}

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        if id(x) not in self.kept:
            z, ladj = super().forward(x)
            self.kept[id(x)] = (x, (z.detach(), ladj.detach()))
        return self.kept[id(x)][1]

    def __deepcopy__(self, memo: Any) -> CachesByTensor:
        new = CachesByTensor().to(self.s.dtype).train(self.training)
        new.load_state_dict(self.state_dict())
        return new


class CachesFirst(Scale):
    """Serves the first latent for every later x of that shape."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Any = None

    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        if self.kept is None or self.kept[0].shape != z.shape:
            self.kept = tuple(v.detach() for v in super().inverse(z))
        return self.kept


class InitializesAnywhere(Scale):
    """As normflows: the first call sets the statistics, also in eval, also from `sample`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initialized", torch.tensor(False))

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        if not bool(self.initialized):
            with torch.no_grad():
                self.s.copy_(-x.std((0, 2, 3), keepdim=True)[0].log())
                self.initialized.fill_(True)
        return super().forward(x)


class IgnoresContext(Transform):
    """Declares a context, feeds it to a network, and throws the result away."""

    def __init__(self, use: bool = False) -> None:
        super().__init__((3,), context_shape=(2,))
        self.use = use
        self.net = MLP((0,), (3,), (2,), hidden=(4,))

    def shift(self, x: Tensor, context: Any) -> Tensor:
        t = self.net(x.new_empty(len(x), 0), context)
        return t if self.use else torch.zeros_like(t)

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return x + self.shift(x, context), x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return z - self.shift(z, context), z.new_zeros(len(z))


class OneNetworkIgnoresContext(IgnoresContext):
    """Two networks; the outputs depend on the context through one of them only."""

    def __init__(self) -> None:
        super().__init__(use=True)
        self.other = DeafConditioner((3,), (3,), (2,))

    def shift(self, x: Tensor, context: Any) -> Tensor:
        return super().shift(x, context) + self.other(torch.zeros_like(x), context)


class DeafConditioner(Conditioner):
    """Takes a context and does not listen."""

    def __init__(self, in_shape: Any, out_shape: Any, context_shape: Any) -> None:
        super().__init__(in_shape, out_shape, context_shape)
        self.linear = nn.Linear(in_shape[0], out_shape[0])

    def forward(self, x: Tensor, context: Any = None) -> Tensor:
        return self.linear(x)


class DetachesParameters(Scale):
    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        s, t = self.s.detach(), self.t.detach()
        return (z - t) * (-s).exp(), -s.expand(self.event_shape).sum().expand(len(z))


class OnceDifferentiable(Scale):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, s: Tensor) -> Tensor:
            ctx.save_for_backward(x, s)
            return x * s

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            x, s = ctx.saved_tensors
            return grad * s, (grad * x).sum_to_size(s.shape)

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return self.Product.apply(x, self.s.exp()) + self.t, self.ladj(x)


class DeclaresConstant(Scale):
    properties = Properties(constant_ladj=True, volume_preserving=True)


class StateOutsideTheStateDict(Scale):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = float(torch.rand(()))

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        z, ladj = super().forward(x)
        return z + self.hidden, ladj

    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return super().inverse(z - self.hidden)

    def __deepcopy__(self, memo: Any) -> StateOutsideTheStateDict:
        new = StateOutsideTheStateDict().to(self.s.dtype).train(self.training)
        new.load_state_dict(self.state_dict())
        return new


class BranchesOnData(Scale):
    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        if bool((x > 1e9).any()):
            return x, x.new_zeros(len(x))
        return super().forward(x)


class LowPrecisionArithmetic(Scale):
    """The layer's own product runs in bfloat16 under autocast."""

    def forward(self, x: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        q = torch.eye(x.shape[-1], dtype=x.dtype)
        z, ladj = super().forward(x)
        return torch.matmul(z, q), ladj


class SharedNoise(Dequantize):
    def draw(self, n: int, **options: Any) -> Tensor:
        one = super().draw(1, **options)
        assert isinstance(one, Tensor)
        return one.expand(n, *one.shape[1:])


class DeafToGenerator(Dequantize):
    def draw(self, n: int, generator: Any = None, **options: Any) -> Any:
        return super().draw(n, **options)


class OffByOne(Dequantize):
    def inverse(self, z: Tensor, context: Any = None) -> tuple[Tensor, Tensor]:
        return super().inverse(z.round())


class ComparesAsBytes(Dequantize):
    """In uint8 256 is 0, so every integer is out of range."""

    def forward(self, x: Tensor, context: Any = None, noise: Any = None) -> tuple[Tensor, Tensor]:
        z, ladj = super().forward(x, context, noise)
        outside = (x >= self.quanta).flatten(1).any(1)
        return z, torch.where(outside, torch.full_like(ladj, -torch.inf), ladj)


class RoundsUp(Dequantize):
    """x + u, u just below 1, is x + 1 in floating point."""

    def forward(self, x: Tensor, context: Any = None, noise: Any = None) -> tuple[Tensor, Tensor]:
        _, ladj = super().forward(x, context, noise)
        return x + noise, ladj


WRONG: dict[str, tuple[Any, str]] = {
    "sign flipped": (SignFlipped, "jacobian"),
    "sign flipped, inverse": (SignFlipped, "inverse_jacobian"),
    "factor H*W missing": (FactorOfPixelsMissing, "jacobian"),
    "inverse ladj with forward's sign": (InverseSignFlipped, "inverse_ladj"),
    "one inverse term dropped": (InverseTermDropped, "round_trip"),
    "ladj is a scalar": (ScalarLadj, "ladj_shape_dtype"),
    "ladj in float32": (Float32Ladj, "ladj_shape_dtype"),
    "cross-batch leak": (LeaksAcrossTheBatch, "batch_independence"),
    "batch of one": (BatchOfOneDiffers, "batch_of_one"),
    "in-place edit": (EditsInPlace, "purity"),
    "state changed by a call": (CountsCalls, "purity"),
    "value cache by tensor": (CachesByTensor, "cache"),
    "value cache in the inverse": (CachesFirst, "cache"),
    "initialization in eval": (InitializesAnywhere, "initialization"),
    "ignored context": (IgnoresContext, "context_used"),
    "one network ignores the context": (OneNetworkIgnoresContext, "context_used"),
    "parameters without gradient": (DetachesParameters, "gradcheck"),
    "once differentiable": (OnceDifferentiable, "double_backward"),
    "declares what is not so": (DeclaresConstant, "declared_properties"),
    "state outside the state dict": (StateOutsideTheStateDict, "state_dict"),
    "branch on data": (BranchesOnData, "vmap"),
    "low precision arithmetic": (LowPrecisionArithmetic, "autocast"),
    "noise shared across the batch": (lambda: SharedNoise((3,), 8), "noise"),
    "noise deaf to the generator": (lambda: DeafToGenerator((3,), 8), "noise"),
    "integers compared as bytes": (lambda: ComparesAsBytes((3,), 256), "integers"),
    "noise rounds up": (lambda: RoundsUp((3,), 256), "integers"),
    "integers rounded": (lambda: OffByOne((3,), 8), "integers"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_transform_is_caught_by_name(mistake: str) -> None:
    make, check = WRONG[mistake]
    with pytest.raises(CheckFailed) as caught:
        check_transform(make(), **FAST)
    assert check in caught.value.failed
    assert check in str(caught.value)


def test_forward_against_inverse_alone_misses_a_wrong_sign() -> None:
    """Why the Jacobian is computed: both directions share the mistake, and agree."""
    report = check_transform(SignFlipped(), checks=["round_trip", "inverse_ladj"])
    assert report.failed == ()


@pytest.mark.parametrize("make", [Scale, lambda: Scale((4,)), lambda: IgnoresContext(use=True)])
def test_correct_twins_pass(make: Any) -> None:
    check_transform(make(), skip=("config_round_trip",))


def test_correct_dequantization_passes() -> None:
    check_transform(Dequantize((3,), 8))


@pytest.mark.parametrize("check", ["compile", "export"])
def test_branches_on_data_do_not_compile(check: str) -> None:
    with pytest.raises(CheckFailed) as caught:
        check_transform(BranchesOnData(), checks=[check])
    assert caught.value.failed == (check,)


def test_unregistered_parts_cannot_be_saved() -> None:
    with pytest.raises(CheckFailed, match="not registered") as caught:
        check_transform(Scale(), checks=["config_round_trip"])
    assert caught.value.failed == ("config_round_trip",)


# -- flows ------------------------------------------------------------------------------------------------------------


class WrongSignOfLogQ(Flow):
    """As torchflows: adds the inverse's ladj where it should subtract."""

    def rsample_and_log_prob(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        x, log_q = super().rsample_and_log_prob(*args, **options)
        _, ladj = self.transform.inverse(self.encode(x).reshape(-1, *self.latent_shape))
        return x, log_q + 2 * ladj.reshape(log_q.shape)


class ForgetsLadj(Flow):
    def _log_prob(self, x: Tensor, context: Any, noise: Any) -> Tensor:
        return self.base.log_prob(self.transform(x, context)[0], context)


class SamplesTooWide(Flow):
    def sample(self, *args: Any, **options: Any) -> Tensor:
        return 1.1 * super().sample(*args, **options)


class NarrowNormal(StandardNormal):
    """Forgets the normalizing constant."""

    def log_prob(self, z: Tensor, context: Any = None) -> Tensor:
        return -0.5 * z.square().flatten(1).sum(-1)


class WideNormal(StandardNormal):
    """Samples with deviation 1.1."""

    def sample(self, n: int, context: Any = None, *, temperature: float = 1.0, **options: Any) -> Tensor:  # fmt: skip
        return super().sample(n, context, temperature=1.1 * temperature, **options)


FLOW_SKIP = ("config_round_trip", "save_load", "export")
WRONG_FLOWS: dict[str, tuple[Any, str]] = {
    "wrong sign in rsample_and_log_prob": (lambda: WrongSignOfLogQ(Scale((2,))), "sample_log_prob"),
    "log_prob without ladj": (lambda: ForgetsLadj(Scale((2,))), "log_prob_identity"),
    "log_prob without ladj, mass": (lambda: ForgetsLadj(Scale((2,))), "integrates_to_one"),
    "samples too wide": (lambda: SamplesTooWide(Scale((1,))), "samples_follow"),
    "base not normalized": (lambda: Flow(Scale((1,)), NarrowNormal((1,))), "integrates_to_one"),
    "base samples too wide": (lambda: Flow(Scale((2,)), WideNormal((2,))), "samples_follow"),
    "cross-batch leak": (lambda: Flow(LeaksAcrossTheBatch()), "batch_independence"),
    "context ignored": (lambda: Flow(IgnoresContext()), "context_used"),
    "initialization in eval": (lambda: Flow(InitializesAnywhere()), "initialization"),
}


@pytest.mark.parametrize("mistake", WRONG_FLOWS)
def test_wrong_flow_is_caught_by_name(mistake: str) -> None:
    make, check = WRONG_FLOWS[mistake]
    with pytest.raises(CheckFailed) as caught:
        check_flow(make(), skip=FLOW_SKIP, backend="none")
    assert check in caught.value.failed


@pytest.mark.parametrize("shape", [(1,), (2,), (2, 2, 3)])
def test_correct_flow_passes(shape: tuple[int, ...]) -> None:
    check_flow(Flow(Scale(shape)), skip=("config_round_trip", "save_load"))


# -- families, networks, distributions --------------------------------------------------------------------------------


class WrongDerivative(Affine):
    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        y, ladj = super().forward(x, params)
        return y, ladj + 0.1 * x


class NotMonotone(Family):
    num_params = 1

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return x.square() + params[..., 0], (2 * x).abs().log()


class UnusedParameter(Additive):
    num_params = 2


def test_wrong_families_are_caught_by_name() -> None:
    for family, check in (
        (WrongDerivative(), "jacobian"),
        (NotMonotone(), "monotone"),
        (UnusedParameter(), "params_used"),
    ):
        with pytest.raises(CheckFailed) as caught:
            check_family(family, **FAST)
        assert check in caught.value.failed


def test_wrong_conditioner_is_caught_by_name() -> None:
    with pytest.raises(CheckFailed) as caught:
        check_conditioner(DeafConditioner((3,), (3,), (2,)), **FAST)
    assert caught.value.failed == ("context_used",)


def test_wrong_distributions_are_caught_by_name() -> None:
    for base, check in ((NarrowNormal((1,)), "integrates_to_one"), (WideNormal((2,)), "samples_follow")):  # fmt: skip
        with pytest.raises(CheckFailed) as caught:
            check_distribution(base, **FAST)
        assert check in caught.value.failed


# -- the oracle's manners ---------------------------------------------------------------------------------------------


def test_the_callers_module_is_left_alone() -> None:
    layer = randomize(Scale())
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    x = torch.randn(3, 2, 2, 3)
    given = x.clone()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    check_transform(layer, x, **FAST)
    check_flow(Flow(layer), skip=FLOW_SKIP, backend="none")
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    assert layer.s.dtype == torch.float32
    assert layer.training
    assert torch.equal(x, given)
    assert torch.equal(torch.get_rng_state(), state)


def test_report_reads() -> None:
    report = check_transform(Scale(), checks=["jacobian", "context_used"])
    assert report.passed == ("jacobian",)
    assert report.skipped == {"context_used": "there is no context"}
    assert "jacobian" in str(report)
    assert "skipped" in str(report)


def test_unknown_checks_are_refused() -> None:
    with pytest.raises(InputError, match="no check 'jacobain'"):
        check_transform(Scale(), checks=["jacobain"])


def test_randomize_is_far_from_initialization_and_reproducible() -> None:
    one, two, other = (randomize(MLP((3,), (2,)), seed) for seed in (0, 0, 1))
    for p, q, r in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert not torch.equal(p, r)
        assert bool((p != 0).all())
