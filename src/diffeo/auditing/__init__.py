"""Audit: is a trained flow still the invertible map, with the likelihood, that it claims to be?"""

from .audit import audit
from .lipschitz import gaussian_concentration, separated_modes_bound, total_variation_bound
from .result import Audit, Finding, LayerAudit, RoundTrip

__all__ = [
    "Audit",
    "Finding",
    "LayerAudit",
    "RoundTrip",
    "audit",
    "gaussian_concentration",
    "separated_modes_bound",
    "total_variation_bound",
]
