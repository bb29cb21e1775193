"""From numbers to words: what is wrong with a flow, and in which layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..testing.case import rows as take
from .layers import relative
from .points import Copy
from .record import largest
from .result import SEVERITIES, Audit, Finding, LayerAudit

EXACT, ITERATIVE = 1e-7, 1e-4  # relative round trip in float64, of formulas and of iterations
LADJ = 1e-6  # nats, and relative
STEEP = 8.0  # log-scale: a factor of 3000
CONDITION = 1e6
BOUND = 1e-3  # relative excess over a certified constant that rounding explains
_ROUNDING = 50  # rounding units that a sound layer may lose


def ordered(found: list[Finding]) -> tuple[Finding, ...]:
    """Errors first."""
    return tuple(sorted(found, key=lambda f: SEVERITIES.index(f.severity)))


def findings(audit: Audit) -> list[Finding]:
    """What the numbers of an audit say."""
    found = [f for layer in audit.layers for f in _layer(audit, layer)]
    broken = any(f.severity == "error" for f in found)
    return [*found, *_whole(audit, broken), *_latents(audit)]


# -- the whole ------------------------------------------------------------------------------------------------------


def _whole(audit: Audit, explained: bool) -> Iterator[Finding]:
    data, latent = audit.data, audit.latent
    dtype = _name(audit.dtype)
    if data is not None and data.absolute > (
        0 if audit.discrete else audit.tolerance * _scale(data)
    ):
        wanted = "exactly" if audit.discrete else f"to a relative {audit.tolerance:.0e}"
        yield Finding(
            "error",
            data.layer,
            f"data do not come back {wanted} in {dtype}: the worst error is {data.absolute:.2g} (relative "
            f"{data.relative:.1e}, row {data.example}){_blame(audit)}{_in_double(data.double)}, so the latents do "
            "not stand for the data",
        )
    if latent is not None and latent.relative > audit.tolerance:
        wrong = latent.double is not None and latent.double > ITERATIVE
        yield Finding(
            "error" if wrong else "warning",
            latent.layer,
            f"latents come back only to {latent.absolute:.2g} (relative {latent.relative:.1e}) in {dtype}"
            f"{_blame(audit)}{_in_double(latent.double)}: some samples lie where the map is steep for this "
            "precision",
        )
    if audit.ladj_error is not None and not explained:
        value = _tolerated(audit.ladj_error, audit.ladj_tolerance)
        if value > LADJ * 100:
            yield Finding(
                "error",
                "",
                f"ladj of the whole is off by {audit.ladj_error:.3g} nats from {_against(audit.ladj_method)}, and "
                "no single layer explains it",
            )
    if audit.log_prob_error is not None and audit.log_prob_error > 0.1:
        yield Finding(
            "warning",
            "",
            f"log_prob in {dtype} is up to {audit.log_prob_error:.2g} nats away from float64",
        )


def _latents(audit: Audit) -> Iterator[Finding]:
    if audit.edge > 0:
        yield Finding(
            "warning",
            "",
            f"{audit.edge:.1%} of the base's draws decode, by rounding in {_name(audit.dtype)}, to where the "
            "likelihood is not finite",
        )
    if audit.tails > max(0.01, 10 * audit.expected_tails):
        yield Finding(
            "warning",
            "",
            f"{audit.tails:.1%} of the data's latents lie beyond |z| = 4, where the base has "
            f"{audit.expected_tails:.2g}: the model does not cover these data",
        )
    elif audit.worst_tail > max(0.05, 10 * audit.expected_tails):
        yield Finding(
            "warning",
            "",
            f"latent {audit.tail_dimension} lies beyond |z| = 4 for {audit.worst_tail:.1%} of the data, where the base "
            f"has {audit.expected_tails:.2g}",
        )


# -- a layer --------------------------------------------------------------------------------------------------------


def _layer(audit: Audit, layer: LayerAudit) -> Iterator[Finding]:
    where = f"{layer.path} ({layer.name})"
    if layer.remark:
        failed = layer.round_trip == math.inf or "finite" in layer.remark
        yield Finding("error" if failed else "note", layer.path, f"{where}: {layer.remark}")
    exact = layer.round_trip_double
    condition = layer.conditioning or 0.0
    allowed = max(ITERATIVE if layer.iterative else EXACT, min(1e-13 * condition, 1e-2))
    if exact is not None and exact > allowed:
        yield Finding(
            "error",
            layer.path,
            f"{where}: its inverse does not undo its forward, by a relative {exact:.1e} in float64",
        )
    elif layer.round_trip is not None and layer.round_trip > audit.tolerance and exact is not None:
        yield Finding(
            "warning",
            layer.path,
            f"{where}: a round trip loses a relative {layer.round_trip:.1e} in {_name(audit.dtype)}, where float64 "
            f"loses {exact:.1e}: it is too steep for this precision",
        )
    yield from _constants(layer, where)
    yield from _volume(layer, where)
    yield from _steepness(audit, layer, where)


def _constants(layer: LayerAudit, where: str) -> Iterator[Finding]:
    for who, found, bound in (
        ("it", layer.lipschitz, layer.certified_lipschitz),
        ("its inverse", layer.inverse_lipschitz, layer.certified_inverse_lipschitz),
    ):
        if found is not None and bound is not None and found > bound * (1 + BOUND):
            yield Finding(
                "error",
                layer.path,
                f"{where}: {who} stretches by {found:.3g}, more than its certified {bound:.3g}: a wrong constant, or "
                "power iterations that do not belong to these weights (refresh)",
            )
            return


def _volume(layer: LayerAudit, where: str) -> Iterator[Finding]:
    if layer.ladj is not None and layer.log_det is not None and layer.ladj_error is not None:
        allowed = LADJ * max(1.0, abs(layer.log_det)) if math.isfinite(layer.log_det) else 0.0
        if layer.log_det == -math.inf:
            yield Finding("error", layer.path, f"{where}: its Jacobian is singular")
            return
        if _tolerated(layer.ladj_error, layer.ladj_tolerance) > allowed:
            sign = abs(layer.ladj + layer.log_det) <= max(allowed, layer.ladj_tolerance)
            yield Finding(
                "error",
                layer.path,
                f"{where}: its ladj is {layer.ladj:.6g}, but {_against(layer.method)} is {layer.log_det:.6g}, "
                + ("so its sign is wrong" if sign else f"{layer.ladj_error:.3g} nats apart"),
            )
            return
    gap = layer.inverse_ladj_error
    if gap is not None and gap > 1e-5 * max(1.0, abs(layer.ladj or 0.0)) and not layer.iterative:
        yield Finding(
            "error",
            layer.path,
            f"{where}: the ladj of its inverse is not minus that of its forward, by {gap:.3g} nats",
        )


def _steepness(audit: Audit, layer: LayerAudit, where: str) -> Iterator[Finding]:
    # A fixed scaling of each entry is a change of units, however large.
    if not layer.constant and layer.log_scale > STEEP:
        factor = math.exp(min(layer.log_scale, 700.0))
        yield Finding(
            "warning",
            layer.path,
            f"{where}: its log-scale reaches {layer.log_scale:.3g}, a factor of {factor:.1e} on one entry",
        )
    limit = min(CONDITION, 1e-3 / torch.finfo(audit.dtype).eps)
    condition = layer.conditioning
    if condition is not None and condition > limit and not layer.elementwise:
        yield Finding(
            "warning",
            layer.path,
            f"{where}: it is nearly singular, with conditioning {condition:.1e}: it stretches by "
            f"{layer.lipschitz:.2g}, its inverse by {layer.inverse_lipschitz:.2g}",
        )
    if layer.clamped is not None and layer.clamped > 0.2:
        yield Finding(
            "note",
            layer.path,
            f"{where}: {layer.clamped:.0%} of its entries are at the bound of the log-scale",
        )
    if layer.tails is not None and layer.tails > 0.05:
        yield Finding(
            "warning",
            layer.path,
            f"{where}: {layer.tails:.1%} of its inputs lie beyond the interval of its family",
        )


# -- what needs another look at the model ---------------------------------------------------------------------------


def unrepresented(
    model: Copy, x: Tensor, context: Any, noise: Any, good: Tensor, picks: list[int]
) -> Finding:
    """Which layer first gives something that is not finite, for the first example with such a log-likelihood."""
    row = int((~good).double().argmax())
    one = slice(row, row + 1)
    call = model.record_all(x[one], take(context, one), take(noise, one))
    culprit = next(
        (c for c in call.leaves() if not bool(c.z.isfinite().all() & c.ladj.isfinite().all())), None
    )
    share = (~good).double().mean().item()
    start = f"log-likelihood is not finite on {share:.1%} of {len(good)} examples, first row {picks[row]}"
    if culprit is None:
        return Finding("error", "", f"{start}: their latents lie outside the base")
    seen = culprit.x.double()
    outside = culprit.transform.properties.domain
    takes = f", it takes {outside}" if outside is not None else ""
    return Finding(
        "error",
        culprit.path,
        f"{start}: {culprit.path} ({culprit.name}) cannot represent it (it sees values from {seen.min().item():.3g} to "
        f"{seen.max().item():.3g}{takes})",
    )


def broken_containers(model: Any, audit: Audit) -> list[Finding]:
    """Nested parts that only move values, whose ladj or inverse is wrong although their layers are right."""
    wrong_layer = any(f.severity == "error" for layer in audit.layers for f in _layer(audit, layer))
    found: list[Finding] = []
    for call in model.containers():
        where = f"{call.path} ({call.name})"
        gap = largest(call.ladj - torch.stack([c.ladj for c in call.children]).sum(0))
        if gap > LADJ * max(1.0, largest(call.ladj)):
            found.append(
                Finding("error", call.path, f"{where}: its ladj is not the sum of its parts', by {gap:.3g} nats")
            )  # fmt: skip
        if wrong_layer or audit.data is None or (audit.data.double or 0.0) <= EXACT:
            continue
        error = relative(call.inverse(call.z)[0], call.x)
        if error > ITERATIVE:
            found.append(
                Finding(
                    "error",
                    call.path,
                    f"{where}: its inverse does not undo its forward (relative {error:.1e} in float64), though its "
                    "parts invert",
                )
            )
        if found:
            break
    return found


def _scale(trip: Any) -> float:
    """max |x|, but at least 1 where errors are absolute."""
    return max(1.0, trip.absolute / trip.relative) if trip.relative else 1.0


def _tolerated(gap: float, tolerance: float) -> float:
    return gap - tolerance


def _against(method: str) -> str:
    if method == "the sum over its layers":
        return method
    return f"log|det| by autograd ({method})"


def _blame(audit: Audit) -> str:
    """Where an error arises, or that it only grows."""
    worst = max(audit.layers, key=lambda layer: layer.round_trip or 0.0, default=None)
    if worst is None or not worst.round_trip:
        return ""
    if worst.round_trip > _ROUNDING * torch.finfo(audit.dtype).eps:
        return f", mostly from {worst.path} ({worst.name}), which alone has {worst.round_trip:.1e}"
    factor = "much" if audit.conditioning is None else f"{audit.conditioning:.1e}"
    return f", though every layer alone comes back to {worst.round_trip:.0e}: together they stretch by {factor}"


def _in_double(error: float | None) -> str:
    return "" if error is None else f"; float64 has a relative {error:.1e}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
