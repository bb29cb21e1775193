"""What people do with likelihoods and latents: tables of any size scored and sampled, pictures edited."""

from __future__ import annotations

from .coding import decode_table, encode_table
from .latents import attribute, interpolate, keep, manifold, shift
from .pictures import read_pictures, write_pictures
from .sampling import sample_table
from .scoring import Scores, score_table
from .tables import Reading

__all__ = [
    "Reading",
    "Scores",
    "attribute",
    "decode_table",
    "encode_table",
    "interpolate",
    "keep",
    "manifold",
    "read_pictures",
    "sample_table",
    "score_table",
    "shift",
    "write_pictures",
]
