"""Normalizers: scores (..., T, S) and mask (..., 1 or T, S) -> weights (..., T, S).

To add one: write the class, add its line to NORMALIZERS. Keyword-only parameters are its options in a recipe.
"""

from seq2attn.attention import Normalizer
from seq2attn.normalizers.addressing import NTM
from seq2attn.normalizers.dense import Sigmoid, Softmax, SoftmaxSink, Sum, seen
from seq2attn.normalizers.drawn import Gumbel, Hard, Hardmax
from seq2attn.normalizers.local import LocalM, LocalP
from seq2attn.normalizers.monotonic import HardMonotonic, MILk, MoChA, Monotonic
from seq2attn.normalizers.sparse import Entmax, Sparsemax

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
    "Sigmoid",
    "Softmax",
    "SoftmaxSink",
    "Sparsemax",
    "Sum",
    "seen",
]

NORMALIZERS: dict[str, type[Normalizer]] = {
    "softmax": Softmax,
    "softmax_sink": SoftmaxSink,
    "sigmoid": Sigmoid,
    "sum": Sum,
    "sparsemax": Sparsemax,
    "entmax": Entmax,
    "hardmax": Hardmax,
    "gumbel": Gumbel,
    "hard": Hard,
    "local_m": LocalM,
    "local_p": LocalP,
    "monotonic": Monotonic,
    "mocha": MoChA,
    "milk": MILk,
    "hard_monotonic": HardMonotonic,
    "ntm": NTM,
}
