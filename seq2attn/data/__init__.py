"""Corpora (files, tables, datasets, samples, images, synthetic tasks) -> store in the cache -> examples."""

from seq2attn.data.corpora import Role, pairs, training_text, with_scheme
from seq2attn.data.examples import Examples
from seq2attn.data.files import Pair, at, lines
from seq2attn.data.images import ImageExamples, learn_labels, prepare_images
from seq2attn.data.report import DataError, Reason, Report
from seq2attn.data.store import Coders, prepare
from seq2attn.data.synthetic import known_alignment

__all__ = [
    "Coders",
    "DataError",
    "Examples",
    "ImageExamples",
    "Pair",
    "Reason",
    "Report",
    "Role",
    "at",
    "known_alignment",
    "learn_labels",
    "lines",
    "pairs",
    "prepare",
    "prepare_images",
    "training_text",
    "with_scheme",
]
