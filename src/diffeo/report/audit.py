"""A small round-trip audit: does the trained map still invert, and is its likelihood finite?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..flow import Flow

_ROWS = 256


@dataclass(frozen=True)
class Audit:
    """Worst errors of both round trips over `rows` examples, and the health of the likelihood.

    data_error: max |decode(encode(x)) - x|. latent_error: max |encode(decode(z)) - z| of the continuous flow.
    data_scale, latent_scale: the largest |x| and |z| of those, by which the errors are judged.
    """

    rows: int
    dtype: torch.dtype
    discrete: bool
    data_error: float
    data_scale: float
    latent_error: float
    latent_scale: float
    finite: float
    largest_latent: float

    @property
    def tolerance(self) -> float:
        """Relative error that passes: the square root of the rounding unit."""
        return math.sqrt(torch.finfo(self.dtype).eps)

    @property
    def data_passes(self) -> bool:
        """Integers come back exactly, real numbers to the tolerance."""
        if self.discrete:
            return self.data_error == 0
        return self.data_error <= self.tolerance * max(1.0, self.data_scale)

    @property
    def latent_passes(self) -> bool:
        return self.latent_error <= self.tolerance * max(1.0, self.latent_scale)

    @property
    def passes(self) -> bool:
        return self.data_passes and self.latent_passes and self.finite == 1

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.finite < 1:
            return (
                f"Take care: log-likelihood is not finite on {1 - self.finite:.1%} of the {self.rows} "
                "test examples, which lie outside what the model can represent."
            )
        if not self.data_passes:
            wanted = "exactly" if self.discrete else f"to a relative {self.tolerance:.0e}"
            return (
                f"Take care: data do not come back {wanted} (worst error {self.data_error:.2g}), so "
                "the latents do not stand for the data."
            )
        how = "every integer comes back exactly" if self.discrete else "data come back to rounding"
        if not self.latent_passes:
            return (
                f"Sound on data ({how}), but latents come back only to {self.latent_error:.2g}: some "
                "samples lie where the map is steep for this precision."
            )
        return f"Sound: {how}, latents come back to rounding, and every log-likelihood is finite."


@torch.no_grad()
def audit_round_trip(flow: Flow, x: Tensor, *, seed: int = 0, rows: int = _ROWS) -> Audit:
    """Round trips of the first rows of x and of as many latents drawn from the base, in the flow's dtype."""
    x = x[:rows]
    generator = torch.Generator(flow.device).manual_seed(seed)
    z = flow.encode(x, batch_size=rows)
    back = flow.decode(z, batch_size=rows)
    log_prob = flow.log_prob(x, batch_size=rows, generator=generator)
    real = flow.continuous
    drawn = flow.base.sample(len(x), generator=generator)
    again = real.encode(real.decode(drawn, batch_size=rows), batch_size=rows)
    return Audit(
        rows=len(x),
        dtype=flow.dtype,
        discrete=flow.discrete,
        data_error=_largest(back.double() - x.double()),
        data_scale=_largest(x.double()),
        latent_error=_largest(again - drawn),
        latent_scale=_largest(drawn),
        finite=log_prob.isfinite().double().mean().item(),
        largest_latent=_largest(z),
    )


def _largest(values: Tensor) -> float:
    """max |v|; infinite where there is a NaN."""
    return values.abs().nan_to_num(nan=math.inf, posinf=math.inf).max().item()
