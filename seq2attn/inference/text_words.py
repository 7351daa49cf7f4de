"""Weights between the pieces of two texts made weights between their words, as alignment files count them."""

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
