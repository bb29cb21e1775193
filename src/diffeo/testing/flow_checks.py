"""Checks of what users of a flow call: log_prob, encode, decode, sample, save, and the shapes of all of them."""

from __future__ import annotations

import copy
import math
import tempfile
from typing import Any

import torch
from torch import Tensor

from ..errors import DirectionError, InputError
from ..flow import Flow
from ..properties import REAL
from ..saving import load
from .case import Case, condition, expect, gap, jacobian, rows, tree_map
from .distributions import SAMPLES, statistics
from .randomize import draw_context, randomize
from .report import Check, Failure, Skip
from .statistics import integral_is_one, samples_follow


def _flow(case: Case) -> Flow:
    assert isinstance(case.module, Flow)
    return case.module


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _invertible(flow: Flow) -> None:
    if flow.properties.inverse == "none":
        raise Skip("there is no inverse direction")


def _mild(case: Case, scale: float) -> Flow:
    """A copy with smaller random parameters, whose samples stay where float64 resolves the domain's edges."""
    flow = copy.deepcopy(_flow(case))
    if case.randomized:
        randomize(flow, case.seed, scale)
    return flow


def _real(case: Case) -> tuple[Flow, Tensor, Any]:
    """The exact float flow, with a real-valued x and its context."""
    flow = _flow(case)
    x, context, noise = case.args
    if not flow.dequantized:
        return flow, x, context
    first = next(iter(flow.transform))  # type: ignore[call-overload]
    v = first(x, flow._embed(context)[1], noise[0])[0]
    return flow.continuous, v, context


def check_log_prob_identity(case: Case) -> float:
    """log_prob(x) = log p_base(encode(x)) + log|det d encode / dx|, the last by autograd."""
    flow, x, context = _real(case)
    if flow.transform.stochastic:
        raise Skip("stochastic: no Jacobian")
    j = jacobian(lambda v, c: flow.encode(v, c), (x, context))
    base = flow.base.log_prob(flow.encode(x, context), flow._embed(context)[1])
    truth = base + torch.linalg.slogdet(j)[1]
    tolerance = 1e-8 + min(1e-13 * float(condition(j).max()), 1e-4) + case.inexact
    found = flow.log_prob(x, context)
    error = expect(gap(found, truth), tolerance, "log_prob - (base + autograd's log|det|)")
    if gap(flow(x, context), found) != 0:
        raise Failure("flow(x) is not flow.log_prob(x)")
    return error


def check_sample_log_prob(case: Case) -> float:
    """log_q of rsample_and_log_prob is log_prob of the same x; integers and unreparameterized bases say no."""
    flow, context = _mild(case, 0.3).continuous, case.args[1]
    _invertible(flow)
    if _flow(case).dequantized:
        _refuses(lambda: _flow(case).rsample_and_log_prob((2,), context))
    if not flow.base.reparameterized:
        _refuses(lambda: flow.rsample_and_log_prob((2,), context))
        return 0.0
    x, log_q = flow.rsample_and_log_prob((3,), context, generator=_generator(case.seed))
    generator = None
    if flow.transform.stochastic:
        # An estimate draws noise after the latents: the same again.
        generator = _generator(case.seed)
        flow.sample((3,), context, generator=generator)
    found = flow.log_prob(x, context, generator=generator)
    if found.shape != log_q.shape:
        raise Failure(f"log_q is {tuple(log_q.shape)}, log_prob {tuple(found.shape)}")
    rows_x = x.detach().reshape(-1, *flow.event_shape)
    j = jacobian(lambda v, c: flow.encode(v, c), _first(rows_x, context, 3))
    tolerance = 1e-8 + min(1e-11 * float(condition(j).max()), 1e-3) + case.inexact
    return expect(gap(log_q, found), tolerance, "log_q - log_prob")


def _first(x: Tensor, context: Any, n: int) -> tuple[Tensor, Any]:
    return x[:n], None if context is None else tree_map(lambda t: t[:n], context)


def _refuses(f: Any) -> None:
    try:
        f()
    except DirectionError:
        return
    raise Failure("rsample_and_log_prob should raise DirectionError")


