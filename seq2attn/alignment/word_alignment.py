"""Alignment: attention weights, piece by piece, become links between words.

Letters: Tp, Sp pieces and Tw, Sw words of the target and the source; all tensors are float32 on the CPU.
"""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seq2attn.errors import Seq2attnError


class AlignmentError(Seq2attnError):
    """Weights, words or links that do not belong together."""


class WordAlignment(NamedTuple):
    """How much each target word looked at each source word; a row and its end_of_sentence share one mass."""

    weights: Tensor  # (Tw, Sw)
    end_of_sentence: Tensor  # (Tw,)  what lay on the source's end-of-sentence mark, zeros if it has none


class Link(NamedTuple):
    """One hard link between two words, both counted from 0."""

    source: int
    target: int

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"


def shifted(weights: Float[Tensor, "steps S"], shift: int) -> Float[Tensor, "Tp S"]:
    """The row of each token, from the rows of all decoding steps (step t predicts token t, the last the end).

    With shift 0 weights belong to the token that the step predicts: token t has row t. With shift 1 they
    belong to the token that the step has just read: token t has row t + 1. Raises AlignmentError for another
    shift or no row.
    """
    if shift not in (0, 1):
        raise AlignmentError(
            f"alignment_shift is 0 (the query predicts the token) or 1 (it has read the token), got {shift}"
        )
    if not len(weights):
        raise AlignmentError(
            "expected a row of weights for every token and one for the end, got no row at all"
        )
    return weights[shift : shift + len(weights) - 1]


def by_words(
    weights: Float[Tensor, "Tp S"], target: Sequence[int], source: Sequence[int], source_eos: bool
) -> WordAlignment:
    """Weights between words: the columns of a source word are summed, the rows of a target word averaged.

    `target` and `source` say for each piece the index of its word (Tokens.word_of). With source_eos the last
    column is the source's end-of-sentence mark, which comes back apart. So each row plus its end_of_sentence
    is the mean of the row sums of its pieces (1 for a softmax). Raises AlignmentError when sizes do not fit.
    """
    expected = (len(target), len(source) + source_eos)
    if weights.shape != expected:
        eos = " + 1 for the end of sentence" if source_eos else ""
        raise AlignmentError(
            f"expected weights of {len(target)} target by {len(source)} source pieces{eos}, got "
            f"{tuple(weights.shape)}; give the rows that `shifted` returns and the pieces that were read"
        )
    Tw, Sw = _count_words(target), _count_words(source)
    # the end-of-sentence mark is one more word
    columns = torch.tensor([*source, Sw] if source_eos else source, dtype=torch.long)
    rows = torch.tensor(target, dtype=torch.long)
    pieces = weights.detach().to("cpu", torch.float32)
    summed = pieces.new_zeros(len(rows), Sw + 1).index_add_(1, columns, pieces)  # (Tp, Sw + 1)
    total = pieces.new_zeros(Tw, Sw + 1).index_add_(0, rows, summed)  # (Tw, Sw + 1)
    averaged = total / rows.bincount(minlength=Tw)[:, None]
    return WordAlignment(averaged[:, :Sw], averaged[:, Sw])


def _count_words(word_of: Sequence[int]) -> int:
    """How many words the pieces make; a word without a piece would get weights of 0/0."""
    count = max(word_of, default=-1) + 1
    if set(word_of) != set(range(count)):
        raise AlignmentError(f"expected pieces of the words 0, 1, 2, ... without a gap, got {list(word_of)}")
    return count


def links(alignment: WordAlignment, threshold: float | None = None) -> list[Link]:
    """The hard links, target word by target word.

    Without a threshold each target word has the source word it looked at most, and none if it looked more at
    the end of sentence or nowhere. With one, every pair of words whose weight is above it is linked: with 0
    all but those whose weight is 0. So a word that looked at nothing has no link, whatever the threshold.
    """
    weights, end_of_sentence = alignment
    if threshold is not None:
        if not 0 <= threshold <= 1:
            raise AlignmentError(f"a threshold for weights lies between 0 and 1, got {threshold}")
        return [Link(source, target) for target, source in (weights > threshold).nonzero().tolist()]
    if not weights.shape[1]:
        return []
    largest, argmax = weights.max(1)
    linked = (largest > 0) & (largest >= end_of_sentence)
    return [Link(int(argmax[target]), target) for target in linked.nonzero()[:, 0].tolist()]


def pharaoh(alignment: WordAlignment, threshold: float | None = None) -> str:
    """The links in Pharaoh's format, `source-target source-target ...` from 0, as fast_align writes it."""
    return " ".join(map(str, links(alignment, threshold)))


class Gold(NamedTuple):
    """The links that people have drawn for a pair of sentences."""

    sure: frozenset[Link]
    possible: frozenset[Link]  # the sure ones among them


def parse_gold(line: str) -> Gold:
    """Gold links of one line: `0-0` is sure, `1?2` possible. Raises AlignmentError at what is no link."""
    marks = line.split()
    sure = frozenset(parse_pharaoh(" ".join(mark for mark in marks if "?" not in mark)))
    possible = parse_pharaoh(" ".join(mark.replace("?", "-", 1) for mark in marks if "?" in mark))
    return Gold(sure, sure.union(possible))


def error_rate(found: Sequence[Collection[Link]], gold: Sequence[Gold]) -> float:
    """The alignment error rate of a corpus (Och & Ney 2003), from 0 to 1, the lower the better:
    1 - (|A and S| + |A and P|) / (|A| + |S|), with the found links A, the sure S and the possible P."""
    if len(found) != len(gold):
        raise AlignmentError(f"expected links for each of {len(gold)} pairs of sentences, got {len(found)}")
    right = wanted = 0
    for some, (sure, possible) in zip(found, gold, strict=True):
        links = set(some)
        right += len(links & sure) + len(links & possible)
        wanted += len(links) + len(sure)
    if not wanted:
        raise AlignmentError("no links at all, neither found nor sure: there is no error rate")
    return 1 - right / wanted


def parse_pharaoh(line: str) -> list[Link]:
    """The links of one line in Pharaoh's format, in its order. Raises AlignmentError at what is no link."""
    found = []
    for word in line.split():
        match = re.fullmatch(r"([0-9]+)-([0-9]+)", word)
        if match is None:
            raise AlignmentError(f"expected links such as 0-0 1-2 (source-target, from 0), got {word!r}")
        found.append(Link(int(match[1]), int(match[2])))
    return found
