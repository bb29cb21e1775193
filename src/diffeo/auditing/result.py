"""What an audit found: numbers for the whole and for every layer, and findings in words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, and how much: one sentence. layer: a path in the flow, empty for the whole.

    error: a promise is broken, numbers cannot be trusted. warning: numbers hold, with a loss of precision or for few
    data. note: for information.
    """

    severity: Severity
    layer: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.sentence}"


@dataclass(frozen=True)
class RoundTrip:
    """max |f^-1(f(x)) - x|, the same over max |x|, which row of x (or which draw) it was, and the layer to blame.

    double: the relative error of the same map in float64, on fewer rows. layer: the one whose own round trip is worst.
    """

    absolute: float
    relative: float
    example: int
    layer: str = ""
    double: float | None = None


@dataclass(frozen=True)
class LayerAudit:
    """One layer, fed with what it sees in the model. None: could not be measured, `remark` says why.

    round_trip: relative error in the flow's dtype, round_trip_double: in float64. ladj_error: |ladj - log|det|| by
    autograd in nats, by `method`, which leaves `ladj_tolerance` open. inverse_ladj_error: |ladj of inverse + ladj|.
    log_scale: the largest |elementwise log-derivative| (|ladj| per dimension where no family gives it). lipschitz,
    inverse_lipschitz: largest singular value of the Jacobian of the map and of its inverse. clamped, tails: share of
    entries at the bound of the log-scale, and beyond a family's interval. certified_...: upper bounds that the layer
    states.
    """

    path: str
    name: str
    dimension: int
    round_trip: float | None = None
    round_trip_double: float | None = None
    ladj: float | None = None
    log_det: float | None = None
    ladj_error: float | None = None
    ladj_tolerance: float = 0.0
    method: str = ""
    inverse_ladj_error: float | None = None
    log_scale: float = 0.0
    lipschitz: float | None = None
    inverse_lipschitz: float | None = None
    certified_lipschitz: float | None = None
    certified_inverse_lipschitz: float | None = None
    clamped: float | None = None
    tails: float | None = None
    elementwise: bool = False
    constant: bool = False
    iterative: bool = False
    remark: str = ""

    @property
    def conditioning(self) -> float | None:
        """lipschitz times inverse_lipschitz."""
        return _times(self.lipschitz, self.inverse_lipschitz)


@dataclass(frozen=True)
class Audit:
    """How sound a flow is, on `rows` examples and as many draws of the base; `print(audit)` shows everything.

    data, latent: the round trips data -> latent -> data and latent -> data -> latent; None where a flow has no inverse.
    finite: share of finite log-likelihoods. log_prob_error: largest |log_prob - log_prob in float64|, nats.
    ladj_error: of the whole, against its full Jacobian, or against the layers' determinants. lipschitz,
    inverse_lipschitz: largest singular values of the Jacobian of the map and of its inverse, over `points` points.
    tails: share of the data's latents beyond |z| = 4, expected_tails: of the base. worst_tail: the largest share of any
    entry of the flat latent, tail_dimension. edge: share of draws that decode to where the likelihood is not finite.
    certified_lipschitz, certified_inverse_lipschitz: upper bounds, the products of what the layers state; None where
    one states nothing. total_variation: at least how far the law of the data stays from every model with the certified
    constant, with 99 % confidence (see `total_variation_bound`); None where there is no such constant. steps: the most
    evaluations that a layer with a fixed point took for one example. evaluations: of the velocities of continuous
    layers, to `encode` these examples and to `decode` them; None without such layers.
    """

    rows: int
    seed: int
    dtype: torch.dtype
    discrete: bool
    likelihood: str
    finite: float
    tails: float
    expected_tails: float
    tail_dimension: int
    worst_tail: float
    largest_latent: float
    edge: float = 0.0
    data: RoundTrip | None = None
    latent: RoundTrip | None = None
    points: int = 0
    log_prob_error: float | None = None
    ladj_error: float | None = None
    ladj_tolerance: float = 0.0
    ladj_method: str = ""
    lipschitz: float | None = None
    inverse_lipschitz: float | None = None
    certified_lipschitz: float | None = None
    certified_inverse_lipschitz: float | None = None
    total_variation: float | None = None
    steps: int | None = None
    evaluations: dict[str, int] | None = None
    layers: tuple[LayerAudit, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def passes(self) -> bool:
        """No finding is an error."""
        return all(f.severity != "error" for f in self.findings)

    @property
    def conditioning(self) -> float | None:
        """lipschitz times inverse_lipschitz, the factor by which a relative error can grow in a round trip."""
        return _times(self.lipschitz, self.inverse_lipschitz)

    @property
    def tolerance(self) -> float:
        """Relative round-trip error that passes: the square root of the rounding unit."""
        return math.sqrt(torch.finfo(self.dtype).eps)

    @property
    def verdict(self) -> str:
        """One sentence."""
        errors = [f for f in self.findings if f.severity == "error"]
        warnings = [f for f in self.findings if f.severity == "warning"]
        if errors:
            more = f" ({len(errors) - 1} more errors)" if len(errors) > 1 else ""
            return f"Take care: {errors[0].sentence}{more}"
        if warnings:
            count = "one warning" if len(warnings) == 1 else f"{len(warnings)} warnings, the first"
            return f"Sound, with {count}: {warnings[0].sentence}"
        back = "every integer comes back exactly" if self.discrete else "data come back to rounding"
        silent = [layer for layer in self.layers if layer.ladj_error is None]
        against = f", ladj agrees with autograd ({self.ladj_method})" if self.ladj_method else ""
        if silent:
            against = f", ladj of {len(silent)} of {len(self.layers)} layers was not compared"
        return f"Sound: {back}{against}, and every log-likelihood is finite."

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values; numbers that are not finite as the strings inf, -inf and nan."""
        derived = {
            "passes": self.passes,
            "verdict": self.verdict,
            "conditioning": self.conditioning,
            "tolerance": self.tolerance,
        }
        found: dict[str, Any] = _plain(derived | asdict(self))
        return found

    def __str__(self) -> str:
        from .table import text

        return text(self)


def _times(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a * b


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return value
