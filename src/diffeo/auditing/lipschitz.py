"""Bi-Lipschitz analysis: measured and certified constants of a map and its inverse, and the total variation they force.

Verine, Negrevergne, Rossi, Chevaleyre. On the expressivity of bi-Lipschitz normalizing flows. 2021, arXiv:2107.07232.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from ..data.densities import Density2D
from ..distributions import DiagonalNormal, Distribution, StandardNormal
from ..errors import InputError

Concentration = Callable[[Tensor], Tensor]
"""C(r), the mass of a law in its heaviest ball of radius r: [n] to [n]."""

Law = Distribution | torch.distributions.Distribution | Concentration | Tensor | Density2D

DENSE = 32
"""Entries up to which singular values are those of whole Jacobians, in place of power iteration."""

_CENTRES = 64
_DRAWN = 20_000
_GRID, _ZOOMS = 2001, 3


def singular_values(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The largest and the smallest singular value of the Jacobian of f at every row of x, [n] each, from whole ones."""
    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        # The zero term gives maps without a derivative one that is zero.
        sums = (f(x).flatten(1) + 0 * x.sum()).sum(0).unbind()
    rows = [torch.autograd.grad(one, x, retain_graph=True)[0].flatten(1) for one in sums]
    s = torch.linalg.svdvals(torch.stack(rows, 1))
    return s[:, 0], s[:, -1]


def total_variation_bound(
    source: Law,
    target: Law,
    *,
    lipschitz: float | None = None,
    inverse_lipschitz: float | None = None,
    confidence: float = 0.99,
    seed: int = 0,
) -> float:
    """At least how far, in total variation, every model stays from `target` that a map F makes of the base `source`.

    F maps data to latents, |F(a) - F(b)| <= lipschitz |a - b|, and its inverse likewise; None: not known. A ball of
    radius r in the data goes into one of radius lipschitz r, and holds the preimage of one of radius r /
    inverse_lipschitz. With C(r) the mass of a law in its heaviest ball of radius r, therefore

        TV >= sup_r max(C_target(r) - C_source(lipschitz r), C_source(r / inverse_lipschitz) - C_target(r)),

    which is attained for two Gaussians in one dimension. Constants that hold (certified ones) make it a bound; measured
    ones, which are too small, an indication.

    source, target: a Gaussian (of diffeo or torch.distributions), whose C is known where it has the same deviation in
    all directions, and is bounded by those of the least and of the largest one otherwise; a function C; or, for the
    target, examples [n, *event] or a density of `diffeo.data`, of which 20,000 are drawn: the bound, of the first kind
    alone, then holds with probability `confidence`, by half of them as centres and the band of Dvoretzky, Kiefer,
    Wolfowitz and Massart on the others.

    >>> round(
    ...     total_variation_bound(Normal(0.0, 1.0), Normal(0.0, 1.0), lipschitz=0.5), 4
    ... )
    0.3227

    Raises InputError for laws of different dimension, other laws, and constants that are not positive.
    """
    for what, constant in (("lipschitz", lipschitz), ("inverse_lipschitz", inverse_lipschitz)):
        if constant is not None and not constant > 0:
            raise InputError(f"{what} must be positive, got {constant}")
    base_least, base_most, size, _ = _concentration(source, "source")
    if isinstance(target, Density2D):
        drawn = torch.Generator().manual_seed(seed)
        target = target.sample(_DRAWN, generator=drawn, dtype=torch.float64)
    if isinstance(target, Tensor):
        if lipschitz is None:
            return 0.0
        radii, mass = _least_mass(target, size, confidence, seed)
        found = mass - base_most(lipschitz * radii).clamp(max=1)
        return max(0.0, float(found.max()))
    least, most, other, scale = _concentration(target, "target")
    if size is not None and other is not None and size != other:
        raise InputError(f"source has {size} dimensions, target {other}")
    bounds: list[Callable[[Tensor], Tensor]] = []
    if lipschitz is not None:
        bounds.append(lambda r: least(r) - base_most(lipschitz * r))
    if inverse_lipschitz is not None:
        bounds.append(lambda r: base_least(r / inverse_lipschitz) - most(r))
    return max([0.0, *(_supremum(f, scale) for f in bounds)])


