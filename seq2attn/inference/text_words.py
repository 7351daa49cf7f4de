"""Numbers of pieces made numbers of words: weights between two texts, as alignment files count them, and
probabilities."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from seq2attn.alignment.aligned_pair import unaligned
from seq2attn.alignment.word_alignment import WordAlignment, by_words
from seq2attn.data.gold_alignments import words_of_pieces
from seq2attn.data.sources import PairTokenizer


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
