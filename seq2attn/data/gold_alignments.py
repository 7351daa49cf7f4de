"""Gold alignments: turn links between words, as alignment tools write them, into links between pieces."""

from collections.abc import Collection

from seq2attn.alignment.word_alignment import Link
from seq2attn.text.vocabulary import Tokens, Vocabulary
from seq2attn.text.words import SEPARATORS, words


def between_pieces(
    links: Collection[Link], texts: tuple[str, str], vocabularies: tuple[Vocabulary, Vocabulary]
) -> list[Link]:
    """Return sorted links between pieces: each piece of a word is linked to each piece of the words linked to
    it.

    A piece of more than one word has the links of all of them. A word that normalisation deletes has no
    pieces and loses its links.
    """
    source, target = map(_pieces, texts, vocabularies)
    linked = {
        Link(first, second)
        for link in links
        for first in source[link.source]
        for second in target[link.target]
    }
    return sorted(linked)


def words_of_pieces(text: str, vocabulary: Vocabulary) -> list[int]:
    """Return the index of the word of a text of each of its pieces; of a piece of several words, the first.

    Words are those of the text (`text.words.words`), as alignment files count them, and not those of the
    vocabulary. A word that normalisation deletes has no piece.
    """
    tokens, overlapped = _overlapped(text, vocabulary)
    return [min(overlapped[word]) for word in tokens.word_of]


def _pieces(text: str, vocabulary: Vocabulary) -> list[list[int]]:
    """Return the pieces of each word of the text."""
    tokens, overlapped = _overlapped(text, vocabulary)
    pieces: list[list[int]] = [[] for _ in words(text)]
    for piece, word in enumerate(tokens.word_of):
        for number in overlapped[word]:
            pieces[number].append(piece)
    return pieces


def _overlapped(text: str, vocabulary: Vocabulary) -> tuple[Tokens, list[set[int]]]:
    """Return the pieces of the text and, for each word of the vocabulary, the words of the text that it
    overlaps.

    The vocabulary may split words differently (at any space, and within scripts that have none), but its
    words are the same text, so that counting characters finds the word here that they belong to.
    """
    own, tokens = words(text), vocabulary.split(text)
    word_at = [number for number, word in enumerate(own) for _ in word]
    overlapped: list[set[int]] = []
    start = 0
    for size in (sum(letter not in SEPARATORS for letter in word) for word in tokens.words):
        inside = {*word_at[start : start + size]}
        # characters that normalisation deletes are in the word before
        overlapped.append(inside if len(inside) == 1 else {n for n in inside if vocabulary.normalize(own[n])})
        start += size
    return tokens, overlapped
