"""SCORERS: all scorers, by the names that they have in recipes."""

from seq2attn.attention.interfaces import Scorer
from seq2attn.attention.scorers.additive import Additive, Concat
from seq2attn.attention.scorers.history import Coverage, Fertility, LocationSensitive, NeuralCoverage
from seq2attn.attention.scorers.location import Location
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
from seq2attn.registry import Registry

SCORERS: Registry[type[Scorer]] = Registry("SCORERS", Scorer)
SCORERS |= {
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
