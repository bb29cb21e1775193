"""Measurements of one layer at a time, each fed with what it sees inside the model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import DiffeoError, DirectionError
from .determinant import FULL, log_det
from .linear import Linearization, lipschitz
from .lipschitz import DENSE, singular_values
from .record import Call, largest
from .result import LayerAudit

STEPS = 6  # of power iteration
DRAWS, DEVIATIONS = 64, 8  # of an estimated ladj, and how many standard errors its mean may be off


def relative(back: Tensor, x: Tensor) -> float:
    """max |back - x| over max |x|; infinite where one is not finite."""
    gap = largest(back.double() - x.double())
    return gap / max(largest(x.double()), 1e-300) if gap else 0.0


def measure(call: Call, near: Call, wide: Call, generator: torch.Generator) -> LayerAudit:
    """call: the layer in the flow's dtype on many rows; near: on a few; wide: on those few in float64."""
    properties = call.transform.properties
    size = call.x[0].numel()
    per_dimension = largest(call.ladj) / max(size, 1)
    found = LayerAudit(
        path=call.path,
        name=call.name,
        dimension=size,
        log_scale=per_dimension if call.log_scale is None else call.log_scale,
        clamped=call.clamped,
        tails=call.tails,
        constant=properties.constant_ladj,
        iterative="iterative" in (properties.forward, properties.inverse),
    )
    found = replace(found, **certified(call))
    if properties.kind == "bound" or (properties.kind == "exact" and call.transform.stochastic):
        return replace(found, remark=f"its likelihood is {_article(properties.kind)}")
    if not all(map(_finite, (call, wide))):
        return replace(found, remark="its values are not finite")
    found = replace(found, **_trips(call, wide))
    if properties.kind == "estimate":
        # The map is exact, and has a round trip and constants; its ladj is drawn.
        found = replace(found, inverse_ladj_error=None, **_estimate(wide, generator))
    else:
        found = replace(found, **_determinant(wide, generator, inverse=not found.remark))
    return replace(found, **stretch(near, wide, STEPS, generator))


def certified(call: Call) -> dict[str, Any]:
    """What the layer states of its Lipschitz constants."""
    first, second = call.transform.lipschitz_bounds()
    return {"certified_lipschitz": first, "certified_inverse_lipschitz": second}


def _trips(call: Call, wide: Call) -> dict[str, Any]:
    try:
        with torch.no_grad():
            back = call.inverse(call.z)[0]
            exact, ladj = wide.inverse(wide.z)
    except DirectionError:
        return {"remark": "it has no inverse"}
    except DiffeoError as error:
        return {"remark": f"its inverse fails: {error}", "round_trip": math.inf}
    return {
        "round_trip": relative(back, call.x),
        "round_trip_double": relative(exact, wide.x),
        "inverse_ladj_error": largest(ladj + wide.ladj),
    }


def _determinant(wide: Call, generator: torch.Generator, inverse: bool) -> dict[str, Any]:
    if wide.x[0].numel() != wide.z[0].numel():
        return {"remark": "it has fewer latents than data, so no determinant"}
    try:
        det = log_det(
            lambda x, rows: wide.forward(x, rows)[0],
            wide.x,
            generator,
            (lambda z, rows: wide.inverse(z, rows)[0], wide.z) if inverse else None,
        )
    except (RuntimeError, NotImplementedError) as error:
        return {"remark": f"autograd cannot differentiate it: {str(error).splitlines()[0]}"}
    ladj = wide.ladj[det.rows]
    gap = (ladj - det.value).abs().nan_to_num(nan=math.inf)
    worst = int((gap - det.tolerance).argmax())
    return {
        "ladj": ladj[worst].item(),
        "log_det": det.value[worst].item(),
        "ladj_error": gap[worst].item(),
        "ladj_tolerance": det.tolerance[worst].item(),
        "method": det.method,
        "elementwise": det.elementwise,
    }


def _estimate(wide: Call, generator: torch.Generator) -> dict[str, Any]:
    """The mean of some draws of ladj, whose deviation and whose bias say how near the truth it should be."""
    transform, x = wide.transform, wide.x
    open_ = transform.estimate_bias()
    if open_ is None or x[0].numel() > FULL or x[0].numel() != wide.z[0].numel():
        return {"remark": "its ladj is an estimate, which is not compared"}
    try:
        det = log_det(lambda x, rows: wide.map(x, rows), x, generator)
    except (RuntimeError, NotImplementedError) as error:
        return {"remark": f"autograd cannot differentiate it: {str(error).splitlines()[0]}"}
    draws = []
    for _ in range(DRAWS):
        noise = transform.draw(len(x), generator=generator, like=x)
        draws.append(transform(x, wide.rest[0] if wide.rest else None, noise)[1])
    ladj = torch.stack(draws)
    mean = ladj.mean(0)[det.rows]
    # Of a draw that is no number, the gap is infinite.
    spread = ladj.std(0)[det.rows].nan_to_num(nan=0.0)
    gap = (mean - det.value).abs().nan_to_num(nan=math.inf)
    tolerance = det.tolerance + DEVIATIONS * spread / DRAWS**0.5 + open_
    worst = int((gap - tolerance).argmax())
    return {
        "ladj": mean[worst].item(),
        "log_det": det.value[worst].item(),
        "ladj_error": gap[worst].item(),
        "ladj_tolerance": tolerance[worst].item(),
        "method": f"{det.method}, and the mean of {DRAWS} estimates",
    }


def stretch(call: Call, wide: Call, steps: int, generator: torch.Generator) -> dict[str, Any]:
    """Lipschitz constants of a map and its inverse, those that can be had; of few entries in float64, from `wide`."""
    found: dict[str, Any] = {}
    if wide.x[0].numel() == wide.z[0].numel() <= DENSE:
        with contextlib.suppress(DiffeoError, RuntimeError, NotImplementedError):
            most, least = singular_values(wide.map, wide.x)
            return {"lipschitz": largest(most), "inverse_lipschitz": largest(1 / least)}
    maps: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "lipschitz": (call.map, call.x),
        "inverse_lipschitz": (lambda z: call.inverse(z)[0], call.z),
    }
    for name, (f, at) in maps.items():
        with contextlib.suppress(DiffeoError, RuntimeError, NotImplementedError):
            found[name] = largest(lipschitz(Linearization(f, at), steps, generator))
    return found


def _finite(call: Call) -> bool:
    return bool(call.z.isfinite().all() & call.ladj.isfinite().all())


def _article(kind: str) -> str:
    return {"bound": "a bound"}.get(kind, "drawn at random")
