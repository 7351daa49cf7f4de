"""Word alignments from attention weights between pieces.

Tp and Sp are the numbers of pieces, Tw and Sw the numbers of words of target and source. All tensors are
float32 on the CPU.
"""

import math
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seq2attn.errors import Seq2attnError
from seq2attn.text.words import words


class AlignmentError(Seq2attnError):
    """Weights, words or links that do not fit together."""


class WordAlignment(NamedTuple):
    """Attention weights of each target word over source words. A row and its end_of_sentence have one
    total."""

    weights: Tensor  # (Tw, Sw)
    end_of_sentence: Tensor  # (Tw,)  weights of the source's </s>; zeros if it has none


class Link(NamedTuple):
    """A link between two words, both counted from 0."""

    source: int
    target: int

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"


def shifted(weights: Float[Tensor, "steps S"], shift: int) -> Float[Tensor, "Tp S"]:
    """Return the weights of each token, from those of all decoding steps (step t predicts token t, the last
    </s>).

    With shift 0 the weights of a step belong to the token that it predicts: token t has row t. With shift 1
    they belong to the token that it has just read: token t has row t + 1. Raises AlignmentError for another
    shift, or if there is no row.
    """
    if shift not in (0, 1):
        raise AlignmentError(
            f"alignment_shift is 0 (the query predicts the token) or 1 (it has read the token), got {shift}"
        )
    if not len(weights):
        raise AlignmentError("expected a row of weights for every token and one for </s>, got no rows")
    return weights[shift : shift + len(weights) - 1]


def by_words(
    weights: Float[Tensor, "Tp S"], target: Sequence[int], source: Sequence[int], source_eos: bool
) -> WordAlignment:
    """Return weights between words: sum the columns of a source word, average the rows of a target word.

    `target` and `source` have the index of the word of each piece (Tokens.word_of). With source_eos the last
    column is the source's </s>, which is returned separately. So a row and its end_of_sentence sum to the
    mean of the row sums of its pieces (1 for a softmax). Raises AlignmentError for sizes that do not fit.
    """
    expected = (len(target), len(source) + source_eos)
    if weights.shape != expected:
        eos = " + 1 for </s>" if source_eos else ""
        raise AlignmentError(
            f"expected weights of {len(target)} target by {len(source)} source pieces{eos}, got "
            f"{tuple(weights.shape)}; give the rows that `shifted` returns, and the pieces of the model's "
            "input"
        )
    Tw, Sw = _count_words(target), _count_words(source)
    # </s> is one more word
    columns = torch.tensor([*source, Sw] if source_eos else source, dtype=torch.long, device="cpu")
    rows = torch.tensor(target, dtype=torch.long, device="cpu")
    pieces = weights.detach().to("cpu", torch.float32)
    summed = pieces.new_zeros(len(rows), Sw + 1).index_add_(1, columns, pieces)  # (Tp, Sw + 1)
    total = pieces.new_zeros(Tw, Sw + 1).index_add_(0, rows, summed)  # (Tw, Sw + 1)
    averaged = total / rows.bincount(minlength=Tw)[:, None]
    return WordAlignment(averaged[:, :Sw], averaged[:, Sw])


def _count_words(word_of: Sequence[int]) -> int:
    """Return the number of words. Raises AlignmentError for a word without a piece, whose mean would be
    0/0."""
    count = max(word_of, default=-1) + 1
    if set(word_of) != set(range(count)):
        raise AlignmentError(f"expected pieces of the words 0, 1, 2, ... without a gap, got {list(word_of)}")
    return count


def entropies(alignment: WordAlignment) -> Float[Tensor, " Tw"]:
    """Return the entropy of the weights of each target word, in bits, </s> of the source included: 0 if one
    word has all, log2 n of n equal weights. Rows count as shares of their sum; negative weights as 0."""
    weights = torch.cat([alignment.weights, alignment.end_of_sentence[:, None]], 1).clamp(min=0)
    total = weights.sum(1, keepdim=True)
    shares = weights / total.masked_fill(total == 0, 1)
    found: Tensor = torch.special.entr(shares).sum(1) / math.log(2)
    return found


def links(alignment: WordAlignment, threshold: float | None = None) -> list[Link]:
    """Return links between words, in the order of the target words.

    Without a threshold each target word is linked to the source word of largest weight; to none if the weight
    of </s> is larger, or if all weights are 0. With a threshold, all pairs of words with a larger weight are
    linked; with 0, all pairs whose weight is not 0.
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
    """Return links in Pharaoh format, `source-target source-target ...` from 0, as fast_align writes it."""
    return " ".join(map(str, links(alignment, threshold)))


class Gold(NamedTuple):
    """Manual alignment of a pair of sentences."""

    sure: frozenset[Link]
    possible: frozenset[Link]  # including the sure links


def parse_gold(line: str) -> Gold:
    """Parse a line of gold links: `0-0` is sure, `1?2` possible. Raises AlignmentError for anything else."""
    marks = line.split()
    sure = frozenset(parse_pharaoh(" ".join(mark for mark in marks if "?" not in mark)))
    possible = parse_pharaoh(" ".join(mark.replace("?", "-", 1) for mark in marks if "?" in mark))
    return Gold(sure, sure.union(possible))


def beyond(links: Collection[Link], source: str, target: str) -> str | None:
    """Return a message about a link to a word that the pair does not have; None if there is none."""
    counts = Link(len(words(source)), len(words(target)))
    for link in links:
        if link.source >= counts.source or link.target >= counts.target:
            return (
                f"the link {link} leads beyond the sentence: words count from 0, the source has "
                f"{counts.source} and the target {counts.target}"
            )
    return None


def error_rate(predicted: Sequence[Collection[Link]], gold: Sequence[Gold]) -> float:
    """Return the alignment error rate of a corpus (Och & Ney 2003), from 0 to 1, the lower the better:
    1 - (|A and S| + |A and P|) / (|A| + |S|), with predicted links A, sure links S and possible links P."""
    if len(predicted) != len(gold):
        raise AlignmentError(
            f"expected links for each of {len(gold)} pairs of sentences, got {len(predicted)}"
        )
    matches = total = 0
    for pair, (sure, possible) in zip(predicted, gold, strict=True):
        links = set(pair)
        matches += len(links & sure) + len(links & possible)
        total += len(links) + len(sure)
    if not total:
        raise AlignmentError("no links at all, neither predicted nor sure: there is no error rate")
    return 1 - matches / total


def parse_pharaoh(line: str) -> list[Link]:
    """Parse a line of links in Pharaoh format. Raises AlignmentError for anything else."""
    links = []
    for word in line.split():
        match = re.fullmatch(r"([0-9]+)-([0-9]+)", word)
        if match is None:
            raise AlignmentError(f"expected links such as 0-0 1-2 (source-target, from 0), got {word!r}")
        links.append(Link(int(match[1]), int(match[2])))
    return links
