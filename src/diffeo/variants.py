"""The same weights under another configuration: other shapes, other solvers, other estimators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .errors import ConfigError, ShapeError
from .flow import Flow
from .parts import Refreshed, rebuild

FOLLOWS_SIZE = ("visible", "u", "v", "beside")
"""Buffers that belong to the size of the image, made anew with it: masks, and the vectors of power iterations."""


def variant(flow: Flow, tree: dict[str, Any]) -> Flow:
    """The flow that a configuration describes, with the parameters and buffers of `flow`.

    Raises ShapeError, by name, for a parameter of another shape.
    """
    with torch.random.fork_rng(devices=[]):
        other = rebuild(tree)
    if not isinstance(other, Flow):
        raise ConfigError("the configuration describes no flow")
    share(flow, other)
    other.provenance, other.memory = flow.provenance, flow.memory
    return other.train(flow.training)


def replaced(tree: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A configuration with `change` of every part in it, inner parts first."""
    if isinstance(tree, list):
        return [replaced(v, change) for v in tree]
    if not isinstance(tree, dict):
        return tree
    new = {k: replaced(v, change) for k, v in tree.items()}
    return change(new) if "part" in new else new


def share(source: nn.Module, target: nn.Module) -> None:
    """Give every module of `target` the parameters and buffers of its counterpart in `source`."""
    counterparts = dict(source.named_modules())
    for path, module in target.named_modules():
        origin = counterparts[path]
        anew = False
        for kind in ("_parameters", "_buffers"):
            theirs: dict[str, Any] = getattr(origin, kind)
            ours: dict[str, Any] = getattr(module, kind)
            for name, value in theirs.items():
                if value is None:
                    continue
                if ours[name].shape != value.shape:
                    if kind == "_buffers" and name in FOLLOWS_SIZE:
                        ours[name], anew = ours[name].to(value), True
                        continue
                    raise ShapeError(
                        f"{path}.{name} has shape {tuple(value.shape)}, which depends on the size of the event"
                    )
                ours[name] = value
        if anew and isinstance(module, Refreshed):
            module.refresh()
