"""Eight densities in the plane with known samplers and known log-densities.

Log-densities are computed in float64, by formula or Gauss-Legendre quadrature along the curve.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.errors import DataError, InputError

__all__ = ["Density2D", "density", "density_names"]

_CHUNK_POINTS = 2**14
# Points times nodes held at once: half a megabyte for each float64 temporary stays in cache.
_CHUNK_ELEMENTS = 2**16


@dataclass(frozen=True)
class _Draws:
    """Random numbers of one dtype from one generator."""

    generator: torch.Generator | None
    dtype: torch.dtype

    @property
    def device(self) -> torch.device | None:
        return None if self.generator is None else self.generator.device

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=self.dtype, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=self.dtype, device=self.device)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.generator, device=self.device)


@dataclass(frozen=True)
class Density2D(ABC):
    """A density on the plane that can be sampled and scored.

    The square [-extent, extent]^2 holds all but 1e-6 of the mass, and in it `log_prob` is right to
    1e-6.
    """

    name: str
    description: str
    extent: float

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draw [n, 2] in `dtype` (torch's default dtype unless given); InputError for a bad n."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise InputError(f"the number of samples must be an integer of 0 or more, got {n!r}.")
        return self._draw(n, _Draws(generator, dtype or torch.get_default_dtype()))

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, [*, 2] -> [*], in chunks of bounded memory; InputError for a bad x."""
        if not x.is_floating_point() or x.ndim == 0 or x.shape[-1] != 2:
            raise InputError(
                f"the density {self.name!r} scores floating-point points of shape [n, 2], "
                f"got {x.dtype} of shape {list(x.shape)}."
            )
        points = x.reshape(-1, 2).double()
        scores = torch.cat([self._score(chunk) for chunk in torch.split(points, _CHUNK_POINTS)])
        return scores.reshape(x.shape[:-1]).to(x.dtype)

    @abstractmethod
    def _draw(self, n: int, draws: _Draws) -> Tensor: ...

    @abstractmethod
    def _score(self, x: Tensor) -> Tensor:
        """[n, 2] -> [n], both float64."""


def _log_isotropic_gaussian(x: Tensor, centers: Tensor, noise: float) -> Tensor:
    """log N(x; center, noise^2 I) for every pair, [n, 2] and [k, 2] -> [n, k]."""
    horizontal = x[:, None, 0] - centers[:, 0]
    vertical = x[:, None, 1] - centers[:, 1]
    square = horizontal.square() + vertical.square()
    return square / (-2 * noise**2) - math.log(2 * math.pi * noise**2)


def _polar(radius: Tensor | float, angle: Tensor) -> Tensor:
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)


