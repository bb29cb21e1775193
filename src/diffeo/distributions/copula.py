"""Joint bases from marginals: products of blocks, and the Gaussian copula."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..nets import NetFactory
from ..parts import ContextShape, register, sum_event
from .base import Context, Distribution, Parametric
from .location_scale import LocationScale


@register
class Product(Distribution):
    """Independent blocks of a vector, one after another: log p(z) = sum_k log p_k(z_k).

    bases: over vectors, such as `Laplace((1,))` and `StudentT((3,))`; their common support must be the real line.
    """

    def __init__(self, bases: Sequence[Distribution]) -> None:
        bases = list(bases)
        shapes = [base.event_shape for base in bases]
        if not bases or any(len(shape) != 1 for shape in shapes):
            raise ShapeError(f"Product takes bases over vectors, got events {shapes}")
        if any(base.domain != bases[0].domain for base in bases):
            raise ConfigError(
                f"Product takes bases with one support, got {[str(b.domain) for b in bases]}"
            )
        super().__init__((sum(n for (n,) in shapes),), _common_context(bases))
        self.bases = nn.ModuleList(bases)
        self.sizes = [n for (n,) in shapes]
        self.domain = bases[0].domain
        self.reparameterized = all(base.reparameterized for base in bases)

    def _each(self, method: str, z: Tensor, context: Context) -> list[Tensor]:
        parts = z.split(self.sizes, dim=1)
        found = []
        for base, part in zip(self.bases, parts, strict=True):
            own = context if base.context_shape is not None else None
            found.append(getattr(base, method)(part, own))
        return found

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        return torch.stack(self._each("log_prob", z, context)).sum(0)

    def sample(
        self,
        n: int,
        context: Context = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        drawn = [
            base.sample(n, context, temperature=temperature, generator=generator)  # type: ignore[operator]
            for base in self.bases
        ]
        return torch.cat(drawn, dim=1)

    def score(self, z: Tensor, context: Context = None) -> Tensor:
        """Gaussian scores of every entry, see `LocationScale`."""
        return torch.cat(self._each("score", z, context), dim=1)

    def quantile(self, score: Tensor, context: Context = None) -> Tensor:
        """The inverse of `score`."""
        return torch.cat(self._each("quantile", score, context), dim=1)

    def config(self) -> dict[str, Any]:
        return {"bases": list(self.bases)}


@register
class Copula(Parametric):
    """A Gaussian copula over marginals F_j: log q(z) = log c(Phi(eps)) + sum_j log f_j(z_j), eps_j = Phi^-1(F_j(z_j)).

    log c = -1/2 eps^T (R^-1 - I) eps - 1/2 log det R; R = L L^T has ones on its diagonal, L is lower triangular and
    learned, I at first, so the marginals are independent at first. marginals: a base over vectors with a quantile
    function (`DiagonalNormal`, `Laplace`, `StudentT`, or a `Product` of such). An `Elementwise` transform in front of
    the flow's base, such as a spline, learns marginals of any shape. net, context_shape: L from a network of the
    context, see `Parametric`.

    Laszkiewicz, Lederer, Fischer. Copula-based normalizing flows. 2021, arXiv:2107.07352.
    Raises ConfigError for marginals without a quantile function.
    """

    def __init__(
        self,
        marginals: Distribution,
        *,
        net: nn.Module | NetFactory | None = None,
        context_shape: Any = None,
    ) -> None:
        if not _has_quantile(marginals) or len(marginals.event_shape) != 1:
            raise ConfigError(
                "Copula takes marginals over vectors with a quantile function, such as StudentT((2,)), got "
                f"{type(marginals).__name__}"
            )
        (d,) = marginals.event_shape
        start = {"lower": torch.zeros(d * (d - 1) // 2)}
        super().__init__((d,), start, net=net, context_shape=context_shape)
        assert isinstance(marginals, LocationScale | Product)
        self.marginals = marginals
        self.context_shape = _common_context([marginals], self.context_shape)
        self.reparameterized = marginals.reparameterized
        self.rows: Tensor
        self.columns: Tensor
        index = torch.tril_indices(d, d, -1)
        self.register_buffer("rows", index[0], persistent=False)
        self.register_buffer("columns", index[1], persistent=False)

    def _own(self, context: Context) -> Context:
        return context if self.marginals.context_shape is not None else None

    def factor(self, n: int, context: Context = None) -> Tensor:
        """L, [1 or n, D, D], with rows of length 1."""
        (lower,) = self.values(n, context)
        eye = torch.eye(self.event_shape[0], dtype=lower.dtype, device=lower.device)
        full = eye.expand(lower.shape[0], -1, -1).index_put(
            (torch.arange(lower.shape[0], device=lower.device)[:, None], self.rows, self.columns),
            lower,
        )
        lengths: Tensor = torch.linalg.vector_norm(full, dim=-1, keepdim=True)
        return full / lengths

    def correlation(self, n: int = 1, context: Context = None) -> Tensor:
        """R = L L^T, [1 or n, D, D]; a context has n rows."""
        factor = self.factor(n, context)
        r: Tensor = factor @ factor.mT
        return r

    def log_prob(self, z: Tensor, context: Context = None) -> Tensor:
        own = self._own(context)
        # Infinite scores would give inf - inf; where they are, the marginals' density is 0.
        limit = torch.finfo(z.dtype).max ** 0.25
        eps = self.marginals.score(z, own).clamp(-limit, limit)
        factor = self.factor(z.shape[0], context)
        white = torch.linalg.solve_triangular(
            factor.expand(z.shape[0], -1, -1), eps[..., None], upper=False
        )[..., 0]
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_c: Tensor = 0.5 * sum_event(eps.square() - white.square()) - log_det
        log_f: Tensor = self.marginals.log_prob(z, own)
        return log_c + log_f

    def sample(
        self,
        n: int,
        context: Context = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        own = self._own(context)
        white = self._randn(n, generator)[..., None]
        eps = (self.factor(n, context) @ white)[..., 0]
        z: Tensor = self.marginals.quantile(eps, own)
        center: Tensor = self.marginals.quantile(torch.zeros_like(eps), own)
        return center + temperature * (z - center)

    def config(self) -> dict[str, Any]:
        return {
            "marginals": self.marginals,
            "net": self.net,
            "context_shape": self.context_shape if self.net is not None else None,
        }


def _has_quantile(base: Distribution) -> bool:
    if isinstance(base, Product):
        return all(_has_quantile(b) for b in base.bases)  # type: ignore[arg-type]
    return isinstance(base, LocationScale) and base.has_quantile


def _common_context(bases: Sequence[Distribution], first: ContextShape = None) -> ContextShape:
    """The one context shape of several bases. Raises ShapeError if two differ."""
    found = first
    for base in bases:
        if base.context_shape is None:
            continue
        if found is not None and base.context_shape != found:
            raise ShapeError(f"two bases take different contexts: {found} and {base.context_shape}")
        found = base.context_shape
    return found


@contextmanager
def frozen(*parts: nn.Module | nn.Parameter) -> Iterator[None]:
    """Within it, training leaves these modules and parameters as they are; afterwards they are as before.

    Two-stage estimation of a copula: `with frozen(flow.transform, base.lower): diffeo.fit(flow, x)` fits the marginals,
    and `diffeo.fit(flow, x)` after it the rest.
    """
    found = [[part] if isinstance(part, nn.Parameter) else part.parameters() for part in parts]
    parameters = [p for some in found for p in some if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)
