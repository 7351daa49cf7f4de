"""Corpora (files, tables, datasets, samples) -> tokenised store -> examples; bad lines are reported."""

from seq2attn.data.corpora import Role, pairs, training_text
from seq2attn.data.examples import Examples
from seq2attn.data.files import Pair
from seq2attn.data.report import DataError, Reason, Report
from seq2attn.data.store import prepare

__all__ = [
    "DataError",
    "Examples",
    "Pair",
    "Reason",
    "Report",
    "Role",
    "pairs",
    "prepare",
    "training_text",
]
