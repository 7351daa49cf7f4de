"""Corpora (files, tables, datasets, samples, synthetic tasks) -> tokenised store -> examples."""

from seq2attn.data.corpora import Role, pairs, training_text, with_scheme
from seq2attn.data.examples import Examples
from seq2attn.data.files import Pair, at, lines
from seq2attn.data.report import DataError, Reason, Report
from seq2attn.data.store import Coders, prepare
from seq2attn.data.synthetic import known_alignment

__all__ = [
    "Coders",
    "DataError",
    "Examples",
    "Pair",
    "Reason",
    "Report",
    "Role",
    "at",
    "known_alignment",
    "lines",
    "pairs",
    "prepare",
    "training_text",
    "with_scheme",
]
