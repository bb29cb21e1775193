"""What people do with likelihoods and latents: tables of any size scored and sampled, pictures edited."""

from __future__ import annotations

from .anomaly import Detector, Evidence, evidence
from .coding import decode_table, encode_table
from .compression import keep
from .imputing import Imputed, impute, impute_table
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
from .synthesis import Violation, check_table, flow_schema, synthesize
from .tables import Reading
from .translating import colorize, enlarge, read_given

__all__ = [
    "Calibration",
    "Coverage",
    "Detector",
    "Evidence",
    "Imputed",
    "Posterior",
    "Predictive",
    "Reading",
    "Scores",
    "Violation",
    "attribute",
    "check_table",
    "colorize",
    "coverage",
    "decode_table",
    "encode_table",
    "enlarge",
    "evidence",
    "flow_schema",
    "impute",
    "impute_table",
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
    "synthesize",
    "write_pictures",
]
