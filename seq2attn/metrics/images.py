"""Metrics of labels of images. A hypothesis has the labels from the most probable on, separated by tabs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

    rows: list[tuple[str, int, float, str]]  # label, images, accuracy in per cent, the most frequent error

    def __str__(self) -> str:
        width = max(len("class"), *(len(row[0]) for row in self.rows))
        lines = [f"{'class':{width}}  images  accuracy  most often taken for"]
        for label, count, value, error in self.rows:
            lines.append(f"{label:{width}}  {count:6,}  {value:7.2f}%  {error}")
        return "\n".join(line.rstrip() for line in lines)

    def to_json(self) -> list[dict[str, Any]]:
        """Return a value for json.dumps."""
        names = "label", "images", "accuracy", "most_frequent_error"
        return [dict(zip(names, row, strict=True)) for row in self.rows]


def class_report(hypotheses: Sequence[str], references: References) -> ClassReport:
    """Return the accuracy of each class by the most probable labels."""
    counts: dict[str, Counter[str]] = {}
    for ranked, label in single_labels(hypotheses, references):
        counts.setdefault(label, Counter())[ranked.split("\t")[0]] += 1
    rows = []
    for label, taken_for in sorted(counts.items()):
        total, right = taken_for.total(), taken_for.pop(label, 0)
        error = taken_for.most_common(1)
        rows.append((label, total, 100 * right / total, f"{error[0][0]} ({error[0][1]})" if error else ""))
    return ClassReport(rows)
