"""Layers with a Lipschitz constant of at most a given number: activations, concatenation, and what all layers are.

Beside its value, each layer knows its Jacobian J at a point as two products: `push`, J t, and `pull`, J^T w, for t and
w of shape [batch, vectors, *shape]. Linear maps: `lipschitz_operators`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..parts import Refreshed

SWISH = 1.1
"""The slope of x sigmoid(b x) is at most 1.09984, for every b > 0."""

CONCATENATED = 1.004
"""The slope of x -> [LipSwish(x), LipSwish(-x)] is at most 1.00397."""

Prepared = Any
"""What a layer computes of its parameters alone, once for many calls."""

Slope = Any
"""What a layer's Jacobian depends on, at the points of one call."""


class LipschitzLayer(Refreshed):
    """y = f(x, prepared), with |f(a) - f(b)| <= lipschitz |a - b|."""

    lipschitz = 1.0

    def prepare(self, shift: Tensor | None = None) -> Prepared:
        """What forward needs of the parameters; shift: [batch, channels], added to what the first linear map gives."""
        return None

    def forward(self, x: Tensor, prepared: Prepared) -> Tensor:
        return self.linearized(x, prepared)[0]

    def linearized(self, x: Tensor, prepared: Prepared) -> tuple[Tensor, Slope]:
        """y, and the slope at x that `push` and `pull` take."""
        raise NotImplementedError

    def push(self, t: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        """J t for t [batch, vectors, *in]."""
        raise NotImplementedError

    def pull(self, w: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        """J^T w for w [n, vectors, *out], of the first n examples."""
        raise NotImplementedError

    def certified(self) -> float:
        """An upper bound on the Lipschitz constant at the present parameters, from exact norms."""
        return self.lipschitz


def flattened(value: Prepared, leaves: list[Tensor]) -> Any:
    """What is prepared, its tensors put into `leaves`, a number in the place of each."""
    if isinstance(value, Tensor):
        leaves.append(value)
        return len(leaves) - 1
    return [flattened(v, leaves) for v in value] if isinstance(value, list | tuple) else None


def rebuilt(tree: Any, leaves: Sequence[Tensor]) -> Prepared:
    """The inverse of `flattened`."""
    if isinstance(tree, list):
        return [rebuilt(t, leaves) for t in tree]
    return None if tree is None else leaves[tree]


# -- activations ------------------------------------------------------------------------------------------------------


class Elu(LipschitzLayer):
    """y = x above 0 and exp(x) - 1 below."""

    def forward(self, x: Tensor, prepared: Prepared) -> Tensor:
        return F.elu(x)

    def linearized(self, x: Tensor, prepared: Prepared) -> tuple[Tensor, Slope]:
        slope = x.clamp(max=0).exp()
        return F.elu(x), slope

    def push(self, t: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        out: Tensor = t * slope[:, None]
        return out

    def pull(self, w: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        out: Tensor = w * (slope if len(w) == len(slope) else slope[: len(w)])[:, None]
        return out


class Sin(Elu):
    """y = sin(2 pi x) / (2 pi): every derivative is bounded, the first by 1. Lu et al., 2021, arXiv:2103.09527."""

    def forward(self, x: Tensor, prepared: Prepared) -> Tensor:
        return (math.tau * x).sin() / math.tau

    def linearized(self, x: Tensor, prepared: Prepared) -> tuple[Tensor, Slope]:
        return (math.tau * x).sin() / math.tau, (math.tau * x).cos()


class LipSwish(Elu):
    """y = x sigmoid(b x) / 1.1 with b = softplus(raw) > 0 learned: a slope of at most 0.99986.

    Prepared with None, it is y = x sigmoid(x), and the linear maps beside it have the scales.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(0.5))

    def prepare(self, shift: Tensor | None = None) -> Prepared:
        return F.softplus(self.raw)

    def forward(self, x: Tensor, prepared: Prepared) -> Tensor:
        if prepared is None:
            # x is of the map before, and nobody else's.
            return F.silu(x, inplace=not torch.is_grad_enabled())
        return x * torch.sigmoid(prepared * x) / SWISH

    def linearized(self, x: Tensor, prepared: Prepared) -> tuple[Tensor, Slope]:
        if prepared is None:
            s = torch.sigmoid(x)
            y = x * s
            return y, torch.lerp(y, torch.ones_like(y), s)
        bx = prepared * x
        s = torch.sigmoid(bx) / SWISH
        return x * s, s * (1 + bx * (1 - SWISH * s))


class CLipSwish(LipschitzLayer):
    """y = [f(x), f(-x)] / 1.004 along the first axis, f = LipSwish: twice the channels, a 2-norm slope of at most 1.

    Perugachi-Diaz et al., Invertible DenseNets with concatenated LipSwish, 2021, arXiv:2102.02694.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.tensor(0.5))

    def prepare(self, shift: Tensor | None = None) -> Prepared:
        return F.softplus(self.raw)

    def linearized(self, x: Tensor, prepared: Prepared) -> tuple[Tensor, Slope]:
        scale = SWISH * CONCATENATED
        bx = prepared * x
        s = torch.sigmoid(bx)
        # sigmoid(-a) = 1 - sigmoid(a): the slope at -x is (1 - s) (1 - b x s).
        up, down = s * (1 + bx * (1 - s)) / scale, (1 - s) * (1 - bx * s) / scale
        y = torch.cat((x * s, x * (s - 1)), dim=1) / scale
        return y, (up, -down)

    def push(self, t: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        up, down = slope
        return torch.cat((t * up[:, None], t * down[:, None]), dim=2)

    def pull(self, w: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        up, down = slope
        first, second = w.chunk(2, dim=2)
        out: Tensor = first * up[: len(w), None] + second * down[: len(w), None]
        return out


ACTIVATIONS: dict[str, type[LipschitzLayer]] = {
    "elu": Elu,
    "sin": Sin,
    "lipswish": LipSwish,
    "clipswish": CLipSwish,
}


def growth(activation: str) -> int:
    """Channels that an activation makes of one. Raises ConfigError for an unknown one."""
    if activation not in ACTIVATIONS:
        raise ConfigError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return 2 if activation == "clipswish" else 1


class Concatenated(LipschitzLayer):
    """y = coeff [a x, b f(x)] / sqrt(a^2 + b^2) along the first axis, a and b learned and positive; f: layers.

    a, b = softplus(raw) + 0.1. In the 2-norm its constant is at most coeff if that of f is at most 1. learn: whether a
    and b are trained; equal otherwise. Perugachi-Diaz et al., 2021, arXiv:2102.02694.
    """

    def __init__(self, layers: Sequence[LipschitzLayer], coeff: float, *, learn: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.coeff = coeff
        raw = torch.ones(2)
        self.raw: Tensor
        if learn:
            self.raw = nn.Parameter(raw)
        else:
            self.register_buffer("raw", raw)
        self.lipschitz = coeff * max(1.0, product(layer.lipschitz for layer in layers))

    def shares(self) -> Tensor:
        """The weights of x and of f(x), [2]: their squares add up to coeff^2."""
        eta = F.softplus(self.raw) + 0.1
        out: Tensor = self.coeff * eta / eta.norm()
        return out

    def prepare(self, shift: Tensor | None = None) -> Prepared:
        first, *others = self.layers
        inner = [first.prepare(shift), *(layer.prepare() for layer in others)]  # type: ignore[operator]
        # Copies: loops in graphs of torch.compile take no two views of one tensor.
        return inner, [share.clone() for share in self.shares()]

    def forward(self, x: Tensor, prepared: Prepared) -> Tensor:
        inner, (a, b) = prepared
        h = x
        for layer, own in zip(self.layers, inner, strict=True):
            h = layer(h, own)
        return torch.cat((a * x, b * h), dim=1)

    def linearized(self, x: Tensor, prepared: Prepared) -> tuple[Tensor, Slope]:
        inner, (a, b) = prepared
        y, slopes = linearized(self.layers, x, inner)
        return torch.cat((a * x, b * y), dim=1), (slopes, x.shape[1])

    def push(self, t: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        inner, (a, b) = prepared
        return torch.cat((a * t, b * push(self.layers, t, slope[0], inner)), dim=2)

    def pull(self, w: Tensor, slope: Slope, prepared: Prepared) -> Tensor:
        inner, (a, b) = prepared
        slopes, width = slope
        through = pull(self.layers, b * w[:, :, width:], slopes, inner)
        out: Tensor = a * w[:, :, :width] + through
        return out

    @torch.no_grad()
    def certified(self) -> float:
        a, b = self.shares().double().tolist()
        inner = product(layer.certified() for layer in self.layers)  # type: ignore[operator]
        return math.hypot(a, b * inner)


# -- sequences of layers ----------------------------------------------------------------------------------------------


def linearized(
    layers: nn.ModuleList, x: Tensor, prepared: Sequence[Prepared]
) -> tuple[Tensor, list[Slope]]:
    """y of all layers, one after the other, and their slopes."""
    slopes = []
    for layer, own in zip(layers, prepared, strict=True):
        x, slope = layer.linearized(x, own)  # type: ignore[operator]
        slopes.append(slope)
    return x, slopes


def push(
    layers: nn.ModuleList, t: Tensor, slopes: Sequence[Slope], prepared: Sequence[Prepared]
) -> Tensor:
    """J t, [batch, vectors, *out]."""
    for layer, slope, own in zip(layers, slopes, prepared, strict=True):
        t = layer.push(t, slope, own)  # type: ignore[operator]
    return t


def pull(
    layers: nn.ModuleList, w: Tensor, slopes: Sequence[Slope], prepared: Sequence[Prepared]
) -> Tensor:
    """J^T w, [n, vectors, *in]."""
    for layer, slope, own in zip(
        reversed(layers), reversed(slopes), reversed(prepared), strict=True
    ):
        w = layer.pull(w, slope, own)  # type: ignore[operator]
    return w


def product(numbers: Any) -> float:
    """The product of Lipschitz constants, that of a composition."""
    return math.prod([float(n) for n in numbers])
