"""Exact match, and error rates by edit distance (word and phone error rates)."""

from collections.abc import Sequence

import numpy as np

from seq2attn.metrics.base import SEED, Numbers, References, Score, by_hypothesis, nrefs, resampled
from seq2attn.text.words import words
from seq2attn.version import __version__

AT_ONCE = 512  # number of pairs whose distances are computed together


def exact(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """Exact match (sentence accuracy): the percentage of sentences that equal a reference word for word."""
    golds = by_hypothesis(hypotheses, references)
    right = 1 - _wrong(hypotheses, golds)
    return corpus_mean("exact", right, np.ones_like(right), golds, bootstrap, seed, "unit:sentence")


def sentence_errors(
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
    name: str = "SER",
) -> Score:
    """Sentence error rate: 100 - exact match.

    In grapheme-to-phoneme conversion it is called word error rate, as a sentence is the sounds of one word
    (SIGMORPHON 2020, Gorman et al. 2020).
    """
    golds = by_hypothesis(hypotheses, references)
    wrong = _wrong(hypotheses, golds)
    return corpus_mean(name, wrong, np.ones_like(wrong), golds, bootstrap, seed, "unit:sentence")


def word_errors(
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
    name: str = "WER",
) -> Score:
    """Word error rate: 100 * edits / words of the references, over the corpus (Levenshtein 1966).

    Words are separated by ASCII white space, and are compared as they are written; if words are sounds, this
    is the phone error rate. It may be above 100. If a hypothesis has more than one reference, the one with
    the fewest edits counts.
    """
    golds = by_hypothesis(hypotheses, references)
    edits, lengths = fewest_edits(list(map(words, hypotheses)), [list(map(words, some)) for some in golds])
    return corpus_mean(name, edits, lengths, golds, bootstrap, seed, "unit:word")


def fewest_edits(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[Numbers, Numbers]:
    """Return the edit distance of each hypothesis to the reference that needs the fewest edits, and the
    length of this reference. All are given as words."""
    predicted = [words for words, some in zip(hypotheses, references, strict=True) for _ in some]
    expected = [words for some in references for words in some]
    edits, lengths = edit_distances(predicted, expected), np.array([len(gold) for gold in expected])
    counts = [len(some) for some in references]
    nearest = [
        end - count + int(edits[end - count : end].argmin())
        for end, count in zip(np.cumsum(counts), counts, strict=True)
    ]
    return edits[nearest], lengths[nearest]


def edit_distances(first: Sequence[Sequence[str]], second: Sequence[Sequence[str]]) -> Numbers:
    """Return the edit distances of pairs: insertions, deletions and substitutions of words (Levenshtein
    1966).

    The recursion of Wagner & Fischer (1974), D[i, j] = min(D[i-1, j] + 1, D[i, j-1] + 1, D[i-1, j-1] + [a_i
    != b_j]), is computed row by row for many pairs at once. The term D[i, j-1] + 1 within a row is a running
    minimum of D[i, j] - j.
    """
    distances = np.zeros(len(first), dtype=np.int64)
    differ = [n for n, pair in enumerate(zip(first, second, strict=True)) if list(pair[0]) != list(pair[1])]
    differ.sort(key=lambda n: (len(second[n]), len(first[n])))  # little padding
    for begin in range(0, len(differ), AT_ONCE):
        batch = differ[begin : begin + AT_ONCE]
        indices: dict[str, int] = {}
        a, b = (_padded([side[n] for n in batch], indices) for side in (first, second))
        across, rows = np.arange(b.shape[1] + 1), np.arange(len(batch))
        lengths = [np.array([len(side[n]) for n in batch]) for side in (first, second)]
        row = np.tile(across, (len(batch), 1))
        distances[batch] = row[rows, lengths[1]]
        for i in range(a.shape[1]):
            replaced = row[:, :-1] + (a[:, i : i + 1] != b)
            row = np.concatenate([row[:, :1] + 1, np.minimum(row[:, 1:] + 1, replaced)], axis=1)
            row = np.minimum.accumulate(row - across, axis=1) + across
            ended = lengths[0] == i + 1
            distances[np.array(batch)[ended]] = row[ended, lengths[1][ended]]
    return distances


def _padded(sentences: Sequence[Sequence[str]], indices: dict[str, int]) -> Numbers:
    """Return sentences as rows of word indices, padded with -1."""
    rows = np.full((len(sentences), max(map(len, sentences))), -1)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = [indices.setdefault(word, len(indices)) for word in sentence]
    return rows


def _wrong(hypotheses: Sequence[str], golds: Sequence[Sequence[str]]) -> Numbers:
    """Return 1 for each hypothesis that equals none of its references word for word, 0 for the others."""
    pairs = zip(hypotheses, golds, strict=True)
    return np.array(
        [words(text) not in [words(gold) for gold in references] for text, references in pairs], np.int64
    )


def corpus_mean(
    name: str,
    counts: Numbers,
    units: Numbers,
    golds: Sequence[Sequence[str]],
    bootstrap: int,
    seed: int,
    unit: str,
) -> Score:
    """Return 100 * counts / units over the corpus."""

    def share(chosen: Numbers) -> float:
        return 100 * float(counts[chosen].sum()) / max(1, int(units[chosen].sum()))

    def signature(resampling: str) -> str:
        return f"{nrefs(golds)}{resampling}|case:mixed|{unit}|version:seq2attn {__version__}"

    return resampled(name, share, len(counts), signature, bootstrap, seed)
