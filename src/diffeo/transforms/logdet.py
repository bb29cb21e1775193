"""log|det(I + J)| of x + g(x), J the Jacobian of a contraction g: exactly, or by its power series.

log det(I + J) = sum_k (-1)^(k+1) tr(J^k) / k for |J| < 1, with traces tr(A) = E v^T A v over random signs v, and the
sum over k cut off at a fixed or at a random number of terms. Its gradient is that of v^T (I + J)^-1 dJ v: a Neumann
series of the same products J^T ... J^T v, so that one pass gives value and gradient, and nothing of it is stored but
one vector. Behrmann et al., Invertible residual networks, 2019, arXiv:1811.00995; Chen et al., Residual flows, 2019,
arXiv:1906.02735.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ConfigError, DirectionError
from ..krylov import widened
from ..nets.lipschitz import LipschitzNet
from ..nets.lipschitz_layers import flattened, rebuilt
from ..noise import draw
from ..parts import Part, Shape, register
from ..properties import Kind
from ..tracing import eager
from .base import Context, Noise, rows_of


class LogDet(Part):
    """How log|det(I + J)| is found: `y, ladj = logdet(net, x, context, noise)`, y = g(x), ladj [batch]."""

    kind: Kind = "estimate"
    overestimates = False

    @property
    def stochastic(self) -> bool:
        """Whether it takes noise."""
        return self.kind != "exact"

    def bias(self, lipschitz: float, size: int) -> str:
        """What is known of E ladj - log|det|, for an event of `size` entries; `none` if it is zero."""
        return "none"

    def unseen(self, lipschitz: float, size: int) -> float:
        """At most how many nats are missing from what some dozen draws hold of the series."""
        return 0.0

    def draw(
        self, n: int, event_shape: Shape, *, generator: torch.Generator | None = None, like: Tensor
    ) -> Noise:
        """Noise for n examples, drawn under `generator`."""
        return None

    def forward(
        self, net: LipschitzNet, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """g(x), and log|det(I + J)| or an estimate of it."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        return {}


