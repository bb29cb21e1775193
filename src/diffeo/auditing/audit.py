"""The audit of a flow: round trips, ladj against autograd, Lipschitz constants, tails; whole, and layer by layer."""

from __future__ import annotations

import contextlib
import math
import random
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import DiffeoError, DirectionError, InputError
from ..fixed_points import recording
from ..flow import Flow
from ..solving import evaluations
from ..testing.case import leaves
from ..testing.case import rows as take
from ..transforms import Continuous
from .determinant import LARGEST, full
from .findings import broken_containers, findings, ordered, unrepresented
from .layers import measure, relative, stretch
from .lipschitz import DENSE, gaussian, total_variation_bound
from .points import BATCH, Copy, choose
from .record import Call, largest
from .result import Audit, Finding, LayerAudit, RoundTrip

STEPS = 10  # of power iteration
TAIL = 4.0
_DRAWN = 1 << 19
_SPOTS = 16  # examples, and as many samples, where whole Jacobians are taken
_LAW = 4096  # examples that stand for the law of the data


@torch.no_grad()
def audit(flow: Flow, x: Tensor, context: Any = None, *, seed: int = 0, rows: int = 256) -> Audit:
    """Check a flow on examples x [*batch, *event_shape], under a context [*batch, *context_shape] if it takes one.

    rows: at most this many examples, chosen under `seed`; fewer where they are large (about 16,384 entries in all, at
    least 16), and as many draws of the base. The flow itself is not touched; everything runs in eval mode.

    In the flow's dtype: the round trips data -> latent -> data and latent -> data -> latent, whole, and of every layer
    on what it sees in the model; whether likelihoods are finite; log-scales, and latents in the tails. In float64, on a
    few points: the same round trips, log_prob, ladj against log|det| of the autograd Jacobian, ladj of the inverse, and
    Lipschitz constants of map and inverse: the singular values of whole Jacobians up to 32 entries, beyond by power
    iteration (the largest over the points; lower bounds, in two ways). Beside them the certified constants, upper
    bounds from what the layers state, and the total variation that they force between these data and any model.

    What ladj is compared with depends on the number D of entries of a layer. Up to 64, and where no structure is found
    up to 256 (vectors: 1,024): the full Jacobian. Beyond: a structure that products with random vectors prove (a
    rearrangement, a coupling, one matrix per pixel), whose determinant is exact, so that a wrong ladj of any size is
    found. Where there is none, a bracket by stochastic Lanczos quadrature of map and inverse, whose width grows with
    the conditioning: it finds a wrong sign of a large ladj or missing terms of many nats, not a few nats. The whole is
    compared with its full Jacobian up to D = 256, beyond with the sum over its layers. Of an estimate of
    at most 64 entries the mean of 64 draws is compared, with 8 standard errors and the bias that the layer states; the
    verdict says where nothing was, as where the likelihood is a bound.

    Raises ShapeError or InputError for an x or a context that does not fit, that is empty, or not finite.
    """
    if rows < 1:
        raise InputError(f"rows must be at least 1, got {rows}")
    given = choose(flow, x, context, seed, rows)
    every = x.reshape(-1, *flow.event_shape)
    every = every[sorted(random.Random(seed).sample(range(len(every)), min(len(every), _LAW)))]
    same = Copy(flow)
    generator = torch.Generator(flow.device).manual_seed(seed)
    x, context = same.place(given.x), same.place(given.context)
    n = len(x)
    noise = same.flow.transform.draw(n, generator=generator, like=same.flow.base.like)
    v, inner = same.smooth(x, context, noise)
    with recording() as searches:
        z, log_prob = same.forward(v, context, inner)
    if flow.discrete:
        z = same.flow.encode(x, context, batch_size=BATCH)
        log_prob = same.flow.log_prob(x, context, batch_size=BATCH, noise=noise)
    good = log_prob.isfinite() & _finite(z)
    extra = [] if bool(good.all()) else [unrepresented(same, x, context, noise, good, given.picks)]

    drawn = same.real.base.sample(n, same.embed(context), generator=generator)
    made, fine = torch.full_like(v, math.nan), torch.zeros_like(good)
    data = latent = None
    try:
        with recording() as more:
            back = same.flow.decode(z, context, batch_size=BATCH)
        searches += more
        data = _trip(back[good], x[good], torch.tensor(given.picks)[good.cpu()])
        made = same.real.decode(drawn, context, batch_size=BATCH)
        again, likelihood = same.forward(made, context, inner)
        latent = _trip(again, drawn, torch.arange(n))
        fine = _finite(made) & _finite(again) & likelihood.isfinite()
    except DirectionError as error:
        extra.append(Finding("note", "", f"there are no round trips: {error}"))
    except DiffeoError as error:
        extra.append(Finding("error", "", f"the inverse fails: {error}"))
    found = Audit(
        rows=n,
        seed=seed,
        dtype=flow.dtype,
        discrete=flow.discrete,
        likelihood=flow.likelihood,
        finite=log_prob.isfinite().double().mean().item(),
        edge=0.0 if latent is None else 1 - fine.double().mean().item(),
        data=data,
        latent=latent,
        evaluations=_evaluations(same, v[good], take(context, good)),
        steps=max((int(s.steps.max()) for _, s in searches if len(s.steps)), default=None),
        **_tails(z[good], same, context, generator),
        **_certified(same, every),
    )

    # Layers are tried on examples and on samples alike.
    real, sampled = (
        [take(t, m) for t in (a, context, inner)] for a, m in ((v, good), (made, fine))
    )

    def points(count: int) -> tuple[Any, ...]:
        some = slice(0, count)
        return tuple(
            _join(take(a, some), take(b, some)) for a, b in zip(real, sampled, strict=True)
        )

    few = points((4 if flow.event_size <= 128 else 1) * (1 if bool(fine.any()) else 2))
    if len(few[0]):
        wide = Copy(flow, torch.float64)
        many, exact = same.record(*points(max(1, n // 2))), wide.record(*wide.place(few))
        # Half precision has too few digits for derivatives.
        near = exact if torch.finfo(flow.dtype).bits < 32 else same.record(*few)
        found = replace(found, points=len(few[0]), layers=_layers(many, near, exact, seed))
        spots = exact
        if flow.event_size <= DENSE:
            spots = wide.record(*wide.place(points(_SPOTS)))
        found = _whole(found, near, exact, spots, seed)
        found = _against_double(found, same, wide, few, exact)
        extra += broken_containers(exact, found)
    return replace(found, findings=ordered([*extra, *findings(found)]))


def _layers(many: Call, near: Call, exact: Call, seed: int) -> tuple[LayerAudit, ...]:
    calls = zip(many.leaves(), near.leaves(), exact.leaves(), strict=True)
    return tuple(
        measure(a, b, c, torch.Generator(c.x.device).manual_seed(seed)) for a, b, c in calls
    )


def _evaluations(same: Copy, x: Tensor, context: Any) -> dict[str, int] | None:
    """Of continuous layers, if there are any; what stops them is told elsewhere."""
    if not any(isinstance(m, Continuous) for m in same.real.modules()):
        return None
    with contextlib.suppress(DiffeoError):
        return evaluations(same.real, x, context)
    return None


def _certified(same: Copy, x: Tensor) -> dict[str, Any]:
    """The constants that the layers state, and the total variation that they force."""
    first, second = same.real.transform.lipschitz_bounds()
    base, forced = same.real.base, None
    real = not same.flow.discrete and same.flow.context_shape is None
    if first is not None and real and len(x) >= 4 and gaussian(base):
        forced = total_variation_bound(base, x, lipschitz=first)
    return {
        "certified_lipschitz": first,
        "certified_inverse_lipschitz": second,
        "total_variation": forced,
    }


def _whole(found: Audit, near: Call, exact: Call, spots: Call, seed: int) -> Audit:
    """ladj and Lipschitz constants of the whole flow."""
    generator = torch.Generator(exact.x.device).manual_seed(seed)
    summed = torch.stack([leaf.ladj for leaf in exact.leaves()]).sum(0)
    found = replace(
        found, ladj_error=largest(exact.ladj - summed), ladj_method="the sum over its layers"
    )
    properties, drawn = exact.transform.properties, exact.transform.stochastic
    if properties.kind == "bound" or (drawn and properties.kind == "exact"):
        return found
    if exact.x[0].numel() != exact.z[0].numel():
        return found
    if exact.x[0].numel() <= LARGEST and not drawn and properties.kind == "exact":
        # What cannot be differentiated is named layer by layer.
        with contextlib.suppress(RuntimeError, NotImplementedError):
            det = full(lambda x, rows: exact.forward(x, rows)[0], exact.x)
            found = replace(
                found,
                ladj_error=largest(exact.ladj[det.rows] - det.value),
                ladj_tolerance=largest(det.tolerance),
                ladj_method=det.method,
            )
    return replace(found, **stretch(near, spots, STEPS, generator))


def _against_double(
    found: Audit, same: Copy, wide: Copy, few: tuple[Any, ...], exact: Call
) -> Audit:
    """The same map in float64: log_prob and round trips; and which layer's own round trip is worst."""
    v, context, noise = few
    worst = max(found.layers, key=lambda layer: layer.round_trip or 0.0, default=None)
    path = "" if worst is None or not worst.round_trip else worst.path
    ours = same.real.log_prob(v, context, noise=noise).double().to(exact.x.device)
    theirs = wide.real.log_prob(*wide.place((v, context)), noise=wide.place(noise))
    data, latent = found.data, found.latent
    if data is not None and latent is not None:
        back, _ = exact.inverse(exact.z)
        again, _ = exact.forward(back)
        data = replace(data, layer=path, double=relative(back, exact.x))
        latent = replace(latent, layer=path, double=relative(again, exact.z))
    return replace(found, data=data, latent=latent, log_prob_error=largest(ours - theirs))


def _trip(back: Tensor, x: Tensor, number: Tensor) -> RoundTrip:
    gap = (back.double() - x.double()).abs().nan_to_num(nan=math.inf, posinf=math.inf).flatten(1)
    if not gap.numel():
        return RoundTrip(0.0, 0.0, -1)
    worst = int(gap.amax(1).argmax())
    return RoundTrip(gap.max().item(), relative(back, x), int(number[worst]))


def _tails(z: Tensor, same: Copy, context: Any, generator: torch.Generator) -> dict[str, Any]:
    """Shares of latents beyond TAIL: of the data, of the base, and of the worst entry."""
    base = same.real.base
    size = math.prod(base.event_shape)
    rows = len(given[0]) if (given := leaves(context)) else 1 + _DRAWN // size
    times = min(64, 1 + _DRAWN // (rows * size))
    embedded = same.embed(context)
    draws = [base.sample(rows, embedded, generator=generator) for _ in range(times)]
    beyond = (z.flatten(1).abs() > TAIL).double().mean(0).nan_to_num(nan=0.0)
    worst = int(beyond.argmax())
    return {
        "tails": beyond.mean().item(),
        "expected_tails": (torch.stack(draws).abs() > TAIL).double().mean().item(),
        "tail_dimension": worst,
        "worst_tail": beyond[worst].item(),
        "largest_latent": largest(z),
    }


def _finite(x: Tensor) -> Tensor:
    return x.double().isfinite().reshape(len(x), -1).all(1)


def _join(a: Any, b: Any) -> Any:
    """Rows of b after those of a."""
    if isinstance(a, Tensor):
        return torch.cat((a, b))
    if isinstance(a, dict):
        return {k: _join(v, b[k]) for k, v in a.items()}
    return tuple(map(_join, a, b)) if isinstance(a, tuple) else a
