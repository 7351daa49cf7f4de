"""N-grams that one system has right more often than another."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from seq2attn.metrics.buckets import split

LONGEST = 4  # words of an n-gram


class NGram(NamedTuple):
    """An n-gram of the references, and how often systems have it right."""

    text: str
    reference: int  # how often the references have it
    matched: tuple[float, float]  # by the first system and by the other, the mean of the runs of each

    def __str__(self) -> str:
        first, other = self.matched
        return f"{first:g} and {other:g} of {self.reference:,}  {self.text}"


class NGrams(NamedTuple):
    """The n-grams of which two systems differ most, those with the largest difference first."""

    first: list[NGram]  # that the first system has right more often
    other: list[NGram]

    def to_json(self) -> dict[str, Any]:
        """Return a value for json.dumps."""
        return {name: [one._asdict() for one in ngrams] for name, ngrams in self._asdict().items()}


def matched_ngrams(outputs: Sequence[str], references: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Return how often outputs have n-grams of their references; in each, as often as its reference at
    most."""
    matched: Counter[tuple[str, ...]] = Counter()
    for output, reference in zip(outputs, references, strict=True):
        matched.update(_ngrams(output) & _ngrams(reference))
    return matched


def differing_ngrams(
    runs: tuple[Sequence[Counter[tuple[str, ...]]], Sequence[Counter[tuple[str, ...]]]],
    references: Sequence[str],
    most: int,
) -> NGrams:
    """Return the n-grams that one of two systems has right more often.

    runs: of each system, what its runs have matched (`matched_ngrams`); most: the number for each system. Of
    equal differences longer n-grams come first, and an n-gram that one of these contains with the same counts
    is left out: it says the same.
    """
    means = [_mean(of_system) for of_system in runs]
    totals: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        totals.update(_ngrams(reference))
    differences = {
        words: means[1].get(words, 0.0) - means[0].get(words, 0.0) for words in means[0] | means[1]
    }

    def chosen(sign: int) -> list[NGram]:
        better = (words for words, difference in differences.items() if sign * difference > 0)
        ranked = sorted(better, key=lambda words: (-sign * differences[words], -len(words), words))
        found: dict[tuple[str, ...], NGram] = {}
        for words in ranked:
            if len(found) == most:
                break
            counts = means[0].get(words, 0.0), means[1].get(words, 0.0)
            ngram = NGram(" ".join(words), totals[words], counts)
            if not any(_within(words, longer) and one[1:] == ngram[1:] for longer, one in found.items()):
                found[words] = ngram
        return [*found.values()]

    return NGrams(chosen(-1), chosen(1))


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = split(text)
    sizes = range(1, LONGEST + 1)
    return Counter(tuple(words[start : start + n]) for n in sizes for start in range(len(words) - n + 1))


def _mean(runs: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], float]:
    total: Counter[tuple[str, ...]] = Counter()
    for matched in runs:
        total.update(matched)
    return {words: count / len(runs) for words, count in total.items()}


def _within(words: tuple[str, ...], longer: tuple[str, ...]) -> bool:
    size = len(words)
    return any(longer[start : start + size] == words for start in range(len(longer) - size + 1))