@dataclass(frozen=True)
class _NoisyCurve(Density2D):
    """p(x) = mean over arms of int_0^1 N(x; c_arm(s), noise^2 I) power s^(power - 1) ds."""

    arms: Callable[[Tensor], Tensor]  # [n] -> [n, arms, 2]
    power: int
    noise: float
    panels: int
    halvings: int = 4
    order: int = 16

    def _draw(self, n: int, draws: _Draws) -> Tensor:
        points = self.arms(draws.uniform(n) ** (1 / self.power))
        arm = draws.integers(points.shape[1], n)
        return points[torch.arange(n, device=arm.device), arm] + self.noise * draws.normal(n, 2)

    def _nodes(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Points on the curve [k, 2] and their log-weights [k]."""
        import numpy as np

        # Far from the curve one of its ends can dominate, with an integrand that decays fast from
        # there: without the halved panels the error is 0.8 nats at three times the extent.
        inner = np.linspace(0, 1, self.panels + 1)
        ends = inner[1] * 0.5 ** np.arange(1, self.halvings + 1)
        edges = torch.from_numpy(np.sort(np.concatenate((inner, ends, 1 - ends)))).to(like)
        abscissae, weights = np.polynomial.legendre.leggauss(self.order)
        width = edges.diff()[:, None]
        s = (edges[:-1, None] + width * torch.from_numpy((abscissae + 1) / 2).to(like)).flatten()
        weight = (width * torch.from_numpy(weights / 2).to(like)).flatten()
        log_weight = weight.log() + math.log(self.power) + (self.power - 1) * s.log()
        points = self.arms(s)
        arms = points.shape[1]
        return points.flatten(0, 1), (log_weight - math.log(arms)).repeat_interleave(arms)

    def _score(self, x: Tensor) -> Tensor:
        points, log_weight = self._nodes(x)
        chunks = torch.split(x, max(1, _CHUNK_ELEMENTS // len(points)))
        terms = (
            _log_isotropic_gaussian(chunk, points, self.noise) + log_weight for chunk in chunks
        )
        return torch.cat([term.logsumexp(-1) for term in terms])


def _moons(s: Tensor) -> Tensor:
    a = math.pi * s
    upper = torch.stack((a.cos(), a.sin()), dim=-1)
    lower = torch.stack((1 - a.cos(), 0.5 - a.sin()), dim=-1)
    return torch.stack((upper, lower), dim=1)


def _spirals(s: Tensor) -> Tensor:
    arm = _polar(3 * s, 3 * math.pi * s)
    return torch.stack((arm, -arm), dim=1)


def _swissroll(s: Tensor) -> Tensor:
    t = 1.5 * math.pi * (1 + 2 * s)
    return _polar(t / 5, t)[:, None]


@dataclass(frozen=True)
class _Rings(Density2D):
    """p(x) = mean_r N(|x| - r; 0, noise^2) i0e(|x| r / noise^2) / (sqrt(2 pi) noise)."""

    radii: tuple[float, ...]
    noise: float

    def _draw(self, n: int, draws: _Draws) -> Tensor:
        ring = draws.integers(len(self.radii), n)
        radius = torch.tensor(self.radii, dtype=draws.dtype, device=ring.device)[ring]
        return _polar(radius, 2 * math.pi * draws.uniform(n)) + self.noise * draws.normal(n, 2)

    def _score(self, x: Tensor) -> Tensor:
        variance = self.noise**2
        radii = torch.tensor(self.radii, dtype=x.dtype, device=x.device)
        distance: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        # I0 itself overflows from |x| r = 713 noise^2 on, which is 7.1 for rings.
        log_bessel: Tensor = torch.special.i0e(distance * radii / variance).log()
        terms = log_bessel - (distance - radii).square() / (2 * variance)
        return terms.logsumexp(-1) - math.log(2 * math.pi * variance * len(self.radii))


@dataclass(frozen=True)
class _GaussianCircle(Density2D):
    """p(x) = mean over k of N(x; radius (cos 2 pi k / count, sin 2 pi k / count), noise^2 I)."""

    count: int
    radius: float
    noise: float

    def _centers(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        angle = torch.arange(self.count, dtype=dtype, device=device) * (2 * math.pi / self.count)
        return _polar(self.radius, angle)

    def _draw(self, n: int, draws: _Draws) -> Tensor:
        component = draws.integers(self.count, n)
        centers = self._centers(draws.dtype, component.device)
        return centers[component] + self.noise * draws.normal(n, 2)

    def _score(self, x: Tensor) -> Tensor:
        centers = self._centers(x.dtype, x.device)
        return _log_isotropic_gaussian(x, centers, self.noise).logsumexp(-1) - math.log(self.count)


@dataclass(frozen=True)
class _Checkerboard(Density2D):
    """p(x) = 1 / 32 where -4 <= x, y < 4 and floor(x / 2) + floor(y / 2) is even, else 0."""

    def _draw(self, n: int, draws: _Draws) -> Tensor:
        row = draws.integers(4, n)
        column = 2 * draws.integers(2, n) + row % 2
        corner = 2.0 * torch.stack((column, row), dim=-1).to(draws.dtype) - 4.0
        x = corner + 2 * draws.uniform(n, 2)
        # Rounding can put a point on the far edge, which belongs to a square of the other colour.
        return torch.minimum(x, torch.nextafter(corner + 2, corner))

    def _score(self, x: Tensor) -> Tensor:
        square = (x / 2).floor()
        inside = ((square >= -2) & (square < 2)).all(-1) & (square.sum(-1) % 2 == 0)
        # 0 x keeps nan as nan and lets a gradient (of zero) flow.
        flat = 0 * x.nan_to_num(nan=math.nan, posinf=0.0, neginf=0.0).sum(-1)
        return flat.masked_fill(~inside & ~flat.isnan(), -math.inf) - math.log(32)


@dataclass(frozen=True)
class _Pinwheel(Density2D):
    """p(x) = mean_k N(R(-2 pi k / arms - twist e^|x|) x; (1, 0), diag(radial, tangential)^2)."""

    arms: int
    radial: float
    tangential: float
    twist: float

    def _angle(self, x: Tensor) -> Tensor:
        """Angle by which a point at the distance |x| is turned, [n, 2] -> [n]."""
        # Past |x| = 30 the angle has no correct digit left, and e^|x| would reach inf and then nan.
        distance: Tensor = torch.linalg.vector_norm(x, dim=-1)
        return self.twist * distance.clamp(max=30).exp()

    def _draw(self, n: int, draws: _Draws) -> Tensor:
        noise = draws.normal(n, 2)
        x = torch.stack((1 + self.radial * noise[:, 0], self.tangential * noise[:, 1]), dim=-1)
        angle = 2 * math.pi / self.arms * draws.integers(self.arms, n) + self._angle(x)
        c, s = angle.cos(), angle.sin()
        return torch.stack((c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]), dim=-1)

    def _score(self, x: Tensor) -> Tensor:
        arm = torch.arange(self.arms, dtype=x.dtype, device=x.device) * (2 * math.pi / self.arms)
        angle = self._angle(x)[:, None] + arm
        c, s = angle.cos(), angle.sin()
        along = (c * x[:, :1] + s * x[:, 1:] - 1) / self.radial
        across = (c * x[:, 1:] - s * x[:, :1]) / self.tangential
        # A rotation by an angle that depends only on |x| preserves volume: no Jacobian term.
        log_norm = math.log(2 * math.pi * self.radial * self.tangential * self.arms)
        return (-(along.square() + across.square()) / 2).logsumexp(-1) - log_norm


_DENSITIES: dict[str, Density2D] = {
    d.name: d
    for d in (
        _NoisyCurve(
            "moons",
            "(cos a, sin a) or (1 - cos a, 1/2 - sin a), a ~ U[0, pi], noise 0.1",
            extent=2.6,
            arms=_moons,
            power=1,
            noise=0.1,
            panels=12,
        ),
        _Rings(
            "circles",
            "uniform on the circles of radius 1 and 1/2, noise 0.08",
            extent=1.5,
            radii=(1.0, 0.5),
            noise=0.08,
        ),
        _Rings(
            "rings",
            "uniform on the circles of radius 1, 2, 3 and 4, equal weights, noise 0.1",
            extent=4.6,
            radii=(1.0, 2.0, 3.0, 4.0),
            noise=0.1,
        ),
        _GaussianCircle(
            "8gaussians",
            "centres 2 (cos k pi/4, sin k pi/4), k = 0, ..., 7, noise 0.2",
            extent=3.1,
            count=8,
            radius=2.0,
            noise=0.2,
        ),
        _Checkerboard(
            "checkerboard",
            "uniform where floor(x / 2) + floor(y / 2) is even in [-4, 4]^2",
            extent=4.0,
        ),
        _NoisyCurve(
            "spirals",
            "+-(r cos a, r sin a), r = a / pi, a = 3 pi sqrt(u), u ~ U[0, 1], noise 0.1",
            extent=3.6,
            arms=_spirals,
            power=2,
            noise=0.1,
            panels=40,
        ),
        _Pinwheel(
            "pinwheel",
            "R(2 pi k / 5 + e^|y| / 4) y, y ~ N((1, 0), diag(0.3, 0.1)^2), k = 0, ..., 4",
            extent=2.6,
            arms=5,
            radial=0.3,
            tangential=0.1,
            twist=0.25,
        ),
        _NoisyCurve(
            "swissroll",
            "(t cos t, t sin t) / 5, t = 1.5 pi (1 + 2 u), u ~ U[0, 1], noise 0.1",
            extent=3.4,
            arms=_swissroll,
            power=1,
            noise=0.1,
            panels=40,
        ),
    )
}


def density_names() -> tuple[str, ...]:
    """Names that `density` knows."""
    return tuple(_DENSITIES)


def density(name: str) -> Density2D:
    """Look up a density by name; DataError with a suggestion for an unknown name."""
    if name in _DENSITIES:
        return _DENSITIES[name]
    close = difflib.get_close_matches(str(name).lower(), _DENSITIES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_DENSITIES)}."
    raise DataError(f"there is no 2-D density {name!r}; {hint}")
