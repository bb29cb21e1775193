"""The greatest singular value of a linear map, whose vectors are state that follows the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..krylov import widened
from ..parts import REFRESH_TOLERANCE, TRAINING_TOLERANCE
from ..tracing import kept
from .lipschitz_layers import LipschitzLayer
from .norms import length, unit
from .singular import MORE, marks, probe, same, search

TOLERANCE = TRAINING_TOLERANCE
"""By how much u^T W v may be short of the norm: the iteration stops when W^T u is as close to v, or far closer."""

MAX_STEPS = 2000


class Spectral(LipschitzLayer):
    """A linear map W with u and v of norm 1 that make u^T W v its 2-norm, moved by `refresh` where W has changed.

    Maps that are `alike` are refreshed as one, in a batch. spectral: whether the 2-norm is wanted at all.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    u: Tensor
    v: Tensor
    beside: Tensor
    spectral: bool
    decayed = ("weight",)

    def __init__(self) -> None:
        super().__init__()
        self._seen: tuple[int, ...] = ()
        self._reached = math.inf
        self._mark = [math.nan, math.nan]

    def _start(self, fan_in: int, into: Sequence[int], out: Sequence[int]) -> None:
        bound = 1 / math.sqrt(max(fan_in, 1))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        nn.init.uniform_(self.bias, -bound, bound)
        self.register_buffer("u", unit(torch.randn(1, *out))[0])
        self.register_buffer("v", unit(torch.randn(1, *into))[0])
        self.register_buffer("beside", torch.zeros(into), persistent=False)
        if not self.weight.is_meta:
            self.refresh(TRAINING_TOLERANCE)

    def _image(self, v: Tensor, weight: Tensor) -> Tensor:
        """W v, also for a leading axis of both."""
        raise NotImplementedError

    def _back(self, u: Tensor, weight: Tensor) -> Tensor:
        """W^T u, for a leading axis of both."""
        raise NotImplementedError

    def two_norm(self) -> Tensor:
        """The 2-norm of W as far as it is known: a differentiable function of W."""
        u, v = self.u, self.v
        if torch.is_grad_enabled():
            # A backward pass can come after the next refresh.
            u, v = kept(u), kept(v)
        return torch.dot(u.flatten(), self._image(v, self.weight).flatten())

    def refresh(self, tolerance: float = REFRESH_TOLERANCE) -> None:
        self.refresh_together([self], tolerance)

    def alike(self) -> Any:
        w = self.weight
        return type(self), w.shape, self.u.shape, self.v.shape, self.spectral, w.dtype, w.device

    def stale(self, tolerance: float) -> bool:
        """Whether weights changed since the last refresh to this tolerance, as far as their versions say."""
        if self.weight.is_meta:
            return False
        return self._fingerprint() != self._seen or self._reached > tolerance

    def _fingerprint(self) -> tuple[int, int]:
        w = self.weight
        return w.data_ptr(), -1 if w.is_inference() else w._version

    @staticmethod
    @torch.no_grad()
    def refresh_together(parts: Sequence[Any], tolerance: float) -> None:
        one = parts[0]
        if one.weight.is_meta:
            return
        if one.spectral:
            # The error of a product would be that of the rounding.
            with torch.autocast(one.weight.device.type, enabled=False):
                one._follow(parts, tolerance)
        for o in parts:
            seen = o._fingerprint()
            o._reached = min(tolerance, o._reached) if seen == o._seen else tolerance
            o._seen = seen

    def _follow(self, parts: Sequence[Any], tolerance: float) -> None:
        """u and v of parts that are alike, to the present weights."""
        w, u, v = (_stacked(parts, name) for name in ("weight", "u", "v"))
        rounding = torch.finfo(self.weight.dtype).eps
        thorough, tolerance = tolerance < TRAINING_TOLERANCE, max(tolerance, 4 * rounding)
        # Weights can change without a trace, by `weight.data`. In training they change anyway.
        known = zip(parts, marks(w, u, v), strict=True) if thorough else ()
        rest = {o for o, mark in known if not o.stale(tolerance) and same(o._mark, mark)}
        # What is no number stays, and does not stop the others.
        peak = w.flatten(1).abs().amax(1)
        finite = peak.isfinite().tolist()
        rows = [i for i, o in enumerate(parts) if finite[i] and o not in rest]
        if not rows:
            return
        parts, w, u, v, peak = [parts[i] for i in rows], w[rows], u[rows], v[rows], peak[rows]
        new = unit(self._back(u, w))
        image = unit(self._image(new, w))
        lost = ~(length(new) > 0)
        going = lost
        for a, b in ((new, v), (image, u)):
            # Averages of vectors of length 1 are shorter.
            going = going | ((length(b) - 1).abs() > max(TOLERANCE / 10, 4 * rounding))
            # What is at rest is so in another precision too.
            going = going | ~(length(a - b) <= 2 * tolerance * length(b))
        # The vectors do not depend on the scale, which could be out of the range of squares.
        w = w / _over(peak.clamp(min=torch.finfo(w.dtype).tiny), w)
        # Nothing of u is left, though the map need not be zero.
        start = unit(torch.where(_over(lost, v), probe(v), new))
        beside = _stacked(parts, "beside")
        found, beside = self._search(start, beside, w, tolerance, thorough)
        if not bool(going.all()):
            # What is at rest stays, bit for bit, unless it is at a lesser vector.
            before, after = (length(self._image(a, w)) / length(a) for a in (v, found))
            going = going | (after > (1 + MORE) * before)
        v = torch.where(_over(going, v), found, v)
        u = torch.where(_over(going, u), unit(self._image(v, w)), u)
        for name, values in (("u", u), ("v", v), ("beside", beside)):
            torch._foreach_copy_([getattr(o, name) for o in parts], values.unbind())
        if thorough:
            now = (_stacked(parts, name) for name in ("weight", "u", "v"))
            for o, mark in zip(parts, marks(*now), strict=True):
                o._mark = mark

    def _search(
        self, v: Tensor, beside: Tensor, weight: Tensor, tolerance: float, thorough: bool
    ) -> tuple[Tensor, Tensor]:
        """The input that is stretched most, from v, and one beside it."""
        into, out = v.shape, (len(v), *self.u.shape)
        found, beside = search(
            lambda a: self._image(a.reshape(into), weight).flatten(1),
            lambda a: self._back(a.reshape(out), weight).flatten(1),
            v.flatten(1),
            beside.flatten(1),
            tolerance,
            MAX_STEPS,
            thorough=thorough,
        )
        return found.reshape(into), beside.reshape(into)


def _over(a: Tensor, like: Tensor) -> Tensor:
    """a [maps], to be broadcast over `like` [maps, ...]."""
    return a.reshape(-1, *[1] * (like.ndim - 1))


def _stacked(parts: Sequence[Spectral], name: str) -> Tensor:
    """A tensor of every part, [maps, ...], with the digits that decompositions need."""
    return widened(torch.stack([getattr(o, name) for o in parts]))