def check_batch_shapes(case: Case) -> float:
    """Any leading batch shape, contexts that broadcast, (*sample_shape, *batch, *event) for samples."""
    flow = _flow(case)
    x, context, noise = case.args
    expected = case.forward[0]
    n = len(x)
    lifted = x.reshape(n, 1, *flow.event_shape)

    def up(c: Any) -> Any:
        return tree_map(lambda t: t[:, None], c)

    found = flow.log_prob(lifted, up(context), noise=noise)
    error = expect(_gap(found, expected[:, None]), 1e-9, "log_prob of [n, 1, *event]")
    one = flow.log_prob(x[0], rows(context, 0), noise=rows(noise, slice(0, 1)))
    error = max(error, expect(_gap(one, expected[0]), 1e-9, "log_prob of one event"))
    if tuple(flow.encode(lifted, up(context)).shape) != (n, 1, *flow.latent_shape):
        raise Failure("encode does not keep the batch shape")
    if context is not None and not flow.transform.stochastic:
        grid = flow.log_prob(x[:, None], context)
        if tuple(grid.shape) != (n, n):
            raise Failure(f"x [{n}, 1] and context [{n}] give {tuple(grid.shape)}")
        error = max(error, expect(_gap(grid.diagonal(), expected), 1e-9, "broadcast context"))
    if flow.properties.inverse != "none":
        batch = () if context is None else (n,)
        for shape in ((), (2,), (2, 3)):
            got = flow.sample(shape, context)
            if tuple(got.shape) != (*shape, *batch, *flow.event_shape):
                raise Failure(f"sample({shape}) gives {tuple(got.shape)}")
            if flow.discrete == got.is_floating_point():
                raise Failure(f"sample gives {got.dtype}")
        view = flow.at(context)
        if tuple(view.sample((2,)).shape) != (2, *batch, *flow.event_shape):
            raise Failure("flow.at(context).sample has another shape")
    return error


