"""The same model with another way to find log|det|: exact where events are small, more terms where they are not."""

from __future__ import annotations

from typing import Any

import torch

from .errors import ConfigError
from .flow import Flow
from .parts import describe, rebuild
from .resizing import share
from .transforms.logdet import LogDet


def with_estimator(flow: Flow, estimator: LogDet) -> Flow:
    """A flow that shares the weights of this one, all its residual layers with `estimator`.

    `with_estimator(flow, Exact()).log_prob(x)` is the exact likelihood. Raises ConfigError where no layer has one.

    >>> import diffeo
    >>> flow = diffeo.zoo.build("residual_flow", (2,), size="tiny")
    >>> flow.likelihood, with_estimator(flow, diffeo.transforms.Exact()).likelihood
    ('estimate', 'exact')
    """
    found: list[str] = []
    tree = _replaced(describe(flow), describe(estimator), found)
    if not found:
        raise ConfigError(
            "this flow has no residual layer, whose log|det| could be found otherwise"
        )
    with torch.random.fork_rng(devices=[]):
        other = rebuild(tree)
    assert isinstance(other, Flow)
    share(flow, other)
    other.provenance, other.memory = flow.provenance, flow.memory
    return other.train(flow.training)


def _replaced(tree: Any, estimator: Any, found: list[str]) -> Any:
    if isinstance(tree, list):
        return [_replaced(v, estimator, found) for v in tree]
    if not isinstance(tree, dict):
        return tree
    if "part" in tree and "estimator" in tree:
        found.append(tree["part"])
        return {k: _replaced(v, estimator, found) for k, v in tree.items()} | {
            "estimator": estimator
        }
    return {k: _replaced(v, estimator, found) for k, v in tree.items()}
