"""Attention: scorers, normalizers, positions, heads and pooling."""

from seq2attn.attention.attention import (
    Attended,
    Attention,
    Hierarchy,
    Memory,
    Normalizer,
    Past,
    Relative,
    Scorer,
    Sentences,
)
from seq2attn.attention.heads import MultiHead

__all__ = [
    "Attended",
    "Attention",
    "Hierarchy",
    "Memory",
    "MultiHead",
    "Normalizer",
    "Past",
    "Relative",
    "Scorer",
    "Sentences",
]
