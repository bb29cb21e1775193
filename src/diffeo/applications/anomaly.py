"""Whether a picture is unlike those that a flow learned: statistics of likelihood and latents, and exact p-values.

A high likelihood alone says little: simple pictures of another kind get more of it than the kind that was learned
(Nalisnick et al., Do deep generative models know what they don't know?, 2019, arXiv:1810.09136).
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..distributions import StandardNormal
from ..distributions.normal import normal_log_prob
from ..errors import ConfigError, InputError
from ..flow import Flow
from ..transforms import Chain, Split, Transform
from .blocks import block_rows, check_whole
from .tables import flow_levels

if TYPE_CHECKING:
    from ..transforms.base import Noise


@dataclass(frozen=True)
class Evidence:
    """What a flow and a lossless code say of n events of D entries.

    bits: [n, levels], fine to coarse, -log2 of the density that a level contributes, over D; their sum is -log2 p / D.
    norms: [n, levels], the mean square of a level's latents, 1 on average under the flow. code: [n], length of a
    PNG in bits, over D; None for events that are no pictures of at most 256 levels.
    """

    bits: Tensor
    norms: Tensor
    code: Tensor | None

    def __len__(self) -> int:
        return len(self.bits)


@dataclass(frozen=True)
class Statistic:
    """Numbers [n, k] of events, and what is strange: `high` ones (k = 1), or those `far` from the reference.

    Far is the distance sqrt((v - m)^T S^-1 (v - m)) under mean m and covariance S of the reference.
    """

    numbers: Callable[[Evidence], Tensor]
    strange: Literal["high", "far"]
    meaning: str


def _total(found: Evidence) -> Tensor:
    return found.bits.sum(1, keepdim=True)


def _code(found: Evidence) -> Tensor:
    if found.code is None:
        raise ConfigError(
            "the complexity of an event is that of a picture of at most 256 levels: take another statistic, such as "
            "typicality"
        )
    return found.code[:, None]


def _everything(found: Evidence) -> Tensor:
    parts = [found.bits, found.norms] + ([] if found.code is None else [_code(found)])
    return torch.cat(parts, 1)


STATISTICS = {
    "log_prob": Statistic(_total, "high", "bits/dim, -log2 p / D"),
    "typicality": Statistic(_total, "far", "distance of the bits/dim from their mean"),
    "complexity": Statistic(
        lambda found: _total(found) - _code(found),
        "high",
        "bits/dim, less those of a lossless code",
    ),
    "coarse": Statistic(lambda found: found.bits[:, -1:], "high", "bits/dim of the coarsest level"),
    "levels": Statistic(lambda found: found.bits, "far", "distance of the bits/dim of all levels"),
    "norm": Statistic(lambda found: found.norms, "far", "distance of the latents' mean squares"),
    "combined": Statistic(_everything, "far", "distance of all numbers together"),
}
"""By name. log_prob: Bishop, 1994. typicality: Nalisnick et al., 2019, arXiv:1906.02994, for one event. complexity:
Serra et al., 2020, arXiv:1909.11480. coarse, levels: Schirrmeister et al., 2020, arXiv:2006.10848. combined: after
Morningstar et al., 2021, arXiv:2006.09273 (DoSE), with a Gaussian for the density of the statistics."""


@torch.no_grad()
def evidence(
    flow: Flow,
    x: Tensor,
    *,
    draws: int = 4,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evidence:
    """The evidence about events [n, *event_shape]; of integers the mean over draws of the dequantization noise.

    The draws are the same for all events, so that an event has the same numbers wherever it stands. A flow whose base
    is not N(0, I) counts as one level. Raises InputError for a flow that needs a context, or no event.
    """
    if flow.context_shape is not None:
        raise InputError(
            f"this model is conditional (context {flow.context_shape}), and anomaly scores are for events alone"
        )
    check_whole("draws", draws, 1)
    if x.ndim != len(flow.event_shape) + 1 or not len(x):
        raise InputError(
            f"expected events of shape [n, {', '.join(map(str, flow.event_shape))}], got {tuple(x.shape)}"
        )
    flow.check(x[:1])
    size = block_rows(flow) if batch_size is None else batch_size
    check_whole("batch_size", size, 1)
    fast = flow.frozen()
    generator = torch.Generator(flow.device).manual_seed(seed)
    noise: Noise = None
    if fast.transform.stochastic:
        noise = fast.transform.draw(draws, generator=generator, like=fast.base.like)
    found = []
    for rows in x.split(size):
        rows = rows.to(flow.device)
        times = draws if fast.transform.stochastic else 1
        each = [_by_level(fast, rows, _repeated(noise, i, len(rows))) for i in range(times)]
        found.append(torch.stack(each).mean(0).cpu())
        if progress is not None:
            progress(sum(map(len, found)), len(x))
    log_p, squares = torch.cat(found).unbind(-1)
    return Evidence(-log_p / (flow.event_size * math.log(2)), squares, _code_lengths(flow, x))


class Detector:
    """How strange events are beside a reference: held-out events of the kind that the flow has learned.

    Raises InputError for a reference that is too small or not finite, ConfigError for an unknown statistic.
    """

    def __init__(self, reference: Evidence, statistic: str | Statistic = "combined") -> None:
        if isinstance(statistic, str) and statistic not in STATISTICS:
            raise ConfigError(
                f"there is no statistic {statistic!r}, expected {', '.join(STATISTICS)}"
            )
        self.statistic = STATISTICS[statistic] if isinstance(statistic, str) else statistic
        self.reference = self.statistic.numbers(reference).double()
        n, k = self.reference.shape
        if self.statistic.strange == "high" and k != 1:
            raise ConfigError(f"a statistic whose high values are strange is one number, got {k}")
        if n < 2 * k + 2:
            raise InputError(
                f"this statistic needs a reference of {2 * k + 2} events or more, got {n}"
            )
        if not self.reference.isfinite().all():
            raise InputError("the reference holds an event that the flow finds impossible")

    def __len__(self) -> int:
        return len(self.reference)

    def score(self, found: Evidence) -> Tensor:
        """The higher the stranger, [n], float64."""
        values = self._values(found)
        if self.statistic.strange == "high":
            return values[:, 0]
        return _distance(values, *_moments(self.reference)).nan_to_num(math.inf, math.inf)

    def p_value(self, found: Evidence) -> Tensor:
        """The share of an event and the reference together that is at least as strange as the event, [n].

        Of n reference events and a new one from the same source, in any order equally likely, each is as likely as any
        other to be the strangest: so P(p <= a) <= a for every a, with equality at a = i / (n + 1) where no two are
        equally strange. Mean and covariance of `far` are those of all n + 1, which keeps this exact.
        Vovk, Gammerman, Shafer. Algorithmic learning in a random world. 2005, chapter 2.
        """
        values = self._values(found)
        p = [self._share(x) for x in values.split(max(1, 2**20 // self.reference.numel()))]
        lowest = 1 / (len(self) + 1)
        return torch.where(values.isfinite().all(1), torch.cat(p), lowest)

    def _values(self, found: Evidence) -> Tensor:
        values = self.statistic.numbers(found).double()
        # What the flow finds impossible is strange by every statistic.
        return values.masked_fill(~found.bits.isfinite().all(1, keepdim=True), math.inf)

    def _share(self, values: Tensor) -> Tensor:
        """[m], of values [m, k]."""
        if self.statistic.strange == "high":
            above = (self.reference[:, 0] >= values).sum(1)
            return (1 + above).double() / (len(self) + 1)
        bags = torch.cat((self.reference.expand(len(values), -1, -1), values[:, None]), 1)
        distance = _distance(bags, *_moments(bags))
        # Equal events stay equally strange after rounding.
        own = distance[:, -1:] * (1 - 1e-9)
        return (distance >= own).double().mean(1)


def auroc(strange: Tensor, ordinary: Tensor) -> tuple[float, float]:
    """P(a strange event scores higher than an ordinary one), ties half, and its standard error.

    DeLong, DeLong, Clarke-Pearson. Comparing the areas under correlated ROC curves. Biometrics, 1988.
    """
    each = []
    for a, b in ((strange, ordinary), (-ordinary, -strange)):
        b = b.double().sort().values.contiguous()
        a = a.double().contiguous()
        below = torch.searchsorted(b, a) + torch.searchsorted(b, a, right=True)
        each.append(below.double() / (2 * len(b)))
    variance = sum(float(share.var()) / len(share) for share in each)
    return float(each[0].mean()), math.sqrt(variance)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [..., 1, k] and covariance [..., k, k] of values [..., n, k]."""
    mean = values.mean(-2, keepdim=True)
    centred = values - mean
    covariance = centred.mT @ centred / (values.shape[-2] - 1)
    # Numbers that (nearly) never vary, or vary together, would make it singular.
    spread = covariance.diagonal(dim1=-2, dim2=-1)
    return mean, covariance + torch.diag_embed(1e-6 * spread + 1e-12)


