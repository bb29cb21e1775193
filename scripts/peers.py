"""Run what docs/comparison.md says about other libraries, and store the outcome in results/peers.json.

    python scripts/peers.py

Each entry is a few lines against the installed package, in float64 where it matters. A package that is missing is left
out; torchflows and pyro-ppl are in no extra of diffeo.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from stored import provenance, write


def accepts_negative_scale() -> bool:
    try:
        torch.distributions.Normal(0.0, -1.0)
    except ValueError:
        return False
    return True


def zuko_validation() -> str:
    before = accepts_negative_scale()
    import zuko  # noqa: F401

    after = accepts_negative_scale()
    return f"`Normal(0, -1)` is {_taken(before)} before `import zuko` and {_taken(after)} after it"


def _taken(accepted: bool) -> str:
    return "accepted" if accepted else "refused"


def zuko_naf() -> str:
    import zuko

    torch.manual_seed(0)
    transform = zuko.flows.NAF(2)().transform
    x = torch.tensor([[12.0, 12.0]])
    error = float((transform.inv(transform(x)) - x).abs().max())
    return f"the round trip of `NAF(2)` at x = (12, 12) is off by {error:.1f}, without an error"


def nflows_call() -> str:
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import ReversePermutation

    try:
        Flow(ReversePermutation(4), StandardNormal([4]))(torch.randn(2, 4))
    except RuntimeError as error:
        return f"`flow(x)` raises `RuntimeError: {error}`, so wrappers such as DDP need an adapter"
    return "`flow(x)` works"


def normflows_actnorm() -> str:
    import normflows

    layer = normflows.flows.ActNorm(4)
    base = normflows.distributions.DiagGaussian(4)
    model = normflows.NormalizingFlow(base, [layer]).eval()
    with torch.no_grad():
        model.sample(1)
    ended = "NaN" if bool(layer.s.isnan().any()) else "finite"
    return f"`sample(1)` of a fresh model in eval mode initializes `ActNorm`; its scale is then {ended}"


def freia_scaling() -> str:
    from FrEIA.modules import LearnedElementwiseScaling

    torch.manual_seed(0)
    layer = LearnedElementwiseScaling([(4,)])
    torch.nn.init.normal_(layer.s)
    (z,), forward = layer([torch.randn(2, 4)])
    _, backward = layer([z], rev=True)
    return (
        f"`LearnedElementwiseScaling` gives log-determinants {forward.item():.3f} and, reversed, "
        f"{backward.item():.3f}; they should add up to 0"
    )


def pyro_cache() -> str:
    import pyro.distributions as dist
    import pyro.distributions.transforms as T

    torch.manual_seed(0)
    spline = T.spline_coupling(4, count_bins=8)
    base = dist.Normal(torch.zeros(4), torch.ones(4)).to_event(1)
    flow = dist.TransformedDistribution(base, [spline])
    x = torch.randn(5, 4)
    old = flow.log_prob(x).detach()
    with torch.no_grad():
        for p in spline.parameters():
            p.add_(0.5 * torch.randn_like(p))
    stale = float((flow.log_prob(x).detach() - old).abs().max())
    flow.clear_cache()
    fresh = float((flow.log_prob(x).detach() - old).abs().max())
    return (
        f"after a change of the parameters, `log_prob` of the same tensor changes by {stale:.1f} nats; after "
        f"`clear_cache()`, by {fresh:.1f}"
    )


def torchflows_ladj() -> str:
    from torchflows.bijections.finite.autoregressive import architectures as flat
    from torchflows.bijections.finite.multiscale import architectures as images

    found = []
    for name, shape in (("RealNVP", (4,)), ("CouplingDeepSF", (4,)), ("AffineGlow", (1, 8, 8))):
        torch.manual_seed(0)
        flow = getattr(flat if len(shape) == 1 else images, name)(shape).double().eval()
        x = torch.randn(1, *shape, dtype=torch.float64)
        with torch.no_grad():
            said = float(flow.forward(x)[1])

        def z(v: torch.Tensor, f: Any = flow, s: Any = shape) -> torch.Tensor:
            return f.forward(v.reshape(1, *s))[0].reshape(-1)

        j = torch.autograd.functional.jacobian(z, x.reshape(-1))
        found.append(f"`{name}` {said:.2f} where autograd finds {torch.linalg.slogdet(j)[1]:.2f}")
    return "log-determinants: " + ", ".join(found)


CHECKS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("zuko", "zuko", zuko_validation),
    ("zuko", "zuko", zuko_naf),
    ("nflows", "nflows", nflows_call),
    ("normflows", "normflows", normflows_actnorm),
    ("FrEIA", "FrEIA", freia_scaling),
    ("pyro", "pyro-ppl", pyro_cache),
    ("torchflows", "torchflows", torchflows_ladj),
)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for library, package, check in CHECKS:
        with contextlib.suppress(PackageNotFoundError):
            rows.append({"library": library, "version": version(package), "found": check()})
    write("peers", provenance("python scripts/peers.py") | {"rows": rows})


if __name__ == "__main__":
    main()
