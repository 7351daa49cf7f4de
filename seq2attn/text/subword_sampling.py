"""Subword regularisation: one of the possible segmentations of a sentence, drawn at random.

SentencePiece samples, too, but since 0.2.2 it mixes a number of the process into every seed, so that a run
that is resumed would not see what it would have seen. Here a sample depends on text, seed and options alone.
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

UNKNOWN = 10.0  # by so much less likely than the rarest piece, as in SentencePiece
WORDS = 1 << 14  # whose lattices are remembered

Random = Callable[[], float]  # the next number, at least 0 and less than 1
Segment = Callable[[str, Random], list[str]]  # cuts a word at random


class Subwords:
    """Cuts sentences into the pieces of a SentencePiece model.

    Args:
        nbest: draw from so many best segmentations of a sentence; -1: from all (BPE always does).
        alpha: a unigram model draws with probability proportional to p^alpha (Kudo 2018); BPE leaves out each
            merge with probability alpha (BPE-dropout, Provilkov et al. 2020).

    Raises:
        RuntimeError: SentencePiece's, if the model has one segmentation only, or for an nbest above 512.
    """

    def __init__(self, processor: "sentencepiece.SentencePieceProcessor", nbest: int, alpha: float) -> None:
        processor.encode("a", enable_sampling=True, nbest_size=nbest, alpha=alpha)
        self._processor, self._alpha = processor, alpha
        special = processor.is_control, processor.is_unknown, processor.is_byte, processor.is_unused
        self._ids: dict[str, int] = {
            processor.id_to_piece(number): number
            for number in range(processor.get_piece_size())
            if not any(is_one(number) for is_one in special)
        }
        scores = {piece: processor.get_score(number) for piece, number in self._ids.items()}
        self._segment = unigram(scores, alpha) if _is_unigram(processor) else bpe(scores, alpha)
        self._nbest = nbest if _is_unigram(processor) else -1
        # Almost always no piece reaches from one word into the next, and words can be cut one by one.
        reaches = any("▁" in piece[1:] for piece in self._ids)
        self._words = re.compile(".+" if reaches else "▁?[^▁]+|▁", re.DOTALL)
        self._bytes = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]
        self._falls_back = processor.is_byte(self._bytes[0])

    def sample(self, text: str, random: Random) -> list[int]:
        """Ids of a segmentation of the text."""
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
                elif ids[-1:] != [unknown]:  # several in a row are one
                    ids.append(unknown)
        return ids

    def _among_best(self, text: str, random: Random) -> list[int]:
        best: list[list[int]] = self._processor.nbest_encode_as_ids(text, self._nbest)
        logs = [self._alpha * sum(map(self._processor.get_score, ids)) for ids in best]
        return best[bisect(_shares(logs)[0], random())]


def _is_unigram(processor: "sentencepiece.SentencePieceProcessor") -> bool:
    try:
        processor.nbest_encode_as_ids("a", 2)
    except RuntimeError:  # only unigram models know a second best
        return False
    return True


def _shares(logs: list[float]) -> tuple[list[float], float]:
    """Cumulative probabilities, without the last (which is 1), and the logarithm of their sum before."""
    most = max(logs)
    weights = [exp(one - most) for one in logs]
    whole = fsum(weights)
    return [share / whole for share in accumulate(weights)][:-1], most + log(whole)


class _End(NamedTuple):
    """Where the pieces begin that end at a place, and their cumulative probabilities."""

    begins: list[int]
    shares: list[float]


def unigram(scores: dict[str, float], alpha: float) -> Segment:
    """Draws with probability proportional to p^alpha by forward filtering and backward sampling."""
    longest = max(map(len, scores))
    unknown = min(scores.values()) - UNKNOWN

    @lru_cache(WORDS)
    def lattice(word: str) -> list[_End]:
        total, ends = [0.0], [_End([], [])]
        for end in range(1, len(word) + 1):
            places = range(max(0, end - longest), end)
            begins = [begin for begin in places if word[begin:end] in scores or begin == end - 1]
            logs = [total[begin] + alpha * scores.get(word[begin:end], unknown) for begin in begins]
            shares, whole = _shares(logs)
            total.append(whole)
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
    """Merges from the best down, each left out with probability alpha."""

    def segment(word: str, random: Random) -> list[str]:
        symbols, size = list(word), len(word)
        before, after = [*range(-1, size - 1)], [*range(1, size + 1)]
        pairs: list[tuple[float, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right < size and (pair := symbols[left] + symbols[right]) in scores:
                heappush(pairs, (-scores[pair], left, pair))

        for place in range(size - 1):
            offer(place, place + 1)
        while pairs:
            _, left, pair = heappop(pairs)
            right = after[left]
            if not symbols[left] or right == size or symbols[left] + symbols[right] != pair:
                continue  # one of the two has been merged with another since
            if random() < alpha:
                continue
            symbols[left], symbols[right], after[left] = pair, "", after[right]
            if after[right] < size:
                before[after[right]] = left
            offer(before[left], left)
            offer(left, after[left])
        return [symbol for symbol in symbols if symbol]

    return segment
