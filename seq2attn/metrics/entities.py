"""Right or wrong in tagging: entities as conlleval counts them, tags one by one, and labels of sentences.

For the first two, a sentence is its tags with spaces or tabs between. An entity is right if its type and both
of its ends are. Tags are read as conlleval reads them (`tags.read`), in any scheme and also where they are of
none.
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
    """Entities, and what follows from their numbers, from 0 to 100; 0 where there is nothing to divide by."""

    correct: int
    found: int
    gold: int

    @property
    def precision(self) -> float:
        """The share of what was found that is correct."""
        return 100 * self.correct / max(1, self.found)

    @property
    def recall(self) -> float:
        """The share of what is gold that was found."""
        return 100 * self.correct / max(1, self.gold)

    @property
    def f1(self) -> float:
        """2 P R / (P + R), which is twice the correct over all that were found and all that are gold."""
        return 200 * self.correct / max(1, self.found + self.gold)

    def to_json(self) -> dict[str, float]:
        """All numbers by name."""
        shares = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {**self._asdict(), **shares}


@dataclass(frozen=True)
class EntityReport:
    """What conlleval says of a corpus; as text, in its form."""

    tokens: int
    right: int  # tokens whose tag is that of the reference, letter for letter
    types: dict[str, Counts]  # by the alphabet

    @property
    def accuracy(self) -> float:
        """The share of right tokens, from 0 to 100."""
        return 100 * self.right / max(1, self.tokens)

    @property
    def overall(self) -> Counts:
        """Of all types together (micro-average)."""
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
        """All numbers by name, ready for json.dumps."""
        return {
            "tokens": self.tokens,
            "accuracy": self.accuracy,
            "overall": self.overall.to_json(),
            "types": {type: counts.to_json() for type, counts in self.types.items()},
        }


def parted(sentence: str) -> list[str]:
    """The tags of a sentence."""
    return _TAG.findall(sentence)


def report(hypotheses: Sequence[str], references: References) -> EntityReport:
    """Counts by type. Raises ScoringError for tags that are none, or not as many as in the reference."""
    pairs = _tags(hypotheses, references)
    correct, found, gold = Counter[str](), Counter[str](), Counter[str]()
    for said, true in _entities(pairs):
        for counter, spans in ((correct, said & true), (found, said), (gold, true)):
            counter.update(span.type for span in spans)
    types = sorted({*found, *gold})
    return EntityReport(
        sum(len(true) for _, true in pairs),
        int(_right(pairs).sum()),
        {type: Counts(correct[type], found[type], gold[type]) for type in types},
    )


def f1(hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED) -> Score:
    """F1 of entities of all types together, strict: twice the correct over the found and the gold."""
    correct, found, gold = _counts(hypotheses, references)
    return _mean("F1", 2 * correct, found + gold, "entity", bootstrap, seed)


def precision(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """The share of the found entities that are correct."""
    correct, found, _ = _counts(hypotheses, references)
    return _mean("precision", correct, found, "entity", bootstrap, seed)


def recall(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """The share of the gold entities that are found."""
    correct, _, gold = _counts(hypotheses, references)
    return _mean("recall", correct, gold, "entity", bootstrap, seed)


def tag_accuracy(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """The share of tokens with the right tag, letter for letter, `O` among them: most tokens are."""
    pairs = _tags(hypotheses, references)
    tokens = np.array([len(true) for _, true in pairs])
    return _mean("tag-accuracy", _right(pairs), tokens, "token", bootstrap, seed)


def accuracy(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """The share of sentences with the right label."""
    right = np.array([said == true for said, true in _labels(hypotheses, references)], np.int64)
    return _mean("accuracy", right, np.ones_like(right), "sentence", bootstrap, seed)


def macro_f1(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """The mean F1 of all labels that a sentence has or is given; the rare count as much as the frequent."""
    pairs = _labels(hypotheses, references)
    every = sorted({label for pair in pairs for label in pair})
    said, true = (np.array(labels)[:, None] == every for labels in zip(*pairs, strict=True))
    return _mean("macro-F1", 2 * (said & true), said + true.astype(np.int64), "label", bootstrap, seed)


def _row(counts: Counts) -> str:
    return f"precision: {counts.precision:6.2f}%; recall: {counts.recall:6.2f}%; FB1: {counts.f1:6.2f}"


def _labels(hypotheses: Sequence[str], references: References) -> list[tuple[str, str]]:
    """What was said of each sentence and what is true; there is one truth."""
    golds = by_hypothesis(hypotheses, references)
    for number, several in enumerate(golds, 1):
        if len(several) > 1:
            raise ScoringError(
                f"expected one reference of labels or tags, got {len(several)} for hypothesis {number}"
            )
    return [(said.strip(), true.strip()) for said, (true,) in zip(hypotheses, golds, strict=True)]


def _tags(hypotheses: Sequence[str], references: References) -> list[tuple[list[str], list[str]]]:
    pairs = [(parted(said), parted(true)) for said, true in _labels(hypotheses, references)]
    for number, (said, true) in enumerate(pairs, 1):
        if len(said) != len(true):
            raise ScoringError(
                f"expected a tag for each word, got {len(said)} in hypothesis {number}, {len(true)} in its "
                "reference"
            )
    return pairs


def _right(pairs: Sequence[tuple[list[str], list[str]]]) -> Numbers:
    """How many tags of each sentence are right (n,)."""
    return np.array([sum(map(str.__eq__, said, true)) for said, true in pairs])


def _entities(pairs: Sequence[tuple[list[str], list[str]]]) -> list[tuple[set[Span], set[Span]]]:
    """The entities that were found and that are gold in each sentence."""
    found = []
    for number, (said, true) in enumerate(pairs, 1):
        try:
            found.append((set(read(said)), set(read(true))))
        except TagError as error:
            raise ScoringError(f"sentence {number}: {error}") from error
    return found


def _counts(hypotheses: Sequence[str], references: References) -> Numbers:
    """How many entities of each sentence are correct, found and gold (3, n)."""
    entities = _entities(_tags(hypotheses, references))
    return np.array([(len(said & true), len(said), len(true)) for said, true in entities]).T


def _mean(name: str, counts: Numbers, units: Numbers, unit: str, bootstrap: int, seed: int) -> Score:
    """100 * counts / units over the corpus; of several columns the mean, of those that have units."""
    counts, units = (values.reshape(len(values), -1) for values in (counts, units))

    def mean(chosen: Chosen) -> float:
        times = np.bincount(chosen, minlength=len(counts))
        above, below = times @ counts, times @ units
        return 100 * float((above[below > 0] / below[below > 0]).mean()) if below.any() else 0.0

    def signature(drawn: str) -> str:
        return f"nrefs:1{drawn}|case:mixed|unit:{unit}|version:seq2attn {__version__}"

    return resampled(name, mean, len(counts), signature, bootstrap, seed)
