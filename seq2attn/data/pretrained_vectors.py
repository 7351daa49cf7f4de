"""Vectors of words that others have learnt, from text files as GloVe and fastText write them."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.data import lines
from seq2attn.errors import Seq2attnError
from seq2attn.text.word_vocabulary import UNKNOWN, WordVocabulary, split_words

_HEADER = re.compile(rb"\d+ \d+\s*")  # how many words and values; fastText begins with it


def known_words(path: Path) -> Iterator[str]:
    """The words that have vectors, in the file's order."""
    for _, word, _ in _rows(path):
        yield word


def coverage(path: Path, word_vocabulary: WordVocabulary, texts: Iterable[str]) -> str:
    """How many of the words of texts, as `joined` makes them, have vectors: `3 of 2,567 words (0.1 %)`."""
    words = {word_vocabulary.key(word) for text in texts for word in split_words(text)}
    having = len(words.intersection(map(word_vocabulary.key, known_words(path))))
    return f"{having:,} of {len(words):,} words ({100 * having / max(1, len(words)):.1f} %)"


def word_vectors(path: Path, word_vocabulary: WordVocabulary, width: int | None = None) -> Tensor:
    """A vector (lexicon.size, D) for each word; nan where the file has none.

    A word's own spelling comes before others that are looked up alike (Paris before paris); of these the
    first. Seq2attnError at a line that is no vector of the width of the first, or if that is not `width`.
    """
    table: Tensor | None = None
    exact = set[int]()
    for number, word, values in _rows(path):
        if table is None:
            found = len(values.split())
            if found != (width or found):
                raise Seq2attnError(
                    f"{path}: its vectors have {found} values, and words {width}: set model.embedding.size "
                    f"to {found}, or name a file with vectors of {width}"
                )
            table = torch.full((word_vocabulary.size, found), float("nan"))
        place = word_vocabulary.encode([word])[0]
        if place == [UNKNOWN] or len(place) != 1 or place[0] in exact:
            continue
        if not table[place[0]].isnan().all() and word_vocabulary.key(word) != word:
            continue
        vector = _numbers(values, f"{path}:{number}", table.shape[1])
        table[place[0]] = torch.from_numpy(vector)
        exact |= {place[0]} if word_vocabulary.key(word) == word else set()
    if table is None:
        raise Seq2attnError(f"{path}: expected a word and its vector a line, and there is no line")
    return table


def _rows(path: Path) -> Iterator[tuple[int, str, bytes]]:
    for number, line in enumerate(lines(path), 1):
        if number == 1 and _HEADER.fullmatch(line):
            continue
        word, _, values = line.rstrip().partition(b" ")
        if values:
            yield number, word.decode("utf-8", errors="replace"), values


def _numbers(values: bytes, where: str, width: int) -> NDArray[np.float32]:
    try:
        vector = np.array(values.split(), dtype=np.float32)
    except ValueError as error:
        raise Seq2attnError(f"{where}: expected {width} numbers after the word: {error}") from error
    if len(vector) != width:
        raise Seq2attnError(f"{where}: expected {width} numbers after the word, as before, got {len(vector)}")
    return vector
