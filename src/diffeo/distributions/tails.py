"""Bases with other tails than the Gaussian's: Laplace, Student-t and generalized normal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import StudentT as TorchStudentT

from ..nets import NetFactory
from ..parts import register
from .base import as_event, positive
from .location_scale import LocationScale
from .student import log_tail, quantile


@register
class Laplace(LocationScale):
    """log p = sum -|eps| - log 2 - log_scale: exponential tails. Parameters as in `DiagonalNormal`."""

    def standard_log_prob(self, eps: Tensor, *shape: Tensor) -> Tensor:
        log_p: Tensor = TorchLaplace(0.0, 1.0, validate_args=False).log_prob(eps)
        return log_p

    def draw(self, n: int, generator: torch.Generator | None, *shape: Tensor) -> Tensor:
        u = self._open_rand(n, generator)
        drawn: Tensor = TorchLaplace(torch.zeros_like(u), 1.0, validate_args=False).icdf(u)
        return drawn

    def standard_score(self, eps: Tensor, *shape: Tensor) -> Tensor:
        return from_tail(eps, lambda a: -a - math.log(2))

    def standard_quantile(self, score: Tensor, *shape: Tensor) -> Tensor:
        log_p: Tensor = torch.special.log_ndtr(-score.abs())
        return -score.sign() * (math.log(2) + log_p)


@register
class StudentT(LocationScale):
    """Student-t: f(eps) ~ (1 + eps^2 / df)^(-(df + 1) / 2), so P(|eps| > a) falls as a^-df.

    df: degrees of freedom, one number or one per entry; learned as df = floor + exp(raw). Samples are drawn with
    gradients by sqrt(df (U^(-2/df) - 1)) cos(2 pi V) (Bailey, 1994, doi:10.1090/S0025-5718-1994-1219702-8). The rest as
    in `DiagonalNormal`. Jaini et al., Tails of Lipschitz triangular flows, 2020, arXiv:1907.04481.

    Raises ConfigError for a df that is not above the floor.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        df: Any = 5.0,
        loc: Any = 0.0,
        scale: Any = 1.0,
        learned: bool = True,
        *,
        floor: float = 0.5,
        net: nn.Module | NetFactory | None = None,
        context_shape: Any = None,
    ) -> None:
        event = tuple(event_shape)
        raw = positive(as_event(df, event, f"StudentT{event}"), "StudentT: df", floor)
        super().__init__(
            event_shape,
            loc,
            scale,
            learned,
            shape={"raw_df": raw},
            net=net,
            context_shape=context_shape,
        )
        self.floor = floor

    raw_df: Tensor

    @property
    def df(self) -> Tensor:
        """Degrees of freedom per entry, without what a network adds, [*event_shape]."""
        return self._df(self.raw_df)

    def _df(self, raw: Tensor) -> Tensor:
        return self.floor + raw.exp()

    def standard_log_prob(self, eps: Tensor, *shape: Tensor) -> Tensor:
        log_p: Tensor = TorchStudentT(self._df(shape[0]), validate_args=False).log_prob(eps)
        return log_p

    def draw(self, n: int, generator: torch.Generator | None, *shape: Tensor) -> Tensor:
        df = self._df(shape[0])
        radius = (df * torch.expm1(-2 / df * self._open_rand(n, generator).log())).sqrt()
        return radius * (2 * math.pi * self._rand(n, generator)).cos()

    def standard_score(self, eps: Tensor, *shape: Tensor) -> Tensor:
        return from_tail(eps, lambda a: log_tail(a, self._df(shape[0])))

    def standard_quantile(self, score: Tensor, *shape: Tensor) -> Tensor:
        log_p = torch.special.log_ndtr(-score.abs())
        return score.sign() * quantile(log_p, self._df(shape[0]).expand_as(log_p))

    def config(self) -> dict[str, Any]:
        return super().config() | {"floor": self.floor}


@register
class GeneralizedNormal(LocationScale):
    """log f(eps) = log power - log 2 - lgamma(1 / power) - |eps|^power; power 2 is Gaussian, 1 is Laplace.

    power: one number or one per entry; learned as power = floor + exp(raw). Samples are Gamma(1 / power)^(1 / power)
    with a random sign. The rest as in `DiagonalNormal`. Raises ConfigError for a power that is not above the floor.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        power: Any = 2.0,
        loc: Any = 0.0,
        scale: Any = 1.0,
        learned: bool = True,
        *,
        floor: float = 0.5,
        net: nn.Module | NetFactory | None = None,
        context_shape: Any = None,
    ) -> None:
        event, name = tuple(event_shape), "GeneralizedNormal"
        raw = positive(as_event(power, event, f"{name}{event}"), f"{name}: power", floor)
        super().__init__(
            event_shape,
            loc,
            scale,
            learned,
            shape={"raw_power": raw},
            net=net,
            context_shape=context_shape,
        )
        self.floor = floor

    raw_power: Tensor

    @property
    def power(self) -> Tensor:
        """The power per entry, without what a network adds, [*event_shape]."""
        return self._power(self.raw_power)

    def _power(self, raw: Tensor) -> Tensor:
        return self.floor + raw.exp()

    def standard_log_prob(self, eps: Tensor, *shape: Tensor) -> Tensor:
        power = self._power(shape[0])
        # At 0 the gradient by the power is 0 log 0.
        size = eps.abs().clamp(min=torch.finfo(eps.dtype).tiny)
        return power.log() - math.log(2) - torch.lgamma(1 / power) - size.pow(power)

    def draw(self, n: int, generator: torch.Generator | None, *shape: Tensor) -> Tensor:
        power = self._power(shape[0]).expand(n, *self.event_shape)
        gamma: Tensor = torch._standard_gamma(1 / power, generator=generator)
        sign = (self._rand(n, generator) - 0.5).sign()
        return sign * gamma.clamp(min=torch.finfo(gamma.dtype).tiny).pow(1 / power)

    def config(self) -> dict[str, Any]:
        return super().config() | {"floor": self.floor}


def from_tail(eps: Tensor, log_tail: Callable[[Tensor], Tensor]) -> Tensor:
    """Phi^-1(F(eps)) of a symmetric law, from log P(> a), a = |eps|: no digits are lost in either tail."""
    tiny = torch.finfo(eps.dtype).tiny
    p = log_tail(eps.abs().clamp(min=tiny)).exp().clamp(min=tiny)
    size: Tensor = -torch.special.ndtri(p)
    return eps.sign() * size
