"""Metrics of labels of images. A hypothesis has the labels from the most probable on, separated by tabs."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from seq2attn.metrics.base import SEED, References, Score
from seq2attn.metrics.entities import mean_score, single_labels


def top(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED, k: int = 1
) -> Score:
    """Top-k accuracy: the percentage of images whose label is one of the k most probable."""
    pairs = single_labels(hypotheses, references)
    right = np.array([label in ranked.split("\t")[:k] for ranked, label in pairs], np.int64)
    return mean_score(f"top-{k}", right, np.ones_like(right), "image", bootstrap, seed)


@dataclass(frozen=True)
class ClassReport:
    """The accuracy of each class, and which class its images are most often taken for."""

    rows: list["ClassAccuracy"]

    def __str__(self) -> str:
        width = max(len("class"), *(len(row.label) for row in self.rows))
        lines = [f"{'class':{width}}  images  accuracy  {'95 % interval':14}  most often taken for"]
        for label, count, value, low, high, error in self.rows:
            interval = f"[{low:.1f}, {high:.1f}]"
            lines.append(f"{label:{width}}  {count:6,}  {value:7.2f}%  {interval:14}  {error}")
        return "\n".join(line.rstrip() for line in lines)

    def to_json(self) -> list[dict[str, Any]]:
        """Return a value for json.dumps."""
        return [row._asdict() for row in self.rows]


class ClassAccuracy(NamedTuple):
    """The accuracy of a class."""

    label: str
    images: int
    accuracy: float  # in per cent, as the limits of its interval are
    low: float
    high: float
    most_frequent_error: str  # the label, and how often; empty: none


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, of so many right ones among all (Wilson 1927). Unlike that of
    resampled images, it has a width where all are right."""
    z, share = 1.959964, right / total
    centre, scale = share + z**2 / (2 * total), 1 + z**2 / total
    half = z * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def class_report(hypotheses: Sequence[str], references: References) -> ClassReport:
    """Return the accuracy of each class by the most probable labels."""
    counts: dict[str, Counter[str]] = {}
    for ranked, label in single_labels(hypotheses, references):
        counts.setdefault(label, Counter())[ranked.split("\t")[0]] += 1
    rows = []
    for label, taken_for in sorted(counts.items()):
        total, right = taken_for.total(), taken_for.pop(label, 0)
        error = taken_for.most_common(1)
        low, high = wilson(right, total)
        named = f"{error[0][0]} ({error[0][1]})" if error else ""
        rows.append(ClassAccuracy(label, total, 100 * right / total, 100 * low, 100 * high, named))
    return ClassReport(rows)
