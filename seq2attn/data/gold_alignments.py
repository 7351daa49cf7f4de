"""Gold alignments: turn links between words, as alignment tools write them, into links between pieces."""

from collections.abc import Collection

from seq2attn.alignment.word_alignment import Link
from seq2attn.text.vocabulary import Vocabulary
from seq2attn.text.words import SEPARATORS, words


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


def _pieces(text: str, vocabulary: Vocabulary) -> list[list[int]]:
    """Return the pieces of each word of the text.

    The vocabulary may split words differently (at any space, and within scripts that have none), but its
    words are the same text, so that counting characters finds the word here that they belong to.
    """
    own, tokens = words(text), vocabulary.split(text)
    word_at = [number for number, word in enumerate(own) for _ in word]
    means: list[set[int]] = []  # for each word of the vocabulary, the words here that it overlaps
    start = 0
    for size in (sum(letter not in SEPARATORS for letter in word) for word in tokens.words):
        inside = {*word_at[start : start + size]}
        # characters that normalisation deletes are in the word before
        means.append(inside if len(inside) == 1 else {n for n in inside if vocabulary.normalize(own[n])})
        start += size
    pieces: list[list[int]] = [[] for _ in own]
    for piece, word in enumerate(tokens.word_of):
        for number in means[word]:
            pieces[number].append(piece)
    return pieces
