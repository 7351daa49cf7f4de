"""Summaries that need no model: what any model has to beat (Nallapati et al. 2017; Gliwa et al. 2019).

Each takes a source and gives some of its sentences (or turns of a dialogue) as they are, a line each.
"""

import functools
from collections.abc import Callable

from seq2attn.errors import Seq2attnError
from seq2attn.text.sentence_splitter import sentences


def lead(source: str, n: int = 3) -> str:
    """The first n sentences of a source; all, if it has no more."""
    _check(n)
    return "\n".join(sentences(source)[:n])


def longest(source: str, n: int = 3) -> str:
    """The n sentences of a source with the most words, in their order; of two as long, the earlier."""
    _check(n)
    found = sentences(source)
    by_length = sorted(range(len(found)), key=lambda number: -len(found[number].split()))
    return "\n".join(found[number] for number in sorted(by_length[:n]))


BASELINES: dict[str, Callable[[str], str]] = {
    "lead-3": functools.partial(lead, n=3),
    "longest-3": functools.partial(longest, n=3),
}


def _check(n: int) -> None:
    if n < 1:
        raise Seq2attnError(f"a baseline keeps at least 1 sentence, got {n}")
