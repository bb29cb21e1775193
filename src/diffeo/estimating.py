"""The same model with another way to find log|det|: exact where events are small, more terms where they are not."""

from __future__ import annotations

from typing import Any

from .errors import ConfigError
from .flow import Flow
from .parts import describe
from .transforms.logdet import LogDet
from .variants import replaced, variant


def with_estimator(flow: Flow, estimator: LogDet | str) -> Flow:
    """A flow that shares the weights of this one, all its residual and implicit layers with `estimator`.

    `with_estimator(flow, Exact()).log_prob(x)` is the exact likelihood. Layers of a convex potential take `"exact"` or
    `"lanczos"`. Raises ConfigError where no layer has an estimator of that kind.

    >>> import diffeo
    >>> flow = diffeo.zoo.build("residual_flow", (2,), size="tiny")
    >>> flow.likelihood, with_estimator(flow, diffeo.transforms.Exact()).likelihood
    ('estimate', 'exact')
    """
    new = describe(estimator)
    found: list[str] = []

    def change(part: dict[str, Any]) -> dict[str, Any]:
        if type(part.get("estimator")) is not type(new):
            return part
        found.append(part["part"])
        return part | {"estimator": new}

    tree = replaced(describe(flow), change)
    if not found:
        raise ConfigError(
            f"this flow has no layer whose log|det| could be found by {estimator!r}: residual and implicit layers take "
            "an estimator such as diffeo.transforms.Exact(), convex potentials take 'exact' or 'lanczos'"
        )
    return variant(flow, tree)
