"""What people do with likelihoods and latents: tables of any size scored and sampled, pictures edited."""

from __future__ import annotations

from .anomaly import Detector, Evidence, evidence
from .coding import decode_table, encode_table
from .compression import keep
from .inference import (
    Calibration,
    Coverage,
    Predictive,
    coverage,
    posterior_predictive,
    simulation_based_calibration,
)
from .latents import attribute, interpolate, manifold, shift
from .pictures import read_pictures, write_pictures
from .restoring import Posterior, most_likely, posterior
from .sampling import sample_table
from .scoring import Scores, score_table
from .tables import Reading
from .translating import colorize, enlarge, read_given

__all__ = [
    "Calibration",
    "Coverage",
    "Detector",
    "Evidence",
    "Posterior",
    "Predictive",
    "Reading",
    "Scores",
    "attribute",
    "colorize",
    "coverage",
    "decode_table",
    "encode_table",
    "enlarge",
    "evidence",
    "interpolate",
    "keep",
    "manifold",
    "most_likely",
    "posterior",
    "posterior_predictive",
    "read_given",
    "read_pictures",
    "sample_table",
    "score_table",
    "shift",
    "simulation_based_calibration",
    "write_pictures",
]
