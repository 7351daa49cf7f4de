"""Parts of a corpus on which systems may differ: sources by length, and words by how frequent they are.

Letters: R runs, N inputs, K kinds of words.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from seq2attn.metrics.base import Chosen, Numbers, Statistic

LENGTHS = 6  # parts by length, at most
FREQUENCIES = (1, 10, 100, 1000)  # where a kind of words begins, by their count in the training text
_WORD = re.compile(r"\w+|[^\w\s]")


class Part(NamedTuple):
    """A part of a corpus."""

    name: str  # "5-8"
    rows: Numbers  # indices of its inputs


class WordKind(NamedTuple):
    """A kind of words."""

    name: str
    holds: Callable[[str, frozenset[str]], bool]  # of a word, given the words of its source


class WordScore(NamedTuple):
    """How well runs hit a kind of words."""

    name: str
    size: int  # how many of these words the references have
    statistic: Statistic  # F1 on any part of the outputs of all runs, one run after another


def by_length(lengths: Sequence[int], parts: int = LENGTHS) -> list[Part]:
    """Return parts of about equal size by length: at most so many, and fewer if there are few lengths."""
    table = np.asarray(lengths)
    shares = np.linspace(0, 1, parts + 1)[1:]
    ends = np.unique(np.quantile(table, shares, method="inverted_cdf"))
    starts = [table.min(), *(ends[:-1] + 1)]
    found = []
    for start, end in zip(starts, ends, strict=True):
        rows = np.flatnonzero((table >= start) & (table <= end))
        low, high = int(table[rows].min()), int(table[rows].max())
        found.append(Part(str(low) if low == high else f"{low}-{high}", rows))
    return found


def split(text: str) -> list[str]:
    """Return the words and punctuation marks of a text, as they are written."""
    return _WORD.findall(text)


def frequencies(texts: Iterable[str]) -> Counter[str]:
    """Return how often each word occurs in a training text."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(split(text))
    return counts


def kinds_by_frequency(training: Mapping[str, int]) -> list[WordKind]:
    """Return kinds of words by their count in the training text; the first are those that it has not."""
    bounds = (0, *FREQUENCIES, None)
    found = []
    for low, high in pairwise(bounds):
        name = f"{low:,} or more" if high is None else "0" if not low else f"{low:,}-{high - 1:,}"

        def holds(
            word: str, source: frozenset[str], low: int = low or 0, high: float = high or float("inf")
        ) -> bool:
            return low <= training.get(word, 0) < high

        found.append(WordKind(name, holds))
    return found


def copied_or_not() -> list[WordKind]:
    """Return the words that the source has, too, such as names and numbers, and those that it has not."""
    return [
        WordKind("in the source", lambda word, source: word in source),
        WordKind("not in the source", lambda word, source: word not in source),
    ]


def word_scores(
    outputs: Sequence[Sequence[str]],
    references: Sequence[str],
    sources: Sequence[str] | None,
    kinds: Sequence[WordKind],
) -> list[WordScore]:
    """Return for each kind of words F1: 2 matched / (words of the outputs + words of the references).

    A word of an output is matched as often as its reference has it, in whatever order. Kinds that no
    reference has are left out.

    outputs: of each run, N of them; sources: None is empty ones.
    """
    known = [frozenset(split(text)) for text in sources or [""] * len(references)]
    golds = [Counter(split(text)) for text in references]
    tables = np.zeros((len(kinds), 3, len(outputs), len(references)), dtype=np.int64)
    for run, hypotheses in enumerate(outputs):
        for row, (text, gold, source) in enumerate(zip(hypotheses, golds, known, strict=True)):
            output = Counter(split(text))
            for number, kind in enumerate(kinds):
                for place, counts in enumerate((output & gold, output, gold)):
                    words = (count for word, count in counts.items() if kind.holds(word, source))
                    tables[number, place, run, row] = sum(words)
    return [
        WordScore(kind.name, int(table[2, 0].sum()), _f1(*table.reshape(3, -1)))
        for kind, table in zip(kinds, tables, strict=True)
        if table[2].any()
    ]


def _f1(matched: Numbers, written: Numbers, gold: Numbers) -> Statistic:
    """Return F1 on any part of outputs, in per cent."""

    def statistic(chosen: Chosen) -> float:
        units = int((written[chosen] + gold[chosen]).sum())
        return 200 * float(matched[chosen].sum()) / max(1, units)

    return statistic
