"""Numbers of pieces made numbers of words: weights between two texts, as alignment files count them,
probabilities, and whole translations."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from seq2attn.alignment.aligned_pair import unaligned
from seq2attn.alignment.word_alignment import WordAlignment, by_words, shifted
from seq2attn.data.gold_alignments import words_of_pieces
from seq2attn.data.sources import PairTokenizer
from seq2attn.inference.forced import ForcedDecoding
from seq2attn.inference.results import Translation
from seq2attn.inference.search import Hypothesis
from seq2attn.text.vocabulary import Tokens


def between_texts(
    weights: Float[Tensor, "Tp Sp1"], source: str, target: str, tokenizer: PairTokenizer
) -> WordAlignment:
    """Return the weights between the words of two texts, from those between the pieces that a model reads of
    them; the last column is the source's </s>."""
    columns = [*tokenizer.truncate.cut(0, words_of_pieces(source, tokenizer.source))][: weights.shape[1] - 1]
    rows = words_of_pieces(target, tokenizer.target)
    column_words, row_words = sorted(set(columns)), sorted(set(rows))
    summed = by_words(
        weights, [row_words.index(row) for row in rows], [column_words.index(c) for c in columns], True
    )
    whole = unaligned(source, target).alignment
    index = torch.tensor(row_words, dtype=torch.long, device="cpu")
    whole.end_of_sentence[index] = summed.end_of_sentence
    whole.weights[index[:, None], torch.tensor(column_words, dtype=torch.long, device="cpu")] = summed.weights
    return whole


def word_probabilities(of_tokens: Tensor | None, word_of: Sequence[int]) -> Tensor | None:
    """Return the probability of each word (Tw,), the product over its pieces, from the log-probabilities of
    all pieces and </s> (Tp + 1,). None if there are none."""
    if of_tokens is None:
        return None
    words = torch.tensor(word_of, dtype=torch.long, device="cpu")
    return of_tokens.new_zeros(max(word_of, default=-1) + 1).index_add_(0, words, of_tokens[:-1]).exp()


def translation_of(
    tokens: tuple[Tokens, Tokens],
    text: str,
    hypothesis: Hypothesis,
    forced: ForcedDecoding | None,
    shift: int,
) -> Translation:
    """Return the result that a hypothesis is, between words.

    tokens: of source and target; text: of the target; forced: the forced decoding of the hypothesis;
    shift: of its rows (`AlignmentHead.shift`).
    """
    (source, target), truncated = tokens, hypothesis.truncated
    score, log_probability = hypothesis.score, hypothesis.log_probability
    result = Translation(source, target, text, score, log_probability, truncated=truncated)
    if forced is None or forced.weights is None:
        return result
    weights = shifted(forced.weights, shift)  # (Tp, Sp + 1)
    words = by_words(weights, target.word_of, source.word_of, source_eos=True)
    copied = None
    if forced.copied is not None:  # of a word: the mean over its pieces
        column = forced.copied[:-1, None]  # (Tp, 1)
        copied = by_words(column, target.word_of, [0], source_eos=False).weights.squeeze(1)
    return replace(
        result,
        alignment=words.weights,
        end_of_sentence=words.end_of_sentence,
        weights=weights,
        copied=copied,
        attention=forced.attention,
        probabilities=word_probabilities(forced.of_tokens, target.word_of),
    )
