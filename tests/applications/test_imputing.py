"""Imputation against closed forms: a Gaussian, and a table of two discrete columns."""

from __future__ import annotations

import pytest
import torch

from diffeo import Flow
from diffeo.applications import impute
from diffeo.columns import schema
from diffeo.errors import InputError
from diffeo.transforms import Chain, LULinear, TypedColumns


def _gaussian_flow(known, covariance: torch.Tensor) -> Flow:
    """The latents of the columns are N(0, covariance)."""
    layer = LULinear((len(covariance),)).double()
    chain = Chain(known.event_shape, [TypedColumns(known).double(), layer])
    flow = Flow(chain).double().eval()
    # z = A v = L D v, the inverse of a Cholesky factor, makes N(0, I) of N(0, covariance).
    a = torch.linalg.inv(torch.linalg.cholesky(covariance))
    with torch.no_grad():
        layer.log_diagonal.copy_(a.diagonal().log())
        layer.lower.copy_(a / a.diagonal())
    return flow


def test_gaussian() -> None:
    """Mean and variance of two missing entries given the third, within 4 standard errors."""
    known = schema({"columns": {"a": "continuous", "b": "continuous", "c": "continuous"}})
    covariance = torch.tensor([[1.0, 0.8, 0.3], [0.8, 1.0, 0.5], [0.3, 0.5, 1.0]]).double()
    flow = _gaussian_flow(known, covariance)
    x = torch.tensor([[0.0, 1.5, 0.0]], dtype=torch.float64)
    missing = torch.tensor([[True, False, True]])
    g = torch.Generator().manual_seed(0)
    n = 3000
    draws, accepted = impute(flow, x, missing, draws=n, steps=60, generator=g)
    assert 0.1 < accepted < 0.9
    assert bool((draws[:, 0, 1] == 1.5).all())
    found = draws[:, 0, [0, 2]]
    gain = covariance[[0, 2], 1]
    mean = gain * 1.5
    truth = covariance[[0, 2]][:, [0, 2]] - torch.outer(gain, gain)
    error = (truth.diagonal() / n).sqrt()
    assert bool(((found.mean(0) - mean).abs() < 4 * error).all())
    spread = found.T.cov()
    assert bool(((spread - truth).abs() < 4 * 2**0.5 * truth.diagonal().max() / n**0.5).all())


def test_discrete_cells() -> None:
    """P(colour | number) of correlated latents, against the same by two-dimensional quadrature."""
    known = schema(
        {
            "columns": {
                "colour": {"kind": "categorical", "values": ["a", "b"]},
                "n": {"kind": "integer", "low": 0, "high": 2},
            }
        }
    )
    covariance = torch.tensor([[1.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    flow = _gaussian_flow(known, covariance)
    axis = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    u = torch.cartesian_prod(axis, axis)
    events = [torch.tensor([c, 2.0]).double().expand(len(u), 2) for c in range(2)]
    joint = [float(flow.log_prob(x, noise=(u, None)).exp().mean().detach()) for x in events]
    truth = float(joint[1] / sum(joint))
    x = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    n = 3000
    g = torch.Generator().manual_seed(0)
    draws, _ = impute(
        flow, x, torch.tensor([[True, False]]), draws=n, steps=40, candidates=4, generator=g
    )
    share = float(draws[:, 0, 0].mean())
    assert abs(share - truth) < 4 * (truth * (1 - truth) / n) ** 0.5
    assert bool((draws[:, 0, 1] == 2).all())


def test_a_value_is_drawn_never_missing() -> None:
    known = schema(
        {
            "columns": {
                "colour": {"kind": "categorical", "values": ["a", "b", "c"], "missing": True},
                "x": {"kind": "continuous", "missing": True},
            }
        }
    )
    flow = _gaussian_flow(known, torch.eye(4, dtype=torch.float64))
    x = torch.tensor([[3.0, 0.0, 1.0]] * 200, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    missing = torch.ones(200, 2, dtype=torch.bool)
    draws, _ = impute(flow, x, missing, steps=5, candidates=4, generator=g)
    assert bool((draws[0, :, 0] < 3).all())
    assert bool((draws[0, :, 2] == 0).all())
    with pytest.raises(InputError, match="missing must be"):
        impute(flow, x, missing[:, :1])
