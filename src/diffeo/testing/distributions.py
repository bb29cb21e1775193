"""check_distribution: a base integrates to 1, its samples follow it, and temperature and seeds do what they say."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..distributions import Distribution
from ..properties import REAL
from .behaviour import BEHAVIOUR_CHECKS
from .bijection import check_double_backward, check_gradcheck
from .case import Case, expect, gap, rows
from .execution import COPY_CHECKS, RUN_CHECKS
from .randomize import draw_context, draw_event, randomize
from .report import Check, Failure, Report, Skip, run
from .statistics import Grid, cell_masses, integral_is_one, samples_follow

SAMPLES = 20_000


def check_distribution(
    distribution: Distribution,
    *,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    backend: str = "aot_eager",
    seed: int = 0,
    scale: float = 1.0,
    batch: int = 4,
) -> Report:
    """Test a base with parameters far from initialization. The statistics need an event of one or two entries.

    Raises CheckFailed, which lists every failed check by name.

    >>> from diffeo.distributions import Logistic
    >>> check_distribution(Logistic((1,)), checks=["integrates_to_one"]).passed
    ('integrates_to_one',)
    """
    module = randomize(copy.deepcopy(distribution).double().eval(), seed, scale)
    assert isinstance(module, Distribution)
    args = (
        draw_event(module.domain, module.event_shape, batch, seed),
        draw_context(module.context_shape, batch, seed),
    )
    name = f"{type(distribution).__name__}{distribution.event_shape}"
    case = Case(name=name, module=module, args=args, backend=backend, seed=seed)
    return run(name, [(DISTRIBUTION_CHECKS, case)], checks, skip)


def _distribution(case: Case) -> Distribution:
    assert isinstance(case.module, Distribution)
    return case.module


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def check_log_prob_shape_dtype(case: Case) -> float | None:
    """log_prob is [batch], in the input's dtype, for any batch; finite on the support."""
    d = _distribution(case)
    for n in (len(case.args[0]), 1, 0):
        log_p = d.log_prob(*rows(case.args, slice(0, n)))
        if tuple(log_p.shape) != (n,) or log_p.dtype != torch.float64:
            raise Failure(f"{log_p.dtype} {tuple(log_p.shape)} for a batch of {n} in float64")
        if not bool(log_p.isfinite().all()):
            raise Failure(f"log_prob is {log_p.tolist()} inside the support")
    return None


def statistics(
    size: int, log_prob: Callable[[Tensor], Tensor], samples: Tensor, domain: Any
) -> tuple[Tensor, Grid]:
    """The masses of the cells of a grid; Skip for events of more than two entries."""
    if size not in (1, 2):
        raise Skip("quadrature is for events of one or two entries")
    grid = Grid.of(samples, domain)
    return cell_masses(log_prob, grid, size), grid


def _masses(case: Case) -> tuple[Tensor, Grid, Tensor]:
    d = _distribution(case)
    size = math.prod(d.event_shape)

    def fixed(n: int) -> Any:
        return rows(case.args[1], torch.zeros(n, dtype=torch.long))

    with torch.no_grad():
        samples = d.sample(SAMPLES, fixed(SAMPLES), generator=_generator(case.seed))
    samples = samples.reshape(SAMPLES, size)
    masses, grid = statistics(
        size,
        lambda z: d.log_prob(z.reshape(-1, *d.event_shape), fixed(len(z))),
        samples,
        d.domain,
    )
    return masses, grid, samples


def check_integrates_to_one(case: Case) -> float:
    """The midpoint rule gives 1, to 1e-3."""
    return integral_is_one(_masses(case)[0], 1e-3)


def check_samples_follow(case: Case) -> float | None:
    """Chi-square of 20 000 samples against the density; p at least 1e-4."""
    masses, grid, samples = _masses(case)
    samples_follow(samples, masses, grid)
    return None


def check_sample(case: Case) -> float | None:
    """Shape, dtype, support; a generator reproduces samples, and nothing else does."""
    d = _distribution(case)
    for n in (4, 1, 0):
        context = rows(case.args[1], slice(0, n))
        z = d.sample(n, context, generator=_generator(1))
        if tuple(z.shape) != (n, *d.event_shape) or z.dtype != torch.float64:
            raise Failure(f"{z.dtype} {tuple(z.shape)} for {n} samples in float64")
        if n and not bool(d.log_prob(z, context).isfinite().all()):
            raise Failure("a sample lies outside the support")
        if gap(d.sample(n, context, generator=_generator(1)), z) != 0:
            raise Failure("a generator does not reproduce samples")
        if n and gap(d.sample(n, context, generator=_generator(2)), z) == 0:
            raise Failure("another generator gives the same samples")
    state = torch.get_rng_state()
    d.sample(4, case.args[1], generator=_generator(1))
    if not torch.equal(state, torch.get_rng_state()):
        raise Failure("sample with a generator draws from torch's own")
    single = copy.deepcopy(d).float()
    context = draw_context(d.context_shape, 4, case.seed)
    context = None if context is None else _float(context)
    if single.sample(4, context).dtype != torch.float32:
        raise Failure("samples of a float32 base are not float32")
    return None


def _float(context: Any) -> Any:
    return (
        {k: v.float() for k, v in context.items()} if isinstance(context, dict) else context.float()
    )


def check_temperature(case: Case) -> float:
    """sample(T) = sample(0) + T (sample(1) - sample(0)) under the same generator."""
    d = _distribution(case)
    z = [d.sample(4, case.args[1], temperature=t, generator=_generator(3)) for t in (0.0, 0.5, 1.0)]
    return expect(gap(z[1], z[0] + 0.5 * (z[2] - z[0])), 1e-12, "temperature 1/2")


def check_support(case: Case) -> float | None:
    """-inf outside the support and for infinite values, never NaN, never +inf; finite far out on the real line."""
    d = _distribution(case)
    z, context = rows(case.args, slice(0, 1))
    for value in (1e4, -1e4, math.inf, -math.inf):
        log_p = d.log_prob(torch.full_like(z, value), context)
        if bool(log_p.isnan().any()) or bool((log_p == math.inf).any()):
            raise Failure(f"log_prob at {value:g} is {log_p.tolist()}")
        if d.domain != REAL and bool(log_p.isfinite().any()):
            raise Failure(f"log_prob at {value:g}, outside {d.domain}, is {log_p.tolist()}")
    return None


def check_reparameterized(case: Case) -> float | None:
    """Samples carry gradients to the parameters exactly where that is declared."""
    d = _distribution(case)
    params = [p for p in d.parameters() if p.requires_grad]
    if not params:
        raise Skip("no parameters")
    z = d.sample(4, case.args[1], generator=_generator(1))
    if d.reparameterized:
        if not z.requires_grad:
            raise Failure("declared, but samples have no gradient")
        grads = torch.autograd.grad(z.square().sum(), params, allow_unused=True)
        if any(g is None for g in grads):
            raise Failure("declared, but samples do not reach every parameter")
    return None


DISTRIBUTION_CHECKS: dict[str, Check] = {
    "log_prob_shape_dtype": check_log_prob_shape_dtype,
    "integrates_to_one": check_integrates_to_one,
    "samples_follow": check_samples_follow,
    "sample": check_sample,
    "temperature": check_temperature,
    "support": check_support,
    "reparameterized": check_reparameterized,
    "gradcheck": check_gradcheck,
    "double_backward": check_double_backward,
    **{k: v for k, v in BEHAVIOUR_CHECKS.items() if k != "initialization"},
    **COPY_CHECKS,
    **RUN_CHECKS,
}
