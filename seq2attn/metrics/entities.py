"""Metrics of labels: entities as conlleval counts them, single tags, and labels of sentences.

For entities and tags, a sentence is given as its tags with spaces or tabs between. An entity is correct if
its type and both of its boundaries are. Tags are read as conlleval reads them (`tag_schemes.read`): in any
scheme, and also if they are not valid in their scheme.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seq2attn.metrics.base import (
    SEED,
    Chosen,
    Numbers,
    References,
    Score,
    ScoringError,
    by_hypothesis,
    resampled,
)
from seq2attn.text.tag_schemes import Span, TagError, read
from seq2attn.version import __version__

_TAG = re.compile(r"[^ \t]+")  # other spaces, such as U+00A0, are part of a type


class Counts(NamedTuple):
    """Numbers of entities, and the percentages that follow from them; 0 instead of a division by 0."""

    correct: int
    found: int
    gold: int

    @property
    def precision(self) -> float:
        """Return the percentage of the predicted entities that are correct."""
        return 100 * self.correct / max(1, self.found)

    @property
    def recall(self) -> float:
        """Return the percentage of the gold entities that were predicted."""
        return 100 * self.correct / max(1, self.gold)

    @property
    def f1(self) -> float:
        """Return 2 P R / (P + R), which is 2 correct / (predicted + gold)."""
        return 200 * self.correct / max(1, self.found + self.gold)

    def to_json(self) -> dict[str, float]:
        """Return all numbers by name."""
        shares = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {**self._asdict(), **shares}


@dataclass(frozen=True)
class EntityReport:
    """The report of conlleval on a corpus; `str` has its format."""

    tokens: int
    right: int  # number of tokens with exactly the tag of the reference
    types: dict[str, Counts]  # in alphabetical order

    @property
    def accuracy(self) -> float:
        """Return the percentage of tokens with the right tag."""
        return 100 * self.right / max(1, self.tokens)

    @property
    def overall(self) -> Counts:
        """Return the counts of all types together (micro-average)."""
        return Counts(*np.sum([*self.types.values(), (0, 0, 0)], axis=0).tolist())

    def __str__(self) -> str:
        correct, found, gold = self.overall
        return "\n".join(
            [
                f"processed {self.tokens} tokens with {gold} phrases; found: {found} phrases; "
                f"correct: {correct}.",
                f"accuracy: {self.accuracy:6.2f}%; {_row(self.overall)}",
                *(f"{type:>17}: {_row(counts)}  {counts.found}" for type, counts in self.types.items()),
            ]
        )

    def to_json(self) -> dict[str, object]:
        """Return all numbers by name, ready for json.dumps."""
        return {
            "tokens": self.tokens,
            "accuracy": self.accuracy,
            "overall": self.overall.to_json(),
            "types": {type: counts.to_json() for type, counts in self.types.items()},
        }


def parted(sentence: str) -> list[str]:
    """Split a sentence of tags."""
    return _TAG.findall(sentence)


def report(hypotheses: Sequence[str], references: References) -> EntityReport:
    """Count entities by type. Raises ScoringError for invalid tags, or a wrong number of tags."""
    pairs = _tags(hypotheses, references)
    correct, found, gold = Counter[str](), Counter[str](), Counter[str]()
    for predicted, true in _entities(pairs):
        for counter, spans in ((correct, predicted & true), (found, predicted), (gold, true)):
            counter.update(span.type for span in spans)
    types = sorted({*found, *gold})
    return EntityReport(
        sum(len(true) for _, true in pairs),
        int(_right(pairs).sum()),
        {type: Counts(correct[type], found[type], gold[type]) for type in types},
    )


def f1(hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """F1 of entities of all types together (micro-average), exact matches only."""
    correct, found, gold = _counts(hypotheses, references)
    return mean_score("F1", 2 * correct, found + gold, "entity", bootstrap, seed)


def precision(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """Precision: the percentage of the predicted entities that are correct."""
    correct, found, _ = _counts(hypotheses, references)
    return mean_score("precision", correct, found, "entity", bootstrap, seed)


def recall(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """Recall: the percentage of the gold entities that are predicted."""
    correct, _, gold = _counts(hypotheses, references)
    return mean_score("recall", correct, gold, "entity", bootstrap, seed)


def tag_accuracy(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """The percentage of tokens with exactly the right tag, including `O`, which most tokens have."""
    pairs = _tags(hypotheses, references)
    tokens = np.array([len(true) for _, true in pairs])
    return mean_score("tag-accuracy", _right(pairs), tokens, "token", bootstrap, seed)


def accuracy(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """The percentage of sentences with the right label."""
    right = np.array(
        [predicted == true for predicted, true in single_labels(hypotheses, references)], np.int64
    )
    return mean_score("accuracy", right, np.ones_like(right), "sentence", bootstrap, seed)


def macro_f1(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """The mean of the F1 of all labels that occur, gold or predicted; rare labels count like frequent
    ones."""
    pairs = single_labels(hypotheses, references)
    every = sorted({label for pair in pairs for label in pair})
    predicted, true = (np.array(labels)[:, None] == every for labels in zip(*pairs, strict=True))
    return mean_score(
        "macro-F1", 2 * (predicted & true), predicted + true.astype(np.int64), "label", bootstrap, seed
    )


def _row(counts: Counts) -> str:
    return f"precision: {counts.precision:6.2f}%; recall: {counts.recall:6.2f}%; FB1: {counts.f1:6.2f}"


def single_labels(hypotheses: Sequence[str], references: References) -> list[tuple[str, str]]:
    """Return the predicted and the gold label of each sentence. Raises ScoringError for further
    references."""
    golds = by_hypothesis(hypotheses, references)
    for number, labels in enumerate(golds, 1):
        if len(labels) > 1:
            raise ScoringError(
                f"expected one reference of labels or tags, got {len(labels)} for hypothesis {number}"
            )
    return [(predicted.strip(), true.strip()) for predicted, (true,) in zip(hypotheses, golds, strict=True)]


def _tags(hypotheses: Sequence[str], references: References) -> list[tuple[list[str], list[str]]]:
    pairs = [(parted(predicted), parted(true)) for predicted, true in single_labels(hypotheses, references)]
    for number, (predicted, true) in enumerate(pairs, 1):
        if len(predicted) != len(true):
            raise ScoringError(
                f"expected a tag for each word, got {len(predicted)} in hypothesis {number}, {len(true)} in "
                "its reference"
            )
    return pairs


def _right(pairs: Sequence[tuple[list[str], list[str]]]) -> Numbers:
    """Return the number of right tags of each sentence (n,)."""
    return np.array([sum(map(str.__eq__, predicted, true)) for predicted, true in pairs])


def _entities(pairs: Sequence[tuple[list[str], list[str]]]) -> list[tuple[set[Span], set[Span]]]:
    """Return the predicted and the gold entities of each sentence."""
    entities = []
    for number, (predicted, true) in enumerate(pairs, 1):
        try:
            entities.append((set(read(predicted)), set(read(true))))
        except TagError as error:
            raise ScoringError(f"sentence {number}: {error}") from error
    return entities


def _counts(hypotheses: Sequence[str], references: References) -> Numbers:
    """Return the numbers of correct, predicted and gold entities of each sentence (3, n)."""
    entities = _entities(_tags(hypotheses, references))
    return np.array([(len(predicted & true), len(predicted), len(true)) for predicted, true in entities]).T


def mean_score(name: str, counts: Numbers, units: Numbers, unit: str, bootstrap: int, seed: int) -> Score:
    """Return 100 * counts / units over the corpus; of more columns the mean, over those that have units."""
    counts, units = (values.reshape(len(values), -1) for values in (counts, units))

    def mean(chosen: Chosen) -> float:
        times = np.bincount(chosen, minlength=len(counts))
        above, below = times @ counts, times @ units
        return 100 * float((above[below > 0] / below[below > 0]).mean()) if below.any() else 0.0

    def signature(resampling: str) -> str:
        return f"nrefs:1{resampling}|case:mixed|unit:{unit}|version:seq2attn {__version__}"

    return resampled(name, mean, len(counts), signature, bootstrap, seed)
