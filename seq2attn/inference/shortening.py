"""Cuts a very long text before it is tokenized: tokens need some hundred times the memory of their text."""

import re

LONG_TOKEN = 64  # characters; longer tokens are rare enough to be cut where a text is far too long
_WORD = re.compile(r"\S+")


def shortened(text: str, tokens: int) -> str:
    """Return the beginning of a text that has its first `tokens` tokens: the whole text unless it is longer
    than so many long tokens, white space not counted, or has more words."""
    left = tokens * LONG_TOKEN
    if len(text) <= left:
        return text
    for count, word in enumerate(_WORD.finditer(text)):
        if count == tokens or word.end() - word.start() > left:  # one more word: the cut is seen
            return text[: min(word.end(), word.start() + left)]
        left -= word.end() - word.start()
    return text
