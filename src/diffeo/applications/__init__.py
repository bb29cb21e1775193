"""What people do with likelihoods and latents: tables of any size scored and sampled, pictures edited."""

from __future__ import annotations

from .anomaly import Detector, Evidence, evidence
from .coding import decode_table, encode_table
from .compression import keep
from .latents import attribute, interpolate, manifold, shift
from .pictures import read_pictures, write_pictures
from .restoring import Posterior, most_likely, posterior
from .sampling import sample_table
from .scoring import Scores, score_table
from .tables import Reading

__all__ = [
    "Detector",
    "Evidence",
    "Posterior",
    "Reading",
    "Scores",
    "attribute",
    "decode_table",
    "encode_table",
    "evidence",
    "interpolate",
    "keep",
    "manifold",
    "most_likely",
    "posterior",
    "read_pictures",
    "sample_table",
    "score_table",
    "shift",
    "write_pictures",
]
