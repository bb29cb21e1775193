"""Convex potential transform: z = grad G(x), the gradient of a strongly convex function.

Huang, Chen, Tsirigotis, Courville. Convex potential flows: universal probability distributions with optimal transport
and convex optimization. ICLR 2021, arXiv:2012.05942. The map between two densities that moves mass at the least mean
squared distance is of this kind, and no other map of this kind takes one to the other (Brenier, 1991).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, ShapeError
from ..krylov import Product, conjugate_gradients, log_quadratic_form
from ..nets.convex import InputConvex
from ..noise import draw
from ..parts import register
from ..tracing import eager
from .base import Bounds, Context, Noise, Transform, rows_of
from .convex_inverse import STEPS, FirstOnly, cholesky, direct_newton, find, implicit_step

EXACT = 100
"""Entries up to which the Hessian is made as a matrix, where nothing else is asked for."""

Estimator = Literal["auto", "exact", "lanczos"]


@register
class ConvexPotential(Transform):
    """z = grad G(x, context), G = g F(x, context) + (strong + c) |x|^2 / 2; ladj = log det of the Hessian of G.

    potential: F, an `InputConvex` network, or a callable that makes one from (event_shape, context_shape=). g and c are
    learned and positive; strong + c is 1 at first. The Hessian is at least strong, so the inverse is a strictly convex
    problem with Lipschitz constant 1 / strong at most: Newton's method to the rounding of the dtype, with gradients of
    the implicit function.

    estimator, of ladj: `exact` by the Cholesky factor of the Hessian H, by D products with it. `lanczos` keeps none of
    its products: conjugate gradients u = H^-1 v for `probes` vectors v of random signs an example, by at most `steps`
    products, to a residual of `tolerance` |v|. The value is the Gauss-Radau quadrature of v^T log(H) v with a node at
    strong + c, in expectation at most the truth. Its gradient is that of u^T H v at fixed u, in expectation the true
    one up to the tolerance, for any weights of the examples; second derivatives are not those of the log-determinant.
    The inverse, which is given no v, then has ladj NaN: it is that of forward at x. auto: exact up to 100 entries.

    Raises ConfigError or ShapeError for values that do not fit, ConvergenceError in the inverse.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        potential: InputConvex | Callable[..., InputConvex],
        *,
        strong: float = 0.01,
        estimator: Estimator = "auto",
        probes: int = 1,
        steps: int = 100,
        tolerance: float = 1e-3,
        context_shape: Any = None,
    ) -> None:
        super().__init__(event_shape, context_shape=context_shape)
        size = math.prod(self.event_shape)
        if not 0 < strong < 1:
            raise ConfigError(f"{self.name} needs 0 < strong < 1, got {strong}")
        if estimator not in ("auto", "exact", "lanczos"):
            raise ConfigError(f"estimator must be auto, exact or lanczos, got {estimator!r}")
        if probes < 1 or steps < 1 or not 0 < tolerance < 1:
            raise ConfigError(
                f"{self.name} needs probes and steps of 1 or more and a tolerance in (0, 1), got {probes}, {steps} and "
                f"{tolerance}"
            )
        if not isinstance(potential, InputConvex):
            potential = potential(self.event_shape, context_shape=self.context_shape)
        if not isinstance(potential, InputConvex):
            raise ConfigError(
                f"{self.name} needs an input-convex network, such as ICNN, got {type(potential).__name__}"
            )
        if potential.in_shape != self.event_shape or potential.context_shape != self.context_shape:
            raise ShapeError(
                f"{self.name} with context {self.context_shape} cannot use {type(potential).__name__} of "
                f"{potential.in_shape} with context {potential.context_shape}"
            )
        self.potential = potential
        self.strong, self.estimator = strong, estimator
        self.probes, self.steps_taken, self.tolerance = probes, steps, tolerance
        self.exact = estimator == "exact" or (estimator == "auto" and size <= EXACT)
        self.gain = nn.Parameter(torch.zeros(()))
        self.curvature = nn.Parameter(torch.tensor(math.log(math.expm1(1 - strong))))
        self.properties = replace(
            self.properties,
            inverse="iterative",
            inverse_lipschitz=1 / strong,
            bias=f"inverse to {STEPS} Newton steps or the rounding of the dtype",
        )
        if not self.exact:
            self.properties = replace(
                self.properties,
                kind="estimate",
                bias=f"log-determinant by {steps} Lanczos steps or to {tolerance:g}, in expectation too low",
            )

    @property
    def stochastic(self) -> bool:
        return not self.exact

    def draw(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        center: bool = False,
        like: Tensor | None = None,
    ) -> Noise:
        """Probes [n, probes, D]; the centre has none, as z needs none, and the estimate is then NaN."""
        if self.exact:
            return None
        like = self.gain.detach() if like is None else like
        shape = (n, 0 if center else self.probes, math.prod(self.event_shape))
        u = draw(shape, like, generator, normal=False)
        return torch.where(u < 0.5, -torch.ones_like(u), torch.ones_like(u))

    def _scales(self) -> tuple[Tensor, Tensor]:
        """The factor of F and that of |x|^2 / 2."""
        return F.softplus(self.gain), self.strong + F.softplus(self.curvature)

    def _at(self, x: Tensor, context: Context) -> tuple[Tensor, Callable[[], Tensor], Product]:
        """z, the Hessian [n, D, D] when called, and its product with [n, m, D]; in full precision."""
        gain, curvature = self._scales()
        at = self.potential.linearize(x, context)

        def hessian() -> Tensor:
            h = gain * at.dense()
            eye = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
            return h + curvature * eye

        def product(v: Tensor) -> Tensor:
            return gain * at.product(v) + curvature * v

        return gain * at.gradient + curvature * x, hessian, product

    def forward(
        self, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        # The network is the flow's own arithmetic: full precision under autocast.
        with torch.autocast(x.device.type, enabled=False):
            z, hessian, product = self._at(x, context)
            if self.exact:
                return z, log_det(hessian())
            if noise is None:
                noise = self.draw(len(x), like=x)
            assert isinstance(noise, Tensor)
            return z, self._estimate(product, noise.to(x))

    def _estimate(self, product: Product, v: Tensor) -> Tensor:
        """The mean over probes v [n, p, D], with the gradient of conjugate gradients."""
        if not v.shape[1]:
            return v.new_full((len(v),), math.nan)
        steps = min(self.steps_taken, v.shape[-1] + 10)
        found = conjugate_gradients(product, v, steps=steps, tolerance=self.tolerance)
        with torch.no_grad():
            value = log_quadratic_form(found, self._scales()[1].detach()).mean(1)
        if not torch.is_grad_enabled():
            return value
        pairing = (found.x * product(v)).sum(-1).mean(1)
        if eager():
            pairing = FirstOnly.apply(pairing)  # type: ignore[no-untyped-call]
        return value + (pairing - pairing.detach())

    def inverse(self, z: Tensor, context: Context = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(z.device.type, enabled=False):
            given = z.flatten(1)
            finite = given.isfinite().all(1)
            # The search sees zeros in place of what is not finite, so that no NaN reaches a gradient.
            y = torch.where(finite[:, None], given, torch.zeros_like(given))

            def at(
                x: Tensor, rows: Tensor | None = None
            ) -> tuple[Tensor, Callable[[], Tensor], Product]:
                some = context if rows is None else rows_of(context, rows)
                value, hessian, product = self._at(x.reshape(len(x), *self.event_shape), some)
                return value.flatten(1), hessian, product

            x = find(at, y, direct=self.exact, name=self.name)
            if torch.is_grad_enabled():
                # Steps that change no value: each doubles the order to which derivatives are those of the solution.
                step = direct_newton if self.exact else implicit_step
                x = step(at, step(at, x, y) if self.exact else x, y)
            x = torch.where(finite[:, None], x, given)
            unknown = y.new_full((len(y),), math.nan)
            ladj = unknown
            if self.exact:
                hessian = at(torch.where(finite[:, None], x, y))[1]
                ladj = torch.where(finite, -log_det(hessian()), unknown)
        return x.reshape(z.shape), ladj

    def lipschitz_bounds(self) -> Bounds:
        gain, curvature = (float(t.detach()) for t in self._scales())
        most = self.potential.curvature_bound()
        return None if most is None else curvature + gain * most, 1 / curvature

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Context = None) -> Tensor:
        self.potential.initialize(x, context)
        return self._at(x, context)[0]

    def config(self) -> dict[str, Any]:
        return {
            "event_shape": self.event_shape,
            "potential": self.potential,
            "strong": self.strong,
            "estimator": self.estimator,
            "probes": self.probes,
            "steps": self.steps_taken,
            "tolerance": self.tolerance,
            "context_shape": self.context_shape,
        }

    def extra_repr(self) -> str:
        return f"{self.event_shape}, strong={self.strong}, estimator={'exact' if self.exact else 'lanczos'}"


def log_det(h: Tensor) -> Tensor:
    """log det of symmetric positive definite matrices, [n, D, D] -> [n]."""
    out: Tensor = 2 * cholesky(h).diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return out.to(h.dtype)
