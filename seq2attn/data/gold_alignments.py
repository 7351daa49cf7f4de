"""Gold alignments: links between words, as alignment tools write them, become links between pieces."""

import re
from collections.abc import Collection

from seq2attn.alignment.word_alignment import Link
from seq2attn.text.vocabulary import Vocabulary

# Only ASCII white space parts words, as in the tools that write such links (fast_align, GIZA++).
_WORD = re.compile(r"[^ \t\n\v\f\r]+")


def words(text: str) -> list[str]:
    """The words of a sentence that links count, from 0."""
    return _WORD.findall(text)


def beyond(links: Collection[Link], source: str, target: str) -> str | None:
    """What is wrong with links that lead to a word that a pair does not have; None if all do."""
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
    """Links between pieces: of each piece of a word with each piece of a word linked to it. Sorted.

    A piece that stands for several words has the links of all. A word that normalisation deletes has no piece
    and keeps no link.
    """
    source, target = map(_pieces, texts, vocabularies)
    found = {
        Link(first, second)
        for link in links
        for first in source[link.source]
        for second in target[link.target]
    }
    return sorted(found)


def _pieces(text: str, vocabulary: Vocabulary) -> list[list[int]]:
    """For each word of the text, the pieces that stand for it.

    The words of a vocabulary may be cut elsewhere (at any space, and within scripts that have none), but are
    the same text: which word of ours they are in is told by counting visible characters.
    """
    own, tokens = words(text), vocabulary.split(text)
    word_at = [number for number, word in enumerate(own) for letter in word if not letter.isspace()]
    means: list[set[int]] = []  # for each word of the vocabulary, which of ours are in it
    place = 0
    for size in (sum(not letter.isspace() for letter in word) for word in tokens.words):
        inside = {*word_at[place : place + size]}
        # what normalisation deletes lies in the word before
        means.append(inside if len(inside) == 1 else {n for n in inside if vocabulary.normalize(own[n])})
        place += size
    pieces: list[list[int]] = [[] for _ in own]
    for piece, word in enumerate(tokens.word_of):
        for number in means[word]:
            pieces[number].append(piece)
    return pieces
