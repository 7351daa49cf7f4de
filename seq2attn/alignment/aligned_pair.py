"""Parallel texts with the weights between their words, as alignment files count these."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from seq2attn.alignment.word_alignment import AlignmentError, Link, WordAlignment, links
from seq2attn.text.words import words


class AlignedPair(NamedTuple):
    """A source and a target text with weights between their words, which ASCII white space separates."""

    source: str
    target: str
    alignment: WordAlignment  # (Tw, Sw), zeros for a word that no model reads
    log_probability: float | None = None  # of the target given the source, in nats
    others: tuple[WordAlignment, ...] = ()  # by further heads of a model

    def links(self, threshold: float | None = None) -> list[Link]:
        """Return links between words. For the threshold see `alignment.word_alignment.links`."""
        return links(self.alignment, threshold)

    def untagged(self, source: str) -> "AlignedPair":
        """Return the pair without the tag that its source begins with: it counts as the end of the source."""
        if not source.strip():
            return self
        weights, end = self.alignment
        return self._replace(source=source, alignment=WordAlignment(weights[:, 1:], end + weights[:, 0]))

    def to_json(self, found: Sequence[Link]) -> dict[str, Any]:
        """Return a value for json.dumps, with these links."""
        entry: dict[str, Any] = {"source": self.source, "target": self.target}
        if self.log_probability is not None:
            entry["log_probability"] = round(self.log_probability, 6)
        return entry | {"links": [[link.source, link.target] for link in found]}


def unaligned(source: str, target: str) -> AlignedPair:
    """Return a pair without any weight."""
    zeros = torch.zeros(len(words(target)), len(words(source)), device="cpu")
    return AlignedPair(source, target, WordAlignment(zeros, zeros.new_zeros(len(zeros))))


def all_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return pairs of a source and a target as a list. AlignmentError for anything else."""
    listed: list[tuple[str, str]] = []
    for pair in pairs:
        texts = [] if isinstance(pair, str) else list(pair)
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise AlignmentError(f"expected pairs of a source and a target (str), got {pair!r:.60}")
        listed.append((texts[0], texts[1]))
    return listed