def _gap(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        raise Failure(f"shape {tuple(a.shape)} where {tuple(b.shape)} was expected")
    return gap(a, b)


def check_chunks(case: Case) -> float:
    """batch_size= changes nothing but memory, in log_prob, encode, decode and sample."""
    flow = _flow(case)
    x, context, noise = case.args
    found = flow.log_prob(x, context, noise=noise, batch_size=2)
    error = expect(gap(found, case.forward[0]), 1e-9, "log_prob in chunks")
    z = flow.encode(x, context)
    error = max(error, expect(gap(flow.encode(x, context, batch_size=2), z), 1e-9, "encode"))
    if flow.properties.inverse != "none":
        back = [flow.decode(z, context, batch_size=b) for b in (2, None)]
        error = max(error, expect(gap(*back), 1e-9, "decode in chunks"))
        drawn = [
            flow.sample((2,), context, generator=_generator(1), batch_size=b) for b in (2, None)
        ]
        error = max(error, expect(gap(*drawn), 1e-9, "sample in chunks"))
    return error


def check_encode_decode(case: Case) -> float:
    """decode(encode(x)) = x: exact for integers."""
    flow = _flow(case)
    _invertible(flow)
    x, context, _ = case.args
    back = flow.decode(flow.encode(x, context), context)
    if flow.discrete:
        if not torch.equal(back.long(), x.long()):
            raise Failure(f"{int((back.long() != x.long()).sum())} integers of {x.numel()} change")
        # What sample gives, log_prob takes.
        found = flow.log_prob(x.to(back.dtype), context, noise=case.args[2])
        if not torch.equal(found, case.forward[0]):
            raise Failure(f"log_prob of {back.dtype} and of {x.dtype} differ")
        return 0.0
    if flow.dequantized:
        # Levels and real numbers together: a column that is off by one level is off by 1.
        return expect(float((back - x).detach().abs().max()), 1e-6, "decode(encode(x)) - x")
    j = jacobian(lambda v, c: flow.encode(v, c), (x, context))
    tolerance = 1e-9 + min(1e-13 * float(condition(j).max()), 1e-4) + case.inexact
    return expect(gap(back, x), tolerance, "decode(encode(x)) - x")


def check_generator(case: Case) -> float | None:
    """A generator, or torch's own seed, reproduces samples and noisy likelihoods."""
    flow = _flow(case)
    x, context, _ = case.args
    if flow.properties.inverse != "none":
        a, b, c = (flow.sample((3,), context, generator=_generator(s)) for s in (1, 1, 2))
        if not torch.equal(a, b) or torch.equal(a, c):
            raise Failure("samples do not follow the generator")
    if flow.transform.stochastic:
        p, q, r = (flow.log_prob(x, context, generator=_generator(s)) for s in (1, 1, 2))
        if not torch.equal(p, q) or torch.equal(p, r):
            raise Failure("log_prob does not follow the generator")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        first = flow.log_prob(x, context)
        torch.manual_seed(7)
        if not torch.equal(first, flow.log_prob(x, context)):
            raise Failure("log_prob does not follow torch's seed")
    return None


def check_temperature(case: Case) -> float:
    """The latent of sample(T) is that of T = 0 plus T times the deviation; a negative T is refused."""
    flow, context = _mild(case, 0.3).continuous, case.args[1]
    _invertible(flow)
    try:
        flow.sample((), context, temperature=-1.0)
    except InputError:
        pass
    else:
        raise Failure("temperature -1 is accepted")
    x = [flow.sample((2,), context, t, generator=_generator(3)) for t in (0.0, 0.5, 1.0)]
    z = [flow.encode(v, context) for v in x]
    return expect(gap(z[1], z[0] + 0.5 * (z[2] - z[0])), 1e-5, "the latent at temperature 1/2")


def check_support(case: Case) -> float | None:
    """log_prob is -inf or finite far out and outside, never NaN, never +inf; -inf for integers out of range."""
    flow = _flow(case)
    x, context, noise = case.args
    domain = flow.properties.domain
    if flow.discrete:
        assert domain is not None
        log_p = flow.log_prob(torch.full_like(x, int(domain.high) + 1), context, noise=noise)
        if not bool((log_p == -math.inf).all()):
            raise Failure(f"log_prob of {int(domain.high) + 1} is {log_p.tolist()}, not -inf")
        return None
    for value in (-1e4, -20.0, 20.0, 1e4):
        log_p = flow.log_prob(torch.full_like(x, value), context)
        if bool(log_p.isnan().any()) or bool((log_p == math.inf).any()):
            raise Failure(f"log_prob at {value:g} is {log_p.tolist()}")
    return None


def check_save_load(case: Case) -> float:
    """A saved and loaded flow gives the same bits, in the same dtype, with the same shapes."""
    flow = _flow(case)
    with tempfile.TemporaryDirectory() as folder:
        flow.save(folder)
        twin = load(folder)
    if (twin.dtype, twin.event_shape, twin.context_shape, twin.likelihood) != (
        flow.dtype,
        flow.event_shape,
        flow.context_shape,
        flow.likelihood,
    ):
        raise Failure("the loaded flow has another dtype, shape or likelihood")
    x, context, noise = case.args
    if not torch.equal(twin.log_prob(x, context, noise=noise), case.forward[0]):
        raise Failure("log_prob of the loaded flow is not bit-identical")
    return 0.0


def check_bits_per_dim(case: Case) -> float:
    """-log2 P / D for integers; refused for densities."""
    flow = _flow(case)
    x, context, _ = case.args
    if not flow.discrete:
        try:
            flow.bits_per_dim(x, context)
        except InputError:
            return 0.0
        raise Failure("a density has no bits per dimension, but one is given")
    bits = flow.bits_per_dim(x, context, generator=_generator(1))
    nats = flow.log_prob(x, context, generator=_generator(1))
    return expect(gap(-bits * math.log(2) * x[0].numel(), nats), 1e-12, "bits * D log 2 - nats")


def _statistics(case: Case) -> tuple[Any, Any, Tensor]:
    """Cell masses at the first context. Parameters of half the scale: wilder densities need a finer grid."""
    if case.stochastic:
        raise Skip("stochastic: not a density")
    flow = _mild(case, 0.5)
    _invertible(flow)
    size = math.prod(flow.event_shape)
    if size not in (1, 2):
        raise Skip("quadrature is for events of one or two entries")
    context = draw_context(flow.context_shape, 1, case.seed)
    context = None if context is None else rows(context, 0)
    samples = flow.sample((SAMPLES,), context, generator=_generator(case.seed)).reshape(-1, size)
    masses, grid = statistics(
        size,
        lambda x: flow.log_prob(x.reshape(-1, *flow.event_shape), context),
        samples,
        flow.properties.domain,
    )
    return masses, grid, samples


def check_integrates_to_one(case: Case) -> float:
    """The midpoint rule gives 1, to 2e-3; to 2e-2 where the density jumps at the edges of a bounded base."""
    bounded = _flow(case).base.domain != REAL
    return integral_is_one(_statistics(case)[0], 2e-2 if bounded else 2e-3)


def check_samples_follow(case: Case) -> float | None:
    """Chi-square of 20 000 samples against the density; p at least 1e-4."""
    masses, grid, samples = _statistics(case)
    samples_follow(samples, masses, grid)
    return None


PUBLIC_CHECKS: dict[str, Check] = {
    "log_prob_identity": check_log_prob_identity,
    "sample_log_prob": check_sample_log_prob,
    "encode_decode": check_encode_decode,
    "batch_shapes": check_batch_shapes,
    "chunks": check_chunks,
    "generator": check_generator,
    "temperature": check_temperature,
    "support": check_support,
    "bits_per_dim": check_bits_per_dim,
    "save_load": check_save_load,
    "integrates_to_one": check_integrates_to_one,
    "samples_follow": check_samples_follow,
}
