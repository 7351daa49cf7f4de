"""What a word is: the characters that separate words, and lists of texts that are not a text by mistake."""

import re
from collections.abc import Iterable

from seq2attn.errors import Seq2attnError

#: ASCII white space, as in alignment tools and tokenized files. Other spaces (U+00A0, U+3000) are part of a
#: word.
SEPARATORS = " \t\n\v\f\r"
WORD = re.compile(f"[^{SEPARATORS}]+")
#: Scripts written without spaces: Thai, Lao, Tibetan, Myanmar, Khmer, Tai, Han, kana.
SPACELESS = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029"
    "\u3031-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\uff66-\uff9f"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
_LINE_END = re.compile("\r?\n")


def words(text: str) -> list[str]:
    """Split a text into words."""
    return WORD.findall(text)


def word_starts(pieces: Iterable[str], eos: int) -> list[bool]:
    """Return which pieces, by their ids, begin a word or, as </s>, end the one before."""
    return [piece.startswith("▁") or number == eos for number, piece in enumerate(pieces)]


def as_lines(texts: Iterable[str]) -> str:
    """Return sentences, or turns of a dialogue, as the lines of a text; a line end within one of them becomes
    a space."""
    return "\n".join(_LINE_END.sub(" ", text) for text in texts)


def refuse_text(value: object, error: type[Seq2attnError], expected: str = "a list of texts") -> None:
    """Raise the error if a value is a text, which would be read as a list of its letters."""
    if isinstance(value, str | bytes):
        raise error(f"expected {expected}, got {value[:40]!r}: put it in a list")
