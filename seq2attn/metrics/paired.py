"""Differences between systems measured in pairs, as two networks trained with the same seeds."""

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

from seq2attn.metrics.base import ScoringError


class Difference(NamedTuple):
    """The mean of paired differences, and its 95 % confidence interval: None of a single pair."""

    value: float
    low: float | None
    high: float | None
    pairs: int


def paired_difference(values: Sequence[float], others: Sequence[float]) -> Difference:
    """Return by how much values exceed the others that they are paired with, with Student's t interval.

    The interval takes the differences for a sample of a normal distribution (Student 1908). With few pairs
    it is wide: 4.3 standard errors on either side for three, 12.7 for two. ScoringError without pairs.
    """
    if not values or len(values) != len(others):
        raise ScoringError(
            f"expected as many values as others, and at least one; got {len(values)} and {len(others)}"
        )
    differences = [value - other for value, other in zip(values, others, strict=True)]
    average, count = mean(differences), len(differences)
    if count == 1:
        return Difference(average, None, None, 1)
    margin = t_quantile(0.95, count - 1) * stdev(differences) / math.sqrt(count)
    return Difference(average, average - margin, average + margin, count)


def t_quantile(probability: float, degrees: int) -> float:
    """Return the t for which a variable of Student's distribution lies within -t and t with a probability.

    degrees: of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(degrees)
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, degrees) < probability else (low, angle)
    return math.tan(low) * math.sqrt(degrees)


def _within(angle: float, degrees: int) -> float:
    """Return P(|T| < sqrt(degrees) tan(angle)): finite sums (Abramowitz and Stegun 1964, 26.7.3-4)."""
    cosine, odd = math.cos(angle), degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(1 + odd, degrees, 2):  # powers of the cosine from 0 or 1 to degrees - 2
        total += term
        term *= cosine**2 * power / (power + 1)
    return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total