@register
class Exact(LogDet):
    """The determinant of I + J, from all its columns: for events of few entries.

    It costs as many products with J as the event has entries, and has derivatives of every order.
    """

    kind: Kind = "exact"

    def forward(
        self, net: LipschitzNet, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        size = math.prod(net.in_shape)
        y, push, _ = net.linearize(x, net.prepare(context))
        eye = torch.eye(size, dtype=x.dtype, device=x.device)
        columns = push(eye.reshape(1, size, *net.in_shape).expand(len(x), -1, *net.in_shape))
        matrix = columns.flatten(2).to(x.dtype) + eye
        # Its eigenvalues lie around 1: the determinant is positive.
        if size == 1:
            return y, matrix[:, 0, 0].log()
        if size == 2:
            (a, b), (c, d) = (row.unbind(1) for row in matrix.unbind(1))
            return y, (a * d - b * c).log()
        return y, torch.linalg.slogdet(widened(matrix))[1].to(matrix.dtype)


class _Series(LogDet):
    """Weighted terms of the power series; noise: probes [n, probes, *event] and weights [n, terms]."""

    includes_last = True

    def __init__(self, probes: int) -> None:
        super().__init__()
        if probes < 1:
            raise ConfigError(f"{type(self).__name__} needs at least one probe, got {probes}")
        self.probes = probes

    def weights(self, n: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """The weight of every term for n examples, [n, terms]: 0 from some term on."""
        raise NotImplementedError

    def draw(
        self, n: int, event_shape: Shape, *, generator: torch.Generator | None = None, like: Tensor
    ) -> Noise:
        uniform = draw((n, self.probes, *event_shape), like, generator, normal=False)
        signs = torch.where(uniform < 0.5, -torch.ones_like(uniform), torch.ones_like(uniform))
        return signs, self.weights(n, generator, like)

    def forward(
        self, net: LipschitzNet, x: Tensor, context: Context = None, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(noise, tuple)
        probes, weights = noise
        assert isinstance(probes, Tensor)
        assert isinstance(weights, Tensor)
        probes, weights = probes.to(x), weights.to(x)
        if not probes.shape[1]:
            # No estimate: the map alone, with derivatives of every order.
            return net(x, context), x.new_zeros(len(x))
        if not eager():
            return self._traced(net, x, context, probes, weights)
        # Examples with many terms first: those that go on are always the first ones.
        order: Tensor | None = None
        alive = (weights != 0).sum(0).tolist()
        if alive and alive[-1] < len(x):
            order = (weights != 0).sum(1).argsort(descending=True)
            x, probes, weights = (t.index_select(0, order) for t in (x, probes, weights))
            context = rows_of(context, order)
        prepared = net.prepare(context)
        leaves: list[Tensor] = []
        tree = flattened(prepared, leaves)
        y, ladj = _Neumann.apply(  # type: ignore[no-untyped-call]
            net, tree, alive, self.includes_last, x, probes, weights, *leaves
        )
        if order is None:
            return y, ladj
        back = order.argsort()
        return y.index_select(0, back), ladj.index_select(0, back)

    def _traced(
        self, net: LipschitzNet, x: Tensor, context: Context, probes: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same in plain operations, for code that is compiled, exported or mapped: first derivatives only."""
        y, push, pull = net.linearize(x, net.prepare(context))
        alive = [len(x)] * weights.shape[1]
        with torch.no_grad():
            value, vector = _terms(pull, probes, weights, alive, self.includes_last)
        slope = _mean_product(vector.detach(), push(probes))
        return y, value.detach() + slope - slope.detach()


def remainder(lipschitz: float, size: int, terms: int) -> float:
    """size sum_{k > terms} L^k / k, in nats: what the terms beyond can be, of a Jacobian of norm L < 1."""
    known = sum(lipschitz**k / k for k in range(1, terms + 1))
    return size * max(0.0, -math.log1p(-lipschitz) - known)


@register
class PowerSeries(_Series):
    """The first `terms` terms of the series, as i-ResNet has it: biased by at most d sum_{k > terms} L^k / k.

    d: entries of the event. L: the Lipschitz constant of g. Value and gradient are unbiased for the cut series.
    """

    includes_last = False
    overestimates = True

    def __init__(self, terms: int = 5, probes: int = 1) -> None:
        super().__init__(probes)
        if terms < 1:
            raise ConfigError(f"PowerSeries needs at least one term, got {terms}")
        self.terms = terms

    def remainder(self, lipschitz: float, size: int) -> float:
        """The bound on the bias, in nats."""
        return remainder(lipschitz, size, self.terms)

    def unseen(self, lipschitz: float, size: int) -> float:
        return self.remainder(lipschitz, size)

    def bias(self, lipschitz: float, size: int) -> str:
        return (
            f"power series of {self.terms} terms, within {self.remainder(lipschitz, size):.3g} nats "
            "for each residual layer"
        )

    def weights(self, n: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return like.new_ones(n, self.terms)

    def config(self) -> dict[str, Any]:
        return {"terms": self.terms, "probes": self.probes}


Law = Literal["geometric", "poisson"]


@register
class Roulette(_Series):
    """`exact_terms` terms, and then T more, T random, the j-th divided by P(T >= j): unbiased, value and gradient.


    law: of T, for each example: geometric, P(T >= j) = (1 - rate)^(j-1), or poisson with mean `rate`. eval_terms: exact
    terms of what a model draws in eval mode, whose variance is then small. The variance is finite where L^(2k) falls
    faster than P(T >= k), L the norm of J; a Poisson law has that for small ones only.
    """

    def __init__(
        self,
        law: Law = "geometric",
        rate: float | None = None,
        *,
        exact_terms: int = 2,
        eval_terms: int = 20,
        probes: int = 1,
    ) -> None:
        super().__init__(probes)
        rate = {"geometric": 0.5, "poisson": 2.0}.get(law, 0.0) if rate is None else rate
        if law not in ("geometric", "poisson"):
            raise ConfigError(f"law must be geometric or poisson, got {law!r}")
        if not rate > 0 or (law == "geometric" and not rate < 1):
            raise ConfigError(f"the rate of a {law} law cannot be {rate}")
        if exact_terms < 0 or eval_terms < 0:
            raise ConfigError(
                f"exact_terms and eval_terms cannot be negative, got {exact_terms} and {eval_terms}"
            )
        self.law: Law = law
        self.rate = rate
        self.exact_terms = exact_terms
        self.eval_terms = eval_terms

    def survival(self, least: float = 1e-14) -> list[float]:
        """P(T >= j) for j = 1, 2, ..., down to `least`: what is less likely is not drawn."""
        out: list[float] = []
        if self.law == "geometric":
            while (tail := (1 - self.rate) ** len(out)) >= least:
                out.append(tail)
            return out
        # From the far end, where nothing cancels.
        far = int(self.rate + 20 * math.sqrt(self.rate) + 60)
        mass = [
            math.exp(-self.rate + j * math.log(self.rate) - math.lgamma(j + 1)) for j in range(far)
        ]
        tail = 0.0
        for m in reversed(mass[1:]):
            tail += m
            out.append(tail)
        return [s for s in reversed(out) if s >= least]

    def unseen(self, lipschitz: float, size: int) -> float:
        exact = self.exact_terms if self.training else self.eval_terms
        likely = sum(1 for s in self.survival() if s > 0.01)
        return remainder(lipschitz, size, exact + likely)

    def weights(self, n: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
        survival = torch.tensor(self.survival(), dtype=torch.float64, device=like.device)
        u = draw((n, 1), like.double(), generator, normal=False)
        exact = self.exact_terms if self.training else self.eval_terms
        if not torch.compiler.is_compiling():
            survival = survival[: int((u < survival).sum(1).max()) if n else 0]
        tail = (u < survival).double() / survival
        return torch.cat((torch.ones_like(u).expand(n, exact), tail), dim=1).to(like)

    def config(self) -> dict[str, Any]:
        return {
            "law": self.law,
            "rate": self.rate,
            "exact_terms": self.exact_terms,
            "eval_terms": self.eval_terms,
            "probes": self.probes,
        }


def _terms(
    pull: Any, probes: Tensor, weights: Tensor, alive: Sequence[int], includes_last: bool
) -> tuple[Tensor, Tensor]:
    """sum_k (-1)^(k+1) c_k / k v^T J^k v over k >= 1, and sum_k (-1)^k c_k v^T J^k over k >= 0, c_0 = 1.

    alive: how many examples, the first ones, have a k-th term.
    """
    value = weights.new_zeros(len(probes))
    vector = probes.clone()
    w = probes
    for k, n in enumerate(alive, start=1):
        w = pull(w[:n])
        c = weights[:n, k - 1]
        sign = -1.0 if k % 2 else 1.0
        value[:n] -= (sign / k) * c * _mean_product(w, probes[:n])
        if includes_last or k < len(alive):
            vector[:n].add_(w * c.reshape(-1, *[1] * (w.ndim - 1)), alpha=sign)
    return value, vector


def _mean_product(a: Tensor, b: Tensor) -> Tensor:
    """a . b of every example, averaged over the probes."""
    return (a * b).flatten(2).sum(2).mean(1)


class _Neumann(torch.autograd.Function):
    """(x, probes, weights, *what the network is) to (g(x), log|det|): backward goes through g once, whatever the terms.

    Kept for backward: x, the probes, and the Neumann vector.
    """

    @staticmethod
    def forward(
        ctx: Any,
        net: LipschitzNet,
        tree: Any,
        alive: list[int],
        includes_last: bool,
        x: Tensor,
        probes: Tensor,
        weights: Tensor,
        *leaves: Tensor,
    ) -> tuple[Tensor, Tensor]:
        y, _, pull = net.linearize(x, rebuilt(tree, leaves))
        value, vector = _terms(pull, probes, weights, alive, includes_last)
        ctx.net, ctx.tree = net, tree
        ctx.save_for_backward(x, probes, vector, *leaves)
        return y, value

    @staticmethod
    def backward(ctx: Any, y_grad: Tensor, ladj_grad: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise DirectionError(
                "an estimate of log|det| has first derivatives only: for second ones use the estimator Exact()"
            )
        x, probes, vector, *leaves = ctx.saved_tensors
        needs = (ctx.needs_input_grad[4], *ctx.needs_input_grad[7:])
        inputs = [t.detach().requires_grad_(n) for t, n in zip((x, *leaves), needs, strict=True)]
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            y, push, _ = ctx.net.linearize(inputs[0], rebuilt(ctx.tree, inputs[1:]))
            t = push(probes)
        weighted = vector * (ladj_grad / probes.shape[1]).reshape(-1, *[1] * (vector.ndim - 1))
        # J does not depend on what is added last, and of a linear g on x.
        outputs, given = zip(
            *[(o, v) for o, v in ((y, y_grad), (t, weighted)) if o.requires_grad], strict=True
        )
        wanted = [i for i in inputs if i.requires_grad]
        with torch.autocast(x.device.type, enabled=False):
            grads = torch.autograd.grad(outputs, wanted, given, allow_unused=True)
        found = iter(grads)
        by_x, *others = (next(found) if n else None for n in needs)
        return (None, None, None, None, by_x, None, None, *others)
