"""Attention: scorers, normalizers, positions, heads and pooling.

Letters: B batch, H heads, T queries (target positions), S source positions, Q/K/V feature sizes of queries,
keys and values. "..." is (B,) for plain attention and (B, H) inside MultiHead; every part works with both.
"""

from seq2attn.attention.attention import Attention
from seq2attn.attention.compatibility import ROLES, incompatibilities
from seq2attn.attention.heads import MultiHead
from seq2attn.attention.interfaces import Hierarchy, Normalizer, Relative, Scorer
from seq2attn.attention.memory import Attended, Grid, Memory, Past, Sentences

__all__ = [
    "ROLES",
    "Attended",
    "Attention",
    "Grid",
    "Hierarchy",
    "Memory",
    "MultiHead",
    "Normalizer",
    "Past",
    "Relative",
    "Scorer",
    "Sentences",
    "incompatibilities",
]
