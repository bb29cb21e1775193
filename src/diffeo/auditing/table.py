"""An audit as text, and the cells that its tables share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .result import Audit, LayerAudit

COLUMNS = (
    "layer",
    "type",
    "round trip",
    "ladj error",
    "log-scale",
    "Lipschitz",
    "of inverse",
    "at clamp",
)


def number(value: float | None) -> str:
    """Three digits, a dash for what was not measured."""
    return "–" if value is None else f"{value:.3g}"


def share(value: float | None) -> str:
    """A share in percent, a dash for what was not measured."""
    return "–" if value is None else f"{100 * value:.3g} %"


def layer_cells(layer: LayerAudit) -> tuple[str, ...]:
    """The row of a layer, in the order of COLUMNS."""
    return (
        layer.path,
        layer.name,
        number(layer.round_trip),
        _ladj(layer),
        f"{layer.log_scale:.2f}",
        _constant(layer.lipschitz, layer.certified_lipschitz),
        _constant(layer.inverse_lipschitz, layer.certified_inverse_lipschitz),
        share(layer.clamped),
    )


def _constant(measured: float | None, bound: float | None) -> str:
    """What was measured, and the upper bound, if there is one that says more."""
    if bound is None or number(measured) == number(bound):
        return number(measured)
    return f"{number(measured)} ≤ {number(bound)}"


def _ladj(layer: LayerAudit) -> str:
    """The error, or how far an estimate can tell."""
    error, known = layer.ladj_error, layer.ladj_tolerance
    if error is None or not math.isfinite(known):
        return "–"
    return f"< {known:.2g}" if known > max(error, 1e-3) else number(error)


def facts(audit: Audit) -> list[tuple[str, str]]:
    """What was measured on the whole, and what came out."""
    dtype = str(audit.dtype).removeprefix("torch.")
    whole = [
        ("checked on", f"{audit.rows} examples and {audit.rows} draws of the base, {dtype}"),
        ("in float64 on", f"{audit.points} points"),
    ]
    for name, trip in (
        ("data → latent → data", audit.data),
        ("latent → data → latent", audit.latent),
    ):
        if trip is not None:
            double = "" if trip.double is None else f"; {trip.double:.1e} in float64"
            whole.append(
                (
                    name,
                    f"largest error {number(trip.absolute)}, relative {trip.relative:.1e}{double}",
                )
            )
    if audit.ladj_error is not None:
        whole.append(
            (
                "ladj against autograd",
                f"largest error {number(audit.ladj_error)} nats ({audit.ladj_method})",
            )
        )
    if audit.log_prob_error is not None:
        whole.append(
            ("log-likelihood against float64", f"within {number(audit.log_prob_error)} nats")
        )
    whole += [
        ("finite log-likelihoods", share(audit.finite)),
        ("Lipschitz constant, of the inverse", f"{number(audit.lipschitz)}, {number(audit.inverse_lipschitz)} measured"
         f"; at most {number(audit.certified_lipschitz)}, {number(audit.certified_inverse_lipschitz)} certified"),
        ("conditioning", number(audit.conditioning)),
        ("latents beyond |z| = 4", f"{share(audit.tails)}, the base has {share(audit.expected_tails)}"),
        ("largest |z|", number(audit.largest_latent)),
    ]  # fmt: skip
    if audit.total_variation:
        least = f"at least {number(audit.total_variation)} in total variation from these data (99 % confidence)"
        whole.append(("no model with these constants", f"is closer than that: {least}"))
    if audit.evaluations is not None:
        encode, decode = audit.evaluations["encode"], audit.evaluations["decode"]
        whole.append(
            ("evaluations of the velocity", f"{encode} to encode the batch, {decode} to decode it")
        )
    if audit.steps is not None:
        whole.append(
            ("evaluations of an iterative layer", f"at most {audit.steps} for one example")
        )
    return whole


def text(audit: Audit) -> str:
    """Verdict, findings, the whole, the layers."""
    lines = [audit.verdict, ""]
    if audit.findings:
        lines += [*(str(f) for f in audit.findings), ""]
    lines += [*_aligned(facts(audit), right=()), ""]
    cells = [COLUMNS, *(layer_cells(layer) for layer in audit.layers)]
    lines += _aligned(cells, right=range(2, len(COLUMNS)))
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
