"""Split texts into sentences: at line feeds, or, in a text without any, at full stops."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from seq2attn.errors import Seq2attnError

# Sentence-final marks, with closing quotes and brackets. Chinese and Japanese have no space after theirs.
_END = re.compile(r"(?P<marks>[.!?…]+)[\"'”’»)\]]*\s+|[。！？]+[”’」』）]*\s*")
# Before a full stop that ends no sentence: titles and other abbreviations, initials (J.), letters (e.g.).
_SHORT = re.compile(
    r"(?<![\w.])(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|fig|eq|al|cf|approx|inc|ltd|(?!i\Z)[^\W\d_]"
    r"|[^\W\d_](?:\.[^\W\d_])+)\Z",
    re.IGNORECASE,
)
_LONGEST = 12  # characters before a full stop that are searched for an abbreviation


def sentences(text: str) -> list[str]:
    """Return the sentences (or turns of a dialogue, or paragraphs) of a text, stripped of white space.

    A text with line feeds is split at them and nowhere else; blank lines do not count. Other texts are split
    after . ! ? … and closing quotes or brackets if white space follows, and after 。！？ everywhere. They are
    not split after a common abbreviation, an initial, or letters with full stops between (e.g., U.S.), and
    after an ellipsis only if no lower-case letter follows. No capital letter need follow, as texts may be in
    lower case.
    """
    text = text.strip()
    if "\n" in text:
        return [line.strip() for line in text.split("\n") if line.strip()]
    split, begin = [], 0
    for end in _END.finditer(text):
        if not _within_sentence(text, end):
            split.append(text[begin : end.end()].strip())
            begin = end.end()
    return [*split, text[begin:]] if begin < len(text) else split


def in_sentences(text: str) -> list[tuple[str, str]]:
    """Return the sentences of a text, each with the white space after it: together they are the text. The
    first one is empty if there is white space before it."""
    parts, end = [["", ""]], 0
    for line in text.split("\n"):
        for sentence in sentences(line):
            begin = text.index(sentence, end)
            parts[-1][1] = text[end:begin]
            parts.append([sentence, ""])
            end = begin + len(sentence)
    parts[-1][1] = text[end:]
    return [(sentence, after) for sentence, after in parts if sentence or after] or [("", "")]


def numbered(pieces: Sequence[str], text: str, normalize: Callable[[str], str]) -> list[int]:
    """Return for each piece of a text the number of its line, from 0.

    pieces: all pieces of the text, in any segmentation, with "▁" for spaces (SentencePiece).
    normalize: returns a text as the pieces spell it (`Vocabulary.normalize`). Line feeds must become spaces
    there, so that counting words finds the end of a line; Seq2attnError if they do not.
    """
    if "\n" not in text:
        return [0] * len(pieces)
    if "\n" in normalize("a\nb"):
        raise Seq2attnError(
            "sentences end at line feeds, which this vocabulary takes for letters: expected a vocabulary "
            "that turns them into spaces, as those that seq2attn trains"
        )
    lines = text.split("\n")
    # the number of words up to the end of each line
    ends = [*accumulate(len(_words(normalize(line), " ")) for line in lines)]
    numbers, word, between = [], -1, True
    for piece in pieces:
        visible = piece.lstrip("▁")
        between |= visible != piece
        first = word + between  # the word of its first visible character; if there is none, the next
        numbers.append(min(bisect_right(ends, first), len(lines) - 1))
        if visible:
            word, between = first + len(_words(visible, "▁")) - 1, visible.endswith("▁")
    return numbers


def _words(text: str, space: str) -> list[str]:
    return [word for word in text.split(space) if word]


def _within_sentence(text: str, end: re.Match[str]) -> bool:
    """Whether sentence-final marks do not end the sentence here."""
    marks = end["marks"]
    if marks == ".":
        start = end.start()
        return _SHORT.search(text[max(0, start - _LONGEST) : start]) is not None
    return marks is not None and marks[-2:] in ("..", "…") and text[end.end() : end.end() + 1].islower()
