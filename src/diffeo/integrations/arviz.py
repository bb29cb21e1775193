"""ArviZ: draws of flows and of chains as what its summaries and plots take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..applications.restoring import Posterior
from ..errors import ConfigError, InputError

__all__ = ["to_arviz"]


def to_arviz(
    draws: Tensor | Posterior | Mapping[str, Tensor],
    *,
    chains: bool = False,
    names: Sequence[str] | None = None,
    name: str = "x",
    **groups: Mapping[str, Tensor],
) -> Any:
    """An `arviz.InferenceData` (a DataTree from ArviZ 1.0 on) with the group `posterior`.

    draws: independent ones [draws, *event], as of `flow.sample((n,))` and `FlowGuide.draws(n)`, or with `chains`
    [chains, draws, *event]; a dict of them by variable; or a `Posterior`, whose draws are of chains. A tensor becomes
    the variable `name`, or one variable for each of `names` along its last axis. groups: more groups of the same form,
    such as `log_likelihood={"y": ...}`.

    Raises InputError for shapes that do not fit, ConfigError without ArviZ.
    """
    arviz = _arviz()
    if isinstance(draws, Posterior):
        draws, chains = draws.draws, True
    variables = _variables(draws, name, names)
    made = {"posterior": variables, **{k: dict(v) for k, v in groups.items()}}
    arrays = {
        group: {k: _array(v, chains, f"{group}.{k}") for k, v in content.items()}
        for group, content in made.items()
    }
    shapes = {k: v.shape[:2] for content in arrays.values() for k, v in content.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"all variables must have the same chains and draws, got {shapes}")
    if hasattr(arviz, "InferenceData"):
        return arviz.from_dict(**arrays)
    return arviz.from_dict(arrays)


def _variables(
    draws: Tensor | Mapping[str, Tensor], name: str, names: Sequence[str] | None
) -> dict[str, Tensor]:
    if isinstance(draws, Mapping):
        if names is not None:
            raise InputError("a dict of draws brings its own names: leave out `names`")
        return dict(draws)
    if names is None:
        return {name: draws}
    if draws.ndim < 2 or draws.shape[-1] != len(names):
        raise InputError(f"{len(names)} names for draws of shape {tuple(draws.shape)}")
    return dict(zip(names, draws.unbind(-1), strict=True))


def _array(draws: Tensor, chains: bool, what: str) -> Any:
    """[chains, draws, *event] in numpy."""
    values = torch.as_tensor(draws).detach().cpu()
    if values.ndim < (2 if chains else 1):
        wanted = "[chains, draws, *event]" if chains else "[draws, *event]"
        raise InputError(f"{what} must be {wanted}, got shape {tuple(values.shape)}")
    return (values if chains else values[None]).numpy()


def _arviz() -> Any:
    try:
        import arviz
    except ImportError as error:
        raise ConfigError(
            "to_arviz needs ArviZ, which is not installed: pip install 'diffeo[arviz]'"
        ) from error
    return arviz
