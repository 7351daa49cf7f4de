"""Batches of words with their characters and labels."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from seq2attn.data.batch_plan import Batches, Corpus, Indices
from seq2attn.data.sources import Row, pad
from seq2attn.layers.word_embedding import Words
from seq2attn.text.word_vocabulary import PADDING, Labels, WordVocabulary, split_words


class LabelledBatch(NamedTuple):
    """Sentences of words, and the labels of the words or of the sentences."""

    words: Words
    labels: Tensor  # (B, S), long, of words, arbitrary at padding; or (B,), of sentences
    num_targets: int  # the number of words or sentences that the loss is the mean of
    shape: str  # the batch's shape in words, for out-of-memory messages

    def to(self, device: torch.device) -> "LabelledBatch":
        """Move to a device."""
        labels = self.labels.to(device, non_blocking=True)
        return self._replace(words=self.words.to(device), labels=labels)


class LabelledBatchLoader(Batches):
    """Loads labelled words as batches. Labels with a scheme are of words; without, of sentences."""

    def __init__(
        self,
        examples: Corpus,
        word_vocabulary: WordVocabulary,
        labels: Labels,
        batch_tokens: int,
        seed: int = 1,
    ) -> None:
        super().__init__(examples, batch_tokens, seed)
        self.word_vocabulary, self.labels = word_vocabulary, labels

    def batch(self, indices: Indices, epoch: int | None = None) -> LabelledBatch:
        """Return the sentences with these indices."""
        rows = indices.tolist()
        ids = [self.examples.source(row) for row in rows]
        words = collate_words(
            [split_words(self.examples.source_text(row)) for row in rows], ids, self.word_vocabulary
        )
        labels, _ = pad([self.examples.target(row) for row in rows], 0)
        shape = f"sentences by words {tuple(words.ids.shape)}"
        if self.labels.scheme is None:
            return LabelledBatch(words, labels[:, 0], len(rows), shape)
        return LabelledBatch(words, labels, int(words.mask.sum()), shape)


def collate_words(
    sentences: Sequence[Sequence[str]], ids: Sequence[Row], word_vocabulary: WordVocabulary
) -> Words:
    """Return words with their ids in the vocabulary and, once for each distinct word, their characters."""
    distinct = sorted(
        {word for sentence in sentences for word in sentence}, key=lambda word: (len(word), word)
    )
    row_of = {word: row for row, word in enumerate(distinct)}
    rows = [[row_of[word] for word in sentence] for sentence in sentences]
    blocks = groupby(distinct or [""], lambda word: max(2, (len(word) - 1).bit_length()))
    characters = [pad([word_vocabulary.spell(word) for word in block], PADDING)[0] for _, block in blocks]
    padded, mask = pad(ids, PADDING)
    return Words(padded, mask, pad(rows, 0)[0], tuple(characters))
