"""Scorers: (..., T, Q) queries and (..., S, K) keys -> (..., T, S) scores.

To add a scorer, write its class and add its line to SCORERS (registry.py). Its keyword-only parameters are
its options in a recipe.
"""

from seq2attn.attention.interfaces import Scorer
from seq2attn.attention.scorers.additive import Additive, Concat
from seq2attn.attention.scorers.history import Coverage, Fertility, LocationSensitive, NeuralCoverage
from seq2attn.attention.scorers.location import Location
from seq2attn.attention.scorers.multi import MultiScorer
from seq2attn.attention.scorers.products import (
    Cosine,
    Dot,
    Gaussian,
    General,
    Linear,
    Perceptron,
    ScaledDot,
    Trilinear,
)
from seq2attn.attention.scorers.registry import SCORERS

__all__ = [
    "SCORERS",
    "Additive",
    "Concat",
    "Cosine",
    "Coverage",
    "Dot",
    "Fertility",
    "Gaussian",
    "General",
    "Linear",
    "Location",
    "LocationSensitive",
    "MultiScorer",
    "NeuralCoverage",
    "Perceptron",
    "ScaledDot",
    "Scorer",
    "Trilinear",
]
