"""check_transform: the whole contract of a Transform, and the promises that it declares."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..errors import DirectionError, InputError
from ..properties import REAL, Domain
from ..transforms import Chain, Transform
from .behaviour import BEHAVIOUR_CHECKS
from .bijection import BIJECTION_CHECKS
from .case import Case, cast, expect, gap, rows
from .execution import COPY_CHECKS, RUN_CHECKS
from .randomize import draw_context, draw_event, randomize
from .report import Check, Failure, Report, Skip, run

ITERATIVE = 1e-6
"""Relative tolerance that a direction declared `iterative` adds."""


def check_transform(
    transform: Transform,
    x: Tensor | None = None,
    context: Any = None,
    *,
    checks: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    backend: str = "aot_eager",
    seed: int = 0,
    scale: float = 1.0,
    batch: int = 4,
    randomized: bool = True,
) -> Report:
    """Test a transform against its contract; see `TRANSFORM_CHECKS` for the names of the checks.

    Works on a float64 copy in eval mode whose parameters are drawn far from initialization (`randomize` with `scale`;
    as they are with randomized=False). x, context: `batch` rows drawn inside the declared domain if not given. backend:
    of torch.compile; `none` leaves it out.

    Raises CheckFailed, which lists every failed check by name with its numbers.

    >>> from diffeo.transforms import ActNorm
    >>> check_transform(ActNorm((3,)), checks=["jacobian", "round_trip"]).passed
    ('jacobian', 'round_trip')
    """
    case = transform_case(transform, x, context, backend, seed, scale, batch, randomized)
    return run(transform.name, [(TRANSFORM_CHECKS, case)], checks, skip)


def transform_case(
    transform: Transform,
    x: Tensor | None = None,
    context: Any = None,
    backend: str = "aot_eager",
    seed: int = 0,
    scale: float = 1.0,
    batch: int = 4,
    randomized: bool = True,
) -> Case:
    """A transform with its arguments: x in its domain, z in its codomain, and not the image of x."""
    module = copy.deepcopy(transform).double().eval()
    if randomized:
        randomize(module, seed, scale)
    promised = module.properties
    if x is None:
        x = draw_event(promised.domain, module.event_shape, batch, seed)
    elif tuple(x.shape[1:]) != module.event_shape:
        raise InputError(
            f"{module.name} takes [batch, *{module.event_shape}], got {tuple(x.shape)}"
        )
    x = cast(x.detach(), torch.float64)
    if context is None:
        context = draw_context(module.context_shape, len(x), seed)
    context = cast(context, torch.float64)
    args: tuple[Any, ...] = (x, context)
    if module.stochastic:
        g = torch.Generator().manual_seed(seed)
        like = torch.zeros((), dtype=torch.float64)
        args = (*args, module.draw(len(x), generator=g, like=like))
    elif promised.forward == "none":
        raise InputError(f"{module.name} has no forward direction: check Inverse of it")
    z = None
    if promised.inverse != "none":
        if any(isinstance(part, Chain) for part in module.modules()) and not module.stochastic:
            z = _images(module, context, len(x), seed)
        else:
            z = draw_event(
                promised.codomain or promised.domain, module.latent_shape, len(x), seed + 2
            )
        z = cast(z, torch.float64)
    iterative = "iterative" in (promised.forward, promised.inverse)
    return Case(
        name=module.name,
        module=module,
        args=args,
        inverse_args=None if z is None else (z, context),
        stochastic=module.stochastic,
        backend=backend,
        seed=seed,
        inexact=ITERATIVE if iterative else 0.0,
    )


@torch.no_grad()
def _images(t: Transform, context: Any, n: int, seed: int) -> Tensor:
    """Images of other data, moved a little: what a deep chain can be expected to invert in float64."""
    x = draw_event(t.properties.domain, t.event_shape, n, seed + 2)
    z: Tensor = t(x, context)[0]
    g = torch.Generator().manual_seed(seed)
    step = 0.1 * torch.randn(z.shape, generator=g, dtype=z.dtype)
    return z + step if t.properties.codomain in (None, REAL) else z


def check_declared_properties(case: Case) -> float | None:
    """Constant ladj, volume, domains, bounds, directions and levels are what the transform declares."""
    t = case.module
    assert isinstance(t, Transform)
    promised = t.properties
    z, ladj = case.forward
    if promised.volume_preserving and bool((ladj != 0).any()):
        raise Failure(f"volume_preserving, but ladj is {ladj.tolist()}")
    if promised.volume_preserving and not promised.constant_ladj:
        raise Failure("volume_preserving but not constant_ladj")
    if promised.constant_ladj:
        # Constant in x: the context, if there is one, stays.
        same = (case.args[0], rows(case.args[1], torch.zeros(len(z), dtype=torch.long)))
        found = case.apply(t, (*same, *case.args[2:]))[1]
        expect(gap(found, found[:1].expand_as(found)), 1e-12, "constant_ladj, but it varies by")
    if tuple(z.shape[1:]) != t.latent_shape:
        raise Failure(f"latent_shape is {t.latent_shape}, but forward gives {tuple(z.shape[1:])}")
    _inside(z, promised.codomain, "forward leaves the codomain")
    if case.inverse_args is None:
        _raises(lambda: t.inverse(z, case.args[1]), "inverse")
    else:
        x = case.inverse[0]
        if tuple(x.shape[1:]) != t.event_shape:
            raise Failure(f"event_shape is {t.event_shape}, but inverse gives {tuple(x.shape[1:])}")
        if not any(isinstance(part, Chain) for part in t.modules()):
            # In a chain a part may invert more than the part before it declares, as a logit with alpha > 0.
            _inside(x, promised.domain, "inverse leaves the domain")
    if not case.stochastic and t.event_shape and z[0].numel() == case.args[0][0].numel():
        s = torch.linalg.svdvals(case.jacobian)
        for name, bound, value in (
            ("lipschitz", promised.lipschitz, float(s.max())),
            ("inverse_lipschitz", promised.inverse_lipschitz, 1 / float(s.min())),
        ):
            if bound is not None and value > bound * (1 + 1e-6):
                raise Failure(f"{name} is declared {bound:.6g}, but a Jacobian has {value:.6g}")
    _levels(t)
    return None


def _inside(value: Tensor, domain: Domain | None, what: str) -> None:
    if domain is None or domain == REAL:
        return
    slack = 1e-9 * max(1.0, *(abs(b) for b in (domain.low, domain.high) if math.isfinite(b)))
    low, high = float(value.detach().min()), float(value.detach().max())
    if low < domain.low - slack or high > domain.high + slack:
        raise Failure(f"{what} {domain}: values from {low:g} to {high:g}")


def _raises(f: Callable[[], Any], what: str) -> None:
    try:
        f()
    except DirectionError as error:
        if not str(error):
            raise Failure(f"the error of the missing {what} says nothing") from error
        return
    raise Failure(f"{what} is declared `none`, but does not raise DirectionError")


def _levels(t: Transform) -> None:
    at = 0
    for level in t.levels:
        size = math.prod(level.shape)
        if (level.slice.start, level.slice.stop) != (at, at + size):
            raise Failure(f"level {level} does not follow entry {at} of the latent")
        at += size
    if at != math.prod(t.latent_shape):
        raise Failure(f"the levels hold {at} entries, the latent {math.prod(t.latent_shape)}")


def check_noise(case: Case) -> float | None:
    """Noise differs between examples and calls, comes again from a generator, and alone decides the outcome."""
    t = case.module
    assert isinstance(t, Transform)
    if not case.stochastic:
        raise Skip("deterministic")
    # Of an estimate, the noise is in ladj alone, and random signs are alike now and then: many examples.
    estimate = t.properties.kind == "estimate"
    n = 32 if estimate else len(case.args[0])
    # One example, repeated: what differs between the rows is the noise.
    x, context = rows(case.args[:2], torch.zeros(n, dtype=torch.long))
    like = torch.zeros((), dtype=torch.float64)

    def latent(seed: int | None, center: bool = False) -> Tensor:
        g = None if seed is None else torch.Generator().manual_seed(seed)
        noise = t.draw(n, generator=g, center=center, like=like)
        z, ladj = t(x, context, noise)
        return torch.cat((z.flatten(1), ladj[:, None]), dim=1) if estimate else z

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        free = latent(None)
        torch.manual_seed(case.seed)
        again, other = latent(None), latent(None)
        drawn = latent(1)
        torch.manual_seed(case.seed + 1)
        redrawn, different, center = latent(1), latent(2), latent(None, center=True)
    alike = [i for i in range(1, n) if gap(free[i], free[0]) < 1e-9]
    if len(alike) > (n // 2 if estimate else 0):
        raise Failure(f"examples 0 and {alike[0]} get the same noise")
    if gap(free, again) != 0:
        raise Failure("the ordinary torch seed does not reproduce the noise")
    if gap(free, other) < 1e-9 or gap(drawn, different) < 1e-9:
        raise Failure("every call gets the same noise")
    if gap(drawn, redrawn) != 0:
        raise Failure("a generator does not reproduce the noise")
    return expect(
        gap(center[1:], center[:1].expand_as(center[1:])), 1e-9, "the centre is no constant"
    )


def check_integers(case: Case) -> float | None:
    """Integers come back whatever the noise, centred or extreme; integers out of range get ladj -inf."""
    t = case.module
    assert isinstance(t, Transform)
    domain = t.properties.domain
    if domain is None or not domain.integer:
        raise Skip("no integers")
    x, context = case.args[:2]
    for dtype in (torch.float64, torch.float32):
        module, c = copy.deepcopy(t).to(dtype), cast(context, dtype)
        like = torch.zeros((), dtype=dtype)
        g = torch.Generator().manual_seed(case.seed)
        noises = [module.draw(len(x), center=True, like=like)]
        noises += [module.draw(len(x), generator=g, like=like) for _ in range(3)]
        drawn = noises[-1]
        if isinstance(drawn, Tensor):
            highest = 1 - torch.finfo(dtype).eps / 2
            noises += [torch.full_like(drawn, v) for v in (0.0, highest)]
        for noise in noises:
            z, ladj = module(x, c, noise)
            if domain.high <= 255:
                narrow = module(x.to(torch.uint8), c, noise)
                if gap(narrow, (z, ladj)) != 0:
                    raise Failure("uint8 gives another value or ladj than int64")
            back = module.inverse(z, c)[0]
            if back.is_floating_point():
                raise Failure(f"the inverse gives {back.dtype}, not integers")
            if not torch.equal(back.long(), x.long()):
                raise Failure(f"in {dtype} {int((back.long() != x.long()).sum())} integers change")
    beyond = torch.full_like(x, int(domain.high) + 1)
    ladj = t(beyond, *case.args[1:])[1]
    if not bool((ladj == -math.inf).all()):
        raise Failure(f"ladj of {int(domain.high) + 1}, out of range, is {ladj.tolist()}, not -inf")
    return None


TRANSFORM_CHECKS: dict[str, Check] = {
    **BIJECTION_CHECKS,
    **BEHAVIOUR_CHECKS,
    "declared_properties": check_declared_properties,
    "noise": check_noise,
    "integers": check_integers,
    **COPY_CHECKS,
    **RUN_CHECKS,
}
