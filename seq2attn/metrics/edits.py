"""Right or wrong: exact match, and the edits that are missing from it (word and phone error rates)."""

from collections.abc import Sequence

import numpy as np

from seq2attn.metrics.base import SEED, Numbers, References, Score, by_hypothesis, nrefs, resampled
from seq2attn.version import __version__

AT_ONCE = 512  # pairs whose edits are counted together


def exact(
    hypotheses: Sequence[str], references: References, bootstrap: int = 1000, seed: int = SEED
) -> Score:
    """Exact match (sentence accuracy): the share of sentences that are right, word for word, of 100."""
    golds = by_hypothesis(hypotheses, references)
    right = 1 - _wrong(hypotheses, golds)
    return _mean("exact", right, np.ones_like(right), golds, bootstrap, seed, "unit:sentence")


def sentence_errors(
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
    name: str = "SER",
) -> Score:
    """The share of sentences with any error: 100 - exact match.

    Grapheme to phoneme calls it word error rate, as there a sentence is the sounds of one word (SIGMORPHON
    2020, Gorman et al. 2020).
    """
    golds = by_hypothesis(hypotheses, references)
    wrong = _wrong(hypotheses, golds)
    return _mean(name, wrong, np.ones_like(wrong), golds, bootstrap, seed, "unit:sentence")


def word_errors(
    hypotheses: Sequence[str],
    references: References,
    bootstrap: int = 1000,
    seed: int = SEED,
    name: str = "WER",
) -> Score:
    """Word error rate: 100 * edits / words of the references, over the corpus (Levenshtein 1966).

    Words are what stands between spaces, as they are written; where words are sounds, this is the phone error
    rate. May be above 100. Of several references, that with the fewest edits counts.
    """
    golds = by_hypothesis(hypotheses, references)
    said = [one.split() for one, several in zip(hypotheses, golds, strict=True) for _ in several]
    wanted = [gold.split() for several in golds for gold in several]
    edits, words = edit_distances(said, wanted), np.array([len(gold) for gold in wanted])
    ends = np.cumsum([len(several) for several in golds])
    nearest = [
        end - len(several) + int(edits[end - len(several) : end].argmin())
        for end, several in zip(ends, golds, strict=True)
    ]
    return _mean(name, edits[nearest], words[nearest], golds, bootstrap, seed, "unit:word")


def edit_distances(first: Sequence[Sequence[str]], second: Sequence[Sequence[str]]) -> Numbers:
    """The edits (a word put in, left out, or replaced) that make each `first` the `second` of its number.

    The recursion of Wagner & Fischer (1974), D[i, j] = min(D[i-1, j] + 1, D[i, j-1] + 1, D[i-1, j-1] +
    [a_i != b_j]), a row at a time for many pairs at once. Within a row D[i, j-1] + 1 runs on, which is a
    running minimum of D[i, j] - j.
    """
    distances = np.zeros(len(first), dtype=np.int64)
    differ = [n for n, pair in enumerate(zip(first, second, strict=True)) if list(pair[0]) != list(pair[1])]
    differ.sort(key=lambda n: (len(second[n]), len(first[n])))  # little padding
    for begin in range(0, len(differ), AT_ONCE):
        some = differ[begin : begin + AT_ONCE]
        numbers: dict[str, int] = {}
        a, b = (_padded([side[n] for n in some], numbers) for side in (first, second))
        across, rows = np.arange(b.shape[1] + 1), np.arange(len(some))
        lengths = [np.array([len(side[n]) for n in some]) for side in (first, second)]
        row = np.tile(across, (len(some), 1))
        distances[some] = row[rows, lengths[1]]
        for i in range(a.shape[1]):
            replaced = row[:, :-1] + (a[:, i : i + 1] != b)
            row = np.concatenate([row[:, :1] + 1, np.minimum(row[:, 1:] + 1, replaced)], axis=1)
            row = np.minimum.accumulate(row - across, axis=1) + across
            ended = lengths[0] == i + 1
            distances[np.array(some)[ended]] = row[ended, lengths[1][ended]]
    return distances


def _padded(sentences: Sequence[Sequence[str]], numbers: dict[str, int]) -> Numbers:
    """Sentences as rows of numbers, one for each word; -1 behind their ends."""
    rows = np.full((len(sentences), max(map(len, sentences))), -1)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = [numbers.setdefault(word, len(numbers)) for word in sentence]
    return rows


def _wrong(hypotheses: Sequence[str], golds: Sequence[Sequence[str]]) -> Numbers:
    """1 for each hypothesis that is none of its references, word for word; 0 for the others."""
    pairs = zip(hypotheses, golds, strict=True)
    return np.array([one.split() not in [gold.split() for gold in some] for one, some in pairs], np.int64)


def _mean(
    name: str,
    counts: Numbers,
    units: Numbers,
    golds: Sequence[Sequence[str]],
    bootstrap: int,
    seed: int,
    unit: str,
) -> Score:
    """100 * counts / units over the corpus."""

    def share(chosen: Numbers) -> float:
        return 100 * float(counts[chosen].sum()) / max(1, int(units[chosen].sum()))

    def signature(drawn: str) -> str:
        return f"{nrefs(golds)}{drawn}|case:mixed|{unit}|version:seq2attn {__version__}"

    return resampled(name, share, len(counts), signature, bootstrap, seed)
