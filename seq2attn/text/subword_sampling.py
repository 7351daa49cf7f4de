"""Subword regularisation: sample one of the possible segmentations of a sentence.

SentencePiece samples, too, but since 0.2.2 it mixes a number of the process into every seed, so that a
resumed run would see other samples. Here a sample depends on text, seed and options alone.
"""

import re
from bisect import bisect
from collections.abc import Callable
from functools import lru_cache
from heapq import heappop, heappush
from itertools import accumulate
from math import exp, fsum, log
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sentencepiece

UNKNOWN = 10.0  # log-probability of unknown characters below that of the rarest piece, as in SentencePiece
WORDS = 1 << 14  # number of words whose lattices are cached

Random = Callable[[], float]  # returns the next random number in [0, 1)
Segment = Callable[[str, Random], list[str]]  # samples a segmentation of a word


class Subwords:
    """Samples segmentations of sentences into the pieces of a SentencePiece model.

    Args:
        nbest: sample from this many best segmentations of a sentence; -1: from all (as BPE always does).
        alpha: a unigram model samples with probability proportional to p^alpha (Kudo 2018); BPE leaves out
            each merge with probability alpha (BPE-dropout, Provilkov et al. 2020).

    Raises:
        RuntimeError: SentencePiece's, if the model has only one segmentation, or if nbest is above 512.
    """

    def __init__(self, processor: "sentencepiece.SentencePieceProcessor", nbest: int, alpha: float) -> None:
        processor.encode("a", enable_sampling=True, nbest_size=nbest, alpha=alpha)
        self._processor, self._alpha = processor, alpha
        special = processor.is_control, processor.is_unknown, processor.is_byte, processor.is_unused
        self._ids: dict[str, int] = {
            processor.id_to_piece(number): number
            for number in range(processor.get_piece_size())
            if not any(is_special(number) for is_special in special)
        }
        scores = {piece: processor.get_score(number) for piece, number in self._ids.items()}
        self._segment = unigram(scores, alpha) if _is_unigram(processor) else bpe(scores, alpha)
        self._nbest = nbest if _is_unigram(processor) else -1
        # Almost always no piece spans two words, and words can be segmented one by one.
        reaches = any("▁" in piece[1:] for piece in self._ids)
        self._words = re.compile(".+" if reaches else "▁?[^▁]+|▁", re.DOTALL)
        self._bytes = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]
        self._falls_back = processor.is_byte(self._bytes[0])

    def sample(self, text: str, random: Random) -> list[int]:
        """Return the ids of a sampled segmentation of the text."""
        if self._nbest > 0:
            return self._among_best(text, random)
        ids: list[int] = []
        unknown: int = self._processor.unk_id()
        for word in self._words.findall(self._processor.normalize(text)):
            for piece in self._segment(word, random):
                if (number := self._ids.get(piece)) is not None:
                    ids.append(number)
                elif self._falls_back:
                    ids += [self._bytes[byte] for byte in piece.encode()]
                elif ids[-1:] != [unknown]:  # adjacent unknown pieces are one
                    ids.append(unknown)
        return ids

    def _among_best(self, text: str, random: Random) -> list[int]:
        best: list[list[int]] = self._processor.nbest_encode_as_ids(text, self._nbest)
        logs = [self._alpha * sum(map(self._processor.get_score, ids)) for ids in best]
        return best[bisect(_shares(logs)[0], random())]


def _is_unigram(processor: "sentencepiece.SentencePieceProcessor") -> bool:
    try:
        processor.nbest_encode_as_ids("a", 2)
    except RuntimeError:  # only unigram models have n-best segmentations
        return False
    return True


def _shares(logs: list[float]) -> tuple[list[float], float]:
    """Normalise; return cumulative probabilities without the last (which is 1), and the log of the sum."""
    largest = max(logs)
    weights = [exp(value - largest) for value in logs]
    total = fsum(weights)
    return [share / total for share in accumulate(weights)][:-1], largest + log(total)


class _End(NamedTuple):
    """The pieces that end at a position: where they begin, and their cumulative probabilities."""

    begins: list[int]
    shares: list[float]


def unigram(scores: dict[str, float], alpha: float) -> Segment:
    """Sample with probability proportional to p^alpha by forward filtering and backward sampling."""
    longest = max(map(len, scores))
    unknown = min(scores.values()) - UNKNOWN

    @lru_cache(WORDS)
    def lattice(word: str) -> list[_End]:
        total, ends = [0.0], [_End([], [])]
        for end in range(1, len(word) + 1):
            positions = range(max(0, end - longest), end)
            begins = [begin for begin in positions if word[begin:end] in scores or begin == end - 1]
            logs = [total[begin] + alpha * scores.get(word[begin:end], unknown) for begin in begins]
            shares, log_sum = _shares(logs)
            total.append(log_sum)
            ends.append(_End(begins, shares))
        return ends

    def segment(word: str, random: Random) -> list[str]:
        pieces, end, ends = [], len(word), lattice(word)
        while end:
            begin = ends[end].begins[bisect(ends[end].shares, random())]
            pieces.append(word[begin:end])
            end = begin
        return pieces[::-1]

    return segment


def bpe(scores: dict[str, float], alpha: float) -> Segment:
    """Apply merges from the best down, each left out with probability alpha."""

    def segment(word: str, random: Random) -> list[str]:
        symbols, size = list(word), len(word)
        before, after = [*range(-1, size - 1)], [*range(1, size + 1)]
        pairs: list[tuple[float, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right < size and (pair := symbols[left] + symbols[right]) in scores:
                heappush(pairs, (-scores[pair], left, pair))

        for position in range(size - 1):
            offer(position, position + 1)
        while pairs:
            _, left, pair = heappop(pairs)
            right = after[left]
            if not symbols[left] or right == size or symbols[left] + symbols[right] != pair:
                continue  # one of the two symbols has been merged since
            if random() < alpha:
                continue
            symbols[left], symbols[right], after[left] = pair, "", after[right]
            if after[right] < size:
                before[after[right]] = left
            offer(before[left], left)
            offer(left, after[left])
        return [symbol for symbol in symbols if symbol]

    return segment
