"""NORMALIZERS: all normalizers, by the names that they have in recipes."""

from seq2attn.attention.interfaces import Normalizer
from seq2attn.attention.normalizers.addressing import NTM
from seq2attn.attention.normalizers.dense import Sigmoid, Softmax, SoftmaxSink, Sum
from seq2attn.attention.normalizers.local import LocalM, LocalP
from seq2attn.attention.normalizers.monotonic import HardMonotonic, MILk, MoChA, Monotonic
from seq2attn.attention.normalizers.sampled import Gumbel, Hard, Hardmax
from seq2attn.attention.normalizers.sparse import Entmax, Sparsemax
from seq2attn.registry import Registry

NORMALIZERS: Registry[type[Normalizer]] = Registry("NORMALIZERS", Normalizer)
NORMALIZERS |= {
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
