"""Unconstrained monotone networks: the integral of a positive network, by Clenshaw-Curtis quadrature.

Wehenkel and Louppe. Unconstrained monotonic neural networks. 2019, arXiv:1908.05164. Clenshaw and Curtis, 1960.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..nets.base import activation as make_activation
from ..nets.mlp import zero_
from ..parts import register
from .numeric import NumericInverse
from .sigmoidal import positive

Rule = tuple[tuple[float, ...], tuple[float, ...]]


def clenshaw_curtis(n: int) -> Rule:
    """Nodes (1 + cos(j pi / n)) / 2, j = 0..n, n even, and their weights, for integrals over [0, 1]."""
    nodes = tuple((1 + math.cos(j * math.pi / n)) / 2 for j in range(n + 1))
    weights = []
    for j in range(n + 1):
        terms = (
            (1 if 2 * k == n else 2) / (4 * k * k - 1) * math.cos(2 * k * j * math.pi / n)
            for k in range(1, n // 2 + 1)
        )
        weights.append((1 if j in (0, n) else 2) / (2 * n) * (1 - math.fsum(terms)))
    return nodes, tuple(weights)


@register
class UMNN(NumericInverse):
    """y = b + int_0^x f(t; h) dt with f = s + (1 - s) softplus(network(t, h)) > 0; log dy/dx = log f(x; h).

    The network's weights are shared by all scalars. params: an embedding h of `embedding` numbers, and b. s = min_slope
    bounds dy/dx from below (the publication has s = 0, and ELU + 1 in place of softplus, a kink that spoils the
    quadrature's order). f is 1 at first, so that zero params are the identity.

    y is a Clenshaw-Curtis quadrature from `nodes` + 1 values of f, `nodes` even; the log-derivative is that of the
    exact integral, from which y differs by `quadrature_error`. Outside [-bound, bound] the map goes on as a straight
    line, onto the whole line. Gradients by plain autograd: memory for nodes + 1 evaluations of the network. Inverse by
    safeguarded root finding.
    """

    def __init__(
        self,
        embedding: int = 16,
        hidden: Sequence[int] = (32, 32),
        *,
        nodes: int = 20,
        activation: str = "silu",
        bound: float = 10.0,
        min_slope: float = 1e-3,
    ) -> None:
        super().__init__()
        if embedding < 1 or not hidden:
            raise ConfigError(
                f"UMNN needs an embedding of at least 1 number and a hidden layer, got {embedding} and {tuple(hidden)}"
            )
        if nodes < 2 or nodes % 2:
            raise ConfigError(f"nodes must be an even number of at least 2, got {nodes}")
        if not bound > 0 or not 0 < min_slope < 1:
            raise ConfigError(
                f"UMNN needs bound > 0 and min_slope in (0, 1), got {bound} and {min_slope}"
            )
        self.embedding = embedding
        self.hidden = tuple(hidden)
        self.nodes = nodes
        self.activation = activation
        self.bound = bound
        self.min_slope = min_slope
        self.rule = clenshaw_curtis(nodes)
        self.num_params = embedding + 1
        self.properties = replace(
            type(self).properties,
            bias=f"Clenshaw-Curtis quadrature with {nodes + 1} nodes; {type(self).properties.bias}",
        )
        self.first = nn.Linear(1 + embedding, self.hidden[0])
        layers: list[nn.Module] = [make_activation(activation)]
        for a, b in pairwise(self.hidden):
            layers += [nn.Linear(a, b), make_activation(activation)]
        last = nn.Linear(self.hidden[-1], 1)
        zero_(last)
        self.rest = nn.Sequential(*layers, last)

    def slope(self, t: Tensor, h: Tensor) -> Tensor:
        """f(t; h) > 0 for t [..., N] and h [..., embedding]."""
        weight = self.first.weight
        # Joined by hand, so that the embedding is not repeated for every node.
        seen = F.linear(h, weight[:, 1:], self.first.bias)[..., None, :]
        v: Tensor = self.rest(seen + t[..., None] * weight[:, 0])[..., 0]
        return self.min_slope + (1 - self.min_slope) * positive(v)

    def _integrate(self, x: Tensor, params: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
        h, b = params[..., :-1], params[..., -1]
        nodes, weights = (torch.tensor(v, dtype=x.dtype, device=x.device) for v in rule)
        end = x.clamp(-self.bound, self.bound)
        # The flow's own arithmetic, of which this network is a part, stays in full precision under autocast.
        with torch.autocast(x.device.type, enabled=False):
            f = self.slope(end[..., None] * nodes, h)
            # The first node is the end of the interval.
            y = b + end * (f * weights).sum(-1) + (x - end) * f[..., 0]
        return y, f[..., 0].log()

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        return self._integrate(x, params, self.rule)

    def guess(self, y: Tensor, params: Tensor) -> Tensor:
        return y - params[..., -1]

    @torch.no_grad()
    def quadrature_error(self, x: Tensor, params: Tensor, *, nodes: int = 400) -> Tensor:
        """|y - y'| elementwise, y' with so many more `nodes` that it counts as exact."""
        y: Tensor = self(x, params)[0]
        return (y - self._integrate(x, params, clenshaw_curtis(nodes))[0]).abs()

    def config(self) -> dict[str, Any]:
        return {
            "embedding": self.embedding,
            "hidden": self.hidden,
            "nodes": self.nodes,
            "activation": self.activation,
            "bound": self.bound,
            "min_slope": self.min_slope,
        }

    def extra_repr(self) -> str:
        return f"embedding={self.embedding}, nodes={self.nodes}, bound={self.bound:g}"
