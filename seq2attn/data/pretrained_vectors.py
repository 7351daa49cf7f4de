"""Pre-trained word vectors, from text files in the format of GloVe and fastText."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2attn.data import lines
from seq2attn.errors import Seq2attnError
from seq2attn.text.word_vocabulary import UNKNOWN, WordVocabulary, join_words, split_words

FIRST = 1000  # lines that show the number of values
_DECIMAL = re.compile(rb"(?:^| )[-+]?\d*\.\d+(?: |$)")
_HEADER = re.compile(rb"\d+ \d+\s*")  # numbers of words and values: the first line of fastText


def known_words(path: Path) -> Iterator[str]:
    """Yield the words that have vectors, in the order of the file."""
    for _, word, _ in _rows(path):
        yield word


def coverage(path: Path, word_vocabulary: WordVocabulary, texts: Iterable[str]) -> str:
    """Count the words of texts (of `join_words`) that have vectors, as text: `3 of 2,567 words (0.1 %)`."""
    words = {word_vocabulary.key(word) for text in texts for word in split_words(text)}
    covered = len(words.intersection(map(word_vocabulary.key, known_words(path))))
    return f"{covered:,} of {len(words):,} words ({100 * covered / max(1, len(words)):.1f} %)"


def word_vectors(path: Path, word_vocabulary: WordVocabulary, width: int | None = None) -> Tensor:
    """Return the vectors of the vocabulary's words (word_vocabulary.size, D); nan where the file has none.

    If the file has words that are looked up alike (Paris, paris), the spelling of the vocabulary is
    preferred, then the first one. Raises Seq2attnError at a vector that is not as long as the first, or if
    that is not of `width` values.
    """
    table: Tensor | None = None
    exact = set[int]()
    for number, word, values in _rows(path):
        if table is None:
            size = len(values.split())
            if size != (width or size):
                raise Seq2attnError(
                    f"{path}: its vectors have {size} values, and word embeddings {width}: set "
                    f"model.embedding.size to {size}, or name a file with vectors of {width} values"
                )
            table = torch.full((word_vocabulary.size, size), float("nan"), device="cpu")
        ids = word_vocabulary.encode([word])[0]
        if ids == [UNKNOWN] or len(ids) != 1 or ids[0] in exact:
            continue
        if not table[ids[0]].isnan().all() and word_vocabulary.key(word) != word:
            continue
        vector = _numbers(values, f"{path}:{number}", table.shape[1])
        table[ids[0]] = torch.from_numpy(vector)
        exact |= {ids[0]} if word_vocabulary.key(word) == word else set()
    if table is None:
        raise Seq2attnError(f"{path}: expected lines with a word and its vector, and there are none")
    return table


def _rows(path: Path) -> Iterator[tuple[int, str, bytes]]:
    """Yield the number, word and values of each line. Words may have spaces, which become no-break spaces as
    in texts of `join_words`; the number of values is that of most of the first lines."""
    stream = enumerate(lines(path), 1)
    first = [
        (number, line) for number, line in islice(stream, FIRST) if number > 1 or not _HEADER.fullmatch(line)
    ]
    usual = Counter(line.rstrip().count(b" ") for _, line in first).most_common(1)
    width = usual[0][0] if usual else 0
    for number, line in chain(first, stream):
        cells = line.rstrip().split(b" ")
        extra = len(cells) - width  # cells of the word
        if extra > 1 and _DECIMAL.search(b" ".join(cells[1:extra])):
            extra = 1  # a value too many
        word, values = b" ".join(cells[: max(1, extra)]), b" ".join(cells[max(1, extra) :])
        if values:
            yield number, join_words([word.decode("utf-8", errors="replace")]), values


def _numbers(values: bytes, where: str, width: int) -> NDArray[np.float32]:
    try:
        vector = np.array(values.split(), dtype=np.float32)
    except ValueError as error:
        raise Seq2attnError(f"{where}: expected {width} numbers after the word: {error}") from error
    if len(vector) != width:
        raise Seq2attnError(f"{where}: expected {width} numbers after the word, as before, got {len(vector)}")
    return vector