def _distance(values: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """[..., n]."""
    centred = values - mean
    whitened: Tensor = torch.linalg.solve(covariance, centred, left=False)
    return (whitened * centred).sum(-1).sqrt()


def _by_level(flow: Flow, x: Tensor, noise: Noise) -> Tensor:
    """Log-density that every level contributes, and the mean square of its latents: [n, levels, 2]."""
    if isinstance(flow.base, StandardNormal):
        leaves = _leaves(flow.transform, x, noise)
        log_p = [ladj + normal_log_prob(z).flatten(1).sum(1) for z, ladj in leaves]
    else:
        z, ladj = flow._forward(x, None, noise)
        leaves, log_p = [(z, ladj)], [ladj + flow.base.log_prob(z)]
    squares = [z.flatten(1).square().mean(1) for z, _ in leaves]
    return torch.stack((torch.stack(log_p, 1), torch.stack(squares, 1)), -1).double()


def _leaves(transform: Transform, x: Tensor, noise: Noise) -> list[tuple[Tensor, Tensor]]:
    """Latent and ladj of each level, fine to coarse; a split ends a level, and what whitens it belongs to it."""
    total: Any = 0.0
    while isinstance(transform, Chain):
        *first, last = transform
        noises = noise if isinstance(noise, tuple) else (None,) * len(transform)
        for part, given in zip(first, noises, strict=False):
            x, ladj = part(x, None, given) if part.stochastic else part(x, None)
            total = total + ladj
        transform, noise = last, noises[-1]
    if isinstance(transform, Split):
        kept, out = transform.partition.split(x)
        zero = out.new_zeros(len(out))
        return [(out, total + zero), *_leaves(transform.rest, kept, noise)]
    z, ladj = transform(x, None, noise) if transform.stochastic else transform(x, None)
    return [(z, total + ladj)]


def _repeated(noise: Noise, i: int, n: int) -> Noise:
    """Draw i, for n events."""
    if noise is None:
        return None
    if isinstance(noise, tuple):
        return tuple(_repeated(part, i, n) for part in noise)
    return noise[i : i + 1].expand(n, *noise.shape[1:])


def _code_lengths(flow: Flow, x: Tensor) -> Tensor | None:
    """Bits of a PNG of every picture, over D; of three channels: the second, and what the others are above it."""
    levels = flow_levels(flow)
    if levels is None or levels > 256 or len(flow.event_shape) != 3:
        return None
    planes = x.to(torch.uint8).cpu()
    if planes.shape[1] == 3:
        red, green, blue = planes.unbind(1)
        # Modulo 256, so nothing is lost; what is grey costs a third.
        planes = torch.stack((green, red - green, blue - green), 1)
    lengths = [_png_bytes(picture) for picture in planes.flatten(1, 2).numpy()]
    return 8 * torch.tensor(lengths).double() / flow.event_size


def _png_bytes(picture: Any) -> int:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return len(buffer.getvalue())
