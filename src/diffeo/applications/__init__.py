"""What people do with likelihoods and latents: score, sample, encode and decode tables of any size."""

from __future__ import annotations

from .coding import decode_table, encode_table
from .sampling import sample_table
from .scoring import Scores, score_table
from .tables import Reading

__all__ = ["Reading", "Scores", "decode_table", "encode_table", "sample_table", "score_table"]
