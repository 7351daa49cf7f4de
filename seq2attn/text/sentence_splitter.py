"""Where the sentences of a text end: at its line feeds; without any, at full stops."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from seq2attn.errors import Seq2attnError

# Marks that end a sentence, with what closes behind them. Chinese and Japanese have no space after theirs.
_END = re.compile(r"(?P<marks>[.!?…]+)[\"'”’»)\]]*\s+|[。！？]+[”’」』）]*\s*")
# What a full stop follows without ending a sentence: titles and the like, initials (J.), letters (e.g.).
_SHORT = re.compile(
    r"(?<![\w.])(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|fig|eq|al|cf|approx|inc|ltd|(?!i\Z)[^\W\d_]"
    r"|[^\W\d_](?:\.[^\W\d_])+)\Z",
    re.IGNORECASE,
)
_LONGEST = 12  # characters before a full stop that are looked at


def sentences(text: str) -> list[str]:
    """The sentences (or turns of a dialogue, or paragraphs) of a text, without the space round them.

    A text with line feeds is cut at them and nowhere else; blank lines do not count. Another is cut after
    . ! ? … and what closes behind them (quotes, brackets) if white space follows, and after 。！？ anywhere;
    but not after a common abbreviation, an initial, or letters with stops between (e.g., U.S.), and after an
    ellipsis only if no lower-case letter follows. No capital need follow a stop: texts may be lower-cased.
    """
    text = text.strip()
    if "\n" in text:
        return [line.strip() for line in text.split("\n") if line.strip()]
    found, begin = [], 0
    for end in _END.finditer(text):
        if not _goes_on(text, end):
            found.append(text[begin : end.end()].strip())
            begin = end.end()
    return [*found, text[begin:]] if begin < len(text) else found


def numbered(pieces: Sequence[str], text: str, normalize: Callable[[str], str]) -> list[int]:
    """For each piece of a text the number of the line that it stands in, from 0; without line feeds, 0.

    pieces: all of them, into which the text is cut in whatever way, with "▁" for spaces (SentencePiece);
    normalize: the text as they spell it (`Vocabulary.normalize`). Line feeds have to be spaces there, so that
    the words of a line tell its end; Seq2attnError if they are not.
    """
    if "\n" not in text:
        return [0] * len(pieces)
    if "\n" in normalize("a\nb"):
        raise Seq2attnError(
            "sentences end at line feeds, which this vocabulary takes for letters: expected one that reads "
            "them as spaces, as those that seq2attn learns"
        )
    lines = text.split("\n")
    ends = [*accumulate(len(_words(normalize(line), " ")) for line in lines)]  # words up to a line's end
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


def _goes_on(text: str, end: re.Match[str]) -> bool:
    """Whether marks that look like an end are none."""
    marks = end["marks"]
    if marks == ".":
        start = end.start()
        return _SHORT.search(text[max(0, start - _LONGEST) : start]) is not None
    return marks is not None and marks[-2:] in ("..", "…") and text[end.end() : end.end() + 1].islower()
