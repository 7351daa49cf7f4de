"""Scorers: (..., T, Q) queries and (..., S, K) keys -> (..., T, S) scores.

To add one: write the class, add its line to SCORERS. Keyword-only parameters are its options in a recipe.
"""

from seq2attn.attention import Scorer
from seq2attn.scorers.additive import Additive, Concat
from seq2attn.scorers.history import Coverage, Fertility, LocationSensitive, NeuralCoverage
from seq2attn.scorers.location import Location
from seq2attn.scorers.products import (
    Cosine,
    Dot,
    Gaussian,
    General,
    Linear,
    Perceptron,
    ScaledDot,
    Trilinear,
)
from seq2attn.scorers.several import Several

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
    "NeuralCoverage",
    "Perceptron",
    "ScaledDot",
    "Several",
    "Trilinear",
]

SCORERS: dict[str, type[Scorer]] = {
    "additive": Additive,
    "concat": Concat,
    "cosine": Cosine,
    "coverage": Coverage,
    "dot": Dot,
    "fertility": Fertility,
    "gaussian": Gaussian,
    "general": General,
    "linear": Linear,
    "location": Location,
    "location_sensitive": LocationSensitive,
    "neural_coverage": NeuralCoverage,
    "perceptron": Perceptron,
    "scaled_dot": ScaledDot,
    "trilinear": Trilinear,
}
