"""Normalizers: scores (..., T, S) and mask (..., 1 or T, S) -> weights (..., T, S).

To add a normalizer, write its class and add its line to NORMALIZERS (registry.py). Its keyword-only
parameters are its options in a recipe.
"""

from seq2attn.attention.interfaces import Normalizer
from seq2attn.attention.normalizers.addressing import NTM
from seq2attn.attention.normalizers.dense import Sigmoid, Softmax, SoftmaxSink, Sum, nonempty, seen
from seq2attn.attention.normalizers.local import LocalM, LocalP
from seq2attn.attention.normalizers.monotonic import HardMonotonic, MILk, MoChA, Monotonic
from seq2attn.attention.normalizers.registry import NORMALIZERS
from seq2attn.attention.normalizers.sampled import Gumbel, Hard, Hardmax
from seq2attn.attention.normalizers.sparse import Entmax, Sparsemax

__all__ = [
    "NORMALIZERS",
    "NTM",
    "Entmax",
    "Gumbel",
    "Hard",
    "HardMonotonic",
    "Hardmax",
    "LocalM",
    "LocalP",
    "MILk",
    "MoChA",
    "Monotonic",
    "Normalizer",
    "Sigmoid",
    "Softmax",
    "SoftmaxSink",
    "Sparsemax",
    "Sum",
    "nonempty",
    "seen",
]
