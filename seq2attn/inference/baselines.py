"""Baseline summaries without a model (Nallapati et al. 2017; Gliwa et al. 2019).

Each function selects sentences of a source (or turns of a dialogue) and returns them, one per line.
"""

import functools
from collections.abc import Callable

from seq2attn.errors import Seq2attnError
from seq2attn.text.sentence_splitter import sentences


def lead(source: str, n: int = 3) -> str:
    """Return the first n sentences of a source, or all if there are fewer."""
    _require_positive(n)
    return "\n".join(sentences(source)[:n])


def longest(source: str, n: int = 3) -> str:
    """Return the n sentences with the most words, in the order of the source; of ties, the earlier ones."""
    _require_positive(n)
    split = sentences(source)
    by_length = sorted(range(len(split)), key=lambda index: -len(split[index].split()))
    return "\n".join(split[index] for index in sorted(by_length[:n]))


BASELINES: dict[str, Callable[[str], str]] = {
    "lead-3": functools.partial(lead, n=3),
    "longest-3": functools.partial(longest, n=3),
}


def _require_positive(n: int) -> None:
    if n < 1:
        raise Seq2attnError(f"a baseline keeps at least 1 sentence, got {n}")
