"""Normalizers: scores (..., T, S) and mask (..., 1 or T, S) -> weights (..., T, S).

To add one: write the class, add its line to NORMALIZERS. Keyword-only parameters are its options in a recipe.
"""

from seq2attn.attention import Normalizer
from seq2attn.normalizers.dense import Softmax, seen

__all__ = ["NORMALIZERS", "Softmax", "seen"]

NORMALIZERS: dict[str, type[Normalizer]] = {"softmax": Softmax}
