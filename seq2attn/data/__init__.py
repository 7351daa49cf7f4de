"""Corpora (files, tables, datasets, samples, tasks) -> tokenised store -> examples; bad lines reported."""

from seq2attn.data.corpora import Role, pairs, training_text
from seq2attn.data.examples import Examples
from seq2attn.data.files import Pair
from seq2attn.data.report import DataError, Reason, Report
from seq2attn.data.store import prepare
from seq2attn.data.tasks import known_alignment

__all__ = [
    "DataError",
    "Examples",
    "Pair",
    "Reason",
    "Report",
    "Role",
    "known_alignment",
    "pairs",
    "prepare",
    "training_text",
]
