"""Metrics of word alignments against gold links: alignment error rate, precision and recall."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from seq2attn.alignment.word_alignment import AlignmentError, Gold, Link, beyond, parse_gold
from seq2attn.metrics.base import SEED, Chosen, Score, resampled
from seq2attn.version import __version__


def alignment_scores(
    predicted: Sequence[Collection[Link]], gold: Sequence[Gold], bootstrap: int = 1000, seed: int = SEED
) -> list[Score]:
    """Return AER, precision and recall of a corpus (Och & Ney 2003), in percent, with 95 % intervals.

    With predicted links A, sure links S and possible links P, of all pairs together: AER is
    1 - (|A and S| + |A and P|) / (|A| + |S|), precision |A and P| / |A|, and recall |A and S| / |S|. Pairs
    are resampled (`metrics.Score`). AlignmentError if the numbers of pairs differ, or without any links.
    """
    if len(predicted) != len(gold):
        raise AlignmentError(
            f"expected gold links for each of the {len(predicted):,} pairs, got {len(gold):,} lines of them"
        )
    rows = [_matches(set(links), pair) for links, pair in zip(predicted, gold, strict=True)]
    counts = np.array(rows, dtype=np.int64).reshape(-1, 4)  # |A|, |S|, |A and S|, |A and P|
    if not counts[:, :2].any():
        raise AlignmentError("no links at all, neither predicted nor sure: there is no error rate")

    def error_rate(chosen: Chosen) -> float:
        found, sure, right, possible = counts[chosen].sum(0).tolist()
        return 100 * (1 - _share(right + possible, found + sure))

    def precision(chosen: Chosen) -> float:
        found, _, _, possible = counts[chosen].sum(0).tolist()
        return 100 * _share(possible, found)

    def recall(chosen: Chosen) -> float:
        _, sure, right, _ = counts[chosen].sum(0).tolist()
        return 100 * _share(right, sure)

    def signature(resampling: str) -> str:
        return f"pairs:{len(gold)}|links:{counts[:, 0].sum()}{resampling}|seq2attn:{__version__}"

    statistics = {"AER": error_rate, "precision": precision, "recall": recall}
    return [
        resampled(name, statistic, len(counts), signature, bootstrap, seed)
        for name, statistic in statistics.items()
    ]


class GoldFile(NamedTuple):
    """The gold links of a file, a pair of texts a line."""

    name: str
    links: list[Gold]

    @classmethod
    def parse(cls, lines: Sequence[str], name: str) -> "GoldFile":
        """Return the gold links of the lines of a file; AlignmentError with its name and the line."""
        gold = []
        for number, line in enumerate(lines, 1):
            try:
                gold.append(parse_gold(line))
            except AlignmentError as error:
                raise AlignmentError(f"{name}:{number}: {error}") from error
        return cls(name, gold)

    def of(self, pairs: Sequence[tuple[str, str]]) -> list[Gold]:
        """Return the links, which are those of these pairs. AlignmentError for another number of lines, and,
        with its line, for a link to a word that its pair does not have."""
        if len(self.links) != len(pairs):
            raise AlignmentError(
                f"expected gold links for each of the {len(pairs):,} pairs, got {len(self.links):,} lines of "
                f"them in {self.name}"
            )
        for number, (links, pair) in enumerate(zip(self.links, pairs, strict=True), 1):
            if (fault := beyond(sorted(links.possible), *pair)) is not None:
                raise AlignmentError(f"{self.name}:{number}: {fault}")
        return self.links


def _matches(links: set[Link], gold: Gold) -> tuple[int, int, int, int]:
    sure, possible = gold
    return len(links), len(sure), len(links & sure), len(links & possible)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0  # of nothing, all is right
