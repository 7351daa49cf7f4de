"""Cuts a very long text before it is tokenized: tokens need some hundred times the memory of their text."""

import re
from itertools import islice

LONG_TOKEN = 64  # characters; longer tokens are rare enough to be cut where a text is far too long
_WORD = re.compile(r"\S+")


def shortened(text: str, tokens: int) -> str:
    """Return the beginning of a text that has its first `tokens` tokens: the whole text unless it is longer
    than so many long tokens, or has more words."""
    if len(text.rstrip()) <= tokens * LONG_TOKEN:
        return text
    last = next(islice(_WORD.finditer(text), tokens, None), None)  # one more word: the cut is seen
    return text[: tokens * LONG_TOKEN if last is None else min(last.end(), tokens * LONG_TOKEN)]