def separated_modes_bound(
    distance: float, inverse_lipschitz: float, masses: tuple[float, float] = (0.5, 0.5)
) -> float:
    """The same for a target with two sets of these masses, `distance` apart, and a standard normal base of any size.

    Their images are at least r = distance / inverse_lipschitz apart, so that by Gaussian isoperimetry a model with
    mass a in one has at most 1 - Phi(Phi^-1(a) + r) in the other: TV >= p_1 - Phi(Phi^-1(1 - p_2) - r), or the same
    with the sets exchanged, whichever is less. For halves Phi(r) - 1/2: the model may drop one of them.

    Raises InputError for a distance or constant that is not positive, or masses that are none.
    """
    p, q = masses
    if not (distance > 0 and inverse_lipschitz > 0):
        raise InputError(
            f"distance and inverse_lipschitz must be positive, got {distance} and {inverse_lipschitz}"
        )
    if not (p > 0 and q > 0 and p + q <= 1 + 1e-12):
        raise InputError(f"masses must be two shares of one, got {masses}")
    r = distance / inverse_lipschitz

    def left(first: float, second: float) -> float:
        edge = torch.special.ndtri(torch.tensor(1 - second, dtype=torch.float64))
        return first - float(torch.special.ndtr(edge - r))

    return max(0.0, min(left(p, q), left(q, p)))


# -- laws -------------------------------------------------------------------------------------------------------------


def gaussian_concentration(dimension: int, scale: float = 1.0) -> Concentration:
    """C of N(m, scale^2 I): the heaviest ball is around the mean, a chi-square probability."""

    def mass(r: Tensor) -> Tensor:
        half = torch.tensor(dimension / 2, dtype=torch.float64)
        found: Tensor = torch.special.gammainc(half, (r.double() / scale).square() / 2)
        return found

    return mass


def _concentration(law: Law, what: str) -> tuple[Concentration, Concentration, int | None, float]:
    """C from below and from above, the dimension, and a length over which C changes."""
    scales: Tensor | None = None
    if isinstance(law, StandardNormal):
        scales = torch.ones(math.prod(law.event_shape))
    if isinstance(law, DiagonalNormal) and law.context_shape is None:
        log_scale: Tensor = law.log_scale  # type: ignore[assignment]
        scales = log_scale.detach().exp()
    if isinstance(law, Independent):
        inner = law.base_dist
        if isinstance(inner, Normal) and not law.batch_shape:
            scales = inner.scale
    if isinstance(law, Normal) and not law.batch_shape:
        scales = law.scale
    if isinstance(law, MultivariateNormal) and not law.batch_shape:
        scales = torch.linalg.svdvals(law.scale_tril)
    if scales is not None and scales.numel():
        size, least, most = scales.numel(), float(scales.min()), float(scales.max())
        # A ball is within the set that the least deviation makes of it, and holds the one of the largest.
        below, above = (gaussian_concentration(size, s) for s in (most, least))
        return below, above, size, most * math.sqrt(size)
    known = Distribution | torch.distributions.Distribution | Tensor | Density2D
    if callable(law) and not isinstance(law, known):
        return law, law, None, 1.0
    more = ", examples or a density of diffeo.data" if what == "target" else ""
    raise InputError(
        f"{what} must be a Gaussian{more}, or a function of radii that gives the mass of the heaviest ball, got "
        f"{type(law).__name__}"
    )


def gaussian(law: Law) -> bool:
    """Whether C of this law is known."""
    try:
        _concentration(law, "")
    except InputError:
        return False
    return True


def _supremum(f: Callable[[Tensor], Tensor], scale: float) -> float:
    """max f over radii, by grids on a log scale, each around the best point of the last."""
    low, high = math.log(scale) - 20.0, math.log(scale) + 20.0
    best = 0.0
    for _ in range(_ZOOMS):
        grid = torch.linspace(low, high, _GRID, dtype=torch.float64)
        values = f(grid.exp())
        k = int(values.argmax())
        best = max(best, float(values[k]))
        low, high = float(grid[max(k - 1, 0)]), float(grid[min(k + 1, _GRID - 1)])
    return best


def _least_mass(x: Tensor, size: int | None, confidence: float, seed: int) -> tuple[Tensor, Tensor]:
    """Radii, and what some ball of each holds of the law of x at least, with probability `confidence`."""
    x = x.detach().double().flatten(1)
    if size is not None and x.shape[1] != size:
        raise InputError(f"source has {size} dimensions, the examples {x.shape[1]}")
    if len(x) < 4 or not bool(x.isfinite().all()):
        raise InputError(f"target needs at least four finite examples, got {tuple(x.shape)}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence must be between 0 and 1, got {confidence}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    count = min(_CENTRES, len(x) // 2)
    centres, others = x[order[:count]], x[order[count:]]
    distances = torch.cdist(centres, others).sort(1).values
    n = len(others)
    # One-sided, for all radii at once, and for all centres by the union of their errors.
    slack = math.sqrt(math.log(count / (1 - confidence)) / (2 * n))
    mass = torch.arange(1, n + 1, dtype=torch.float64, device=x.device) / n - slack
    return distances.flatten().cpu(), mass.expand_as(distances).flatten().cpu()
