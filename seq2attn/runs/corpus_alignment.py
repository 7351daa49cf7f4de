"""Links of a parallel corpus, in one direction or symmetrized from two."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee, zip_longest
from typing import NamedTuple

from seq2attn.alignment.aligned_pair import AlignedPair
from seq2attn.alignment.symmetrize import AGREED, agreed, reversed_links, symmetrized
from seq2attn.alignment.word_alignment import AlignmentError, Link

Pair = tuple[str, str]
# Aligns pairs in order, as `TextPredictor.align_pairs` does.
Aligner = Callable[[Iterator[Pair]], Iterator[AlignedPair]]

AGREEMENT = "agreement"  # links are made of the weights of both directions, not of their links


class LinkedPair(NamedTuple):
    """An aligned pair with the links that were made of its weights."""

    pair: AlignedPair
    links: list[Link]


def paired(sources: Iterable[str], targets: Iterable[str]) -> Iterator[Pair]:
    """Yield the pairs of two parallel texts. AlignmentError if one has more lines."""
    for number, (source, target) in enumerate(zip_longest(sources, targets), 1):
        if source is None or target is None:
            shorter = "source" if source is None else "target"
            raise AlignmentError(
                f"expected a line of the target for each of the source: the {shorter} has only "
                f"{number - 1:,} lines, and the other one more"
            )
        yield source, target


def linked(
    pairs: Iterable[Pair],
    aligners: Sequence[Aligner],
    symmetrization: str = "grow-diag",
    threshold: float | None = None,
) -> Iterator[LinkedPair]:
    """Yield the links of pairs, in order.

    aligners: one from source to target, or also one from target to source. That one gets the pairs turned
    around, and the links of both are symmetrized, or with AGREEMENT made of the weights of both.
    threshold: see `alignment.word_alignment.links`; for AGREEMENT see `alignment.symmetrize.agreed`.
    """
    if len(aligners) == 1:
        for aligned in aligners[0](iter(pairs)):
            yield LinkedPair(aligned, aligned.links(threshold))
        return
    forward, backward = aligners
    first, second = tee(pairs)
    turned = backward((target, source) for source, target in second)
    for aligned, opposite in zip(forward(first), turned, strict=True):
        yield LinkedPair(aligned, _of_both(aligned, opposite, symmetrization, threshold))


def _of_both(
    forward: AlignedPair, backward: AlignedPair, symmetrization: str, threshold: float | None
) -> list[Link]:
    """Return the links of a pair that was aligned in both directions."""
    if symmetrization == AGREEMENT:
        weights = forward.alignment.weights, backward.alignment.weights
        return agreed(*weights, AGREED if threshold is None else threshold)
    links = forward.links(threshold), reversed_links(backward.links(threshold))
    return symmetrized(*links, symmetrization)
