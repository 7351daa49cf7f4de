"""The batch plan, global and pure: the same (seed, epoch, lengths) give the same batches anywhere.

A plan is a list of batches, a batch a list of example indices. Every process makes the whole plan and takes
its own share of it, so that no two need to agree on anything, and training resumes from an index.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from seq2attn.data.window_plan import WindowPlan

Indices = NDArray[np.int64]

# Batches are cut from stretches of this many examples sorted by length: long enough that a batch holds
# sentences of one length, short enough that a batch is not the same one in every epoch.
STRETCH = 50_000


def plan(
    source_lengths: NDArray[np.int32],
    target_lengths: NDArray[np.int32],
    examples: Indices,
    batch_tokens: int,
    seed: Sequence[int],
) -> list[Indices]:
    """Return batches of examples of about one length, in random order, for one epoch.

    Lengths are without special tokens. A batch holds at most `batch_tokens` tokens on its longer side,
    padding and one special token included; an example longer than that makes a batch of its own.
    seed: what the order depends on, for example (recipe's seed, epoch).
    """
    generator = np.random.default_rng(list(seed))
    batches: list[Indices] = []
    for stretch in _stretches(examples, generator):
        order_within = by_length(source_lengths[stretch], target_lengths[stretch])
        batches += fill(stretch[order_within], source_lengths, target_lengths, batch_tokens)
    return [batches[number] for number in generator.permutation(len(batches))]


def plan_size(
    source_lengths: NDArray[np.int32],
    target_lengths: NDArray[np.int32],
    examples: Indices,
    batch_tokens: int,
    seed: Sequence[int],
) -> int:
    """Return the number of batches of the plan with the same arguments, in a fraction of its time."""
    total = 0
    for stretch in _stretches(examples, np.random.default_rng(list(seed))):
        longest = np.maximum(source_lengths[stretch], target_lengths[stretch])
        total += len(_begins(np.sort(longest), batch_tokens))
    return total


def _stretches(examples: Indices, generator: np.random.Generator) -> Iterator[Indices]:
    """Yield the examples in random order, STRETCH at a time."""
    order = generator.permutation(examples)
    for begin in range(0, len(order), STRETCH):
        yield order[begin : begin + STRETCH]


def by_length(source_lengths: NDArray[np.int32], target_lengths: NDArray[np.int32]) -> Indices:
    """Return the order in which neighbours need least padding: by the longer side, then the target's."""
    keys = source_lengths, target_lengths, np.maximum(source_lengths, target_lengths)
    return np.lexsort(keys).astype(np.int64)


def fill(
    order: Indices, source_lengths: NDArray[np.int32], target_lengths: NDArray[np.int32], batch_tokens: int
) -> list[Indices]:
    """Cut an order of examples into batches of at most `batch_tokens` tokens on the longer side."""
    begins = _begins(np.maximum(source_lengths[order], target_lengths[order]), batch_tokens)
    return [order[begin:end] for begin, end in pairwise([*begins, len(order)])]


def _begins(longest: NDArray[np.int32], batch_tokens: int) -> list[int]:
    """Return where each batch begins in an order of examples, from the lengths of their longer sides."""
    lengths = longest.astype(np.int64) + 1
    begins, begin = [], 0
    while begin < len(lengths):
        begins.append(begin)
        # No batch that begins here can have more examples than if all were as long as the first.
        most = max(1, batch_tokens // int(lengths[begin]))
        widths = np.maximum.accumulate(lengths[begin : begin + most])
        fits = widths * np.arange(1, len(widths) + 1) <= batch_tokens
        begin += max(1, int(np.count_nonzero(fits)))  # both factors rise: the first ones fit
    return begins


class Corpus(Protocol):
    """What a batch loader needs of tokenised examples (`data.Examples`)."""

    source_lengths: NDArray[np.int32]
    target_lengths: NDArray[np.int32]

    def source(self, index: int) -> NDArray[np.int32]:
        """Return the ids of a source sentence."""

    def target(self, index: int) -> NDArray[np.int32]:
        """Return the ids of a target sentence."""

    def ended(self, index: int) -> bool:
        """Return whether a target sentence is not truncated."""

    def source_text(self, index: int) -> str:
        """Return a source sentence."""

    def target_text(self, index: int) -> str:
        """Return a target sentence."""

    def epoch(self, epoch: int, seed: int) -> Indices:
        """Return the indices of an epoch's examples, in any order."""


@runtime_checkable
class Aligned(Protocol):
    """A corpus that may have gold alignments."""

    aligned: bool  # whether it has

    def links(self, index: int) -> NDArray[np.int32]:
        """Return (n, 2) links: positions of source and target ids that are translations of each other."""


@runtime_checkable
class InBlocks(Protocol):
    """A corpus that may be so large that its epochs are planned in windows."""

    def blocks(self, epoch: int, seed: int) -> Indices | None:
        """Return the blocks of an epoch (`window_plan.blocks`); None: it is not so large."""


class Batches:
    """Plans which examples are in a batch: epochs in random order, or every example once, by length."""

    def __init__(self, examples: Corpus, batch_tokens: int, seed: int = 1) -> None:
        self.examples, self.batch_tokens, self.seed = examples, batch_tokens, seed
        self._last: tuple[int, WindowPlan | None] | None = None  # an epoch, and its plan in windows

    def epoch(self, epoch: int) -> Sequence[Indices]:
        """Return the batches of an epoch: a pure function of the examples, the seed and the epoch."""
        if (windows := self._windows(epoch)) is not None:
            return windows
        lengths = self.examples.source_lengths, self.examples.target_lengths
        return plan(*lengths, self.examples.epoch(epoch, self.seed), self.batch_tokens, (self.seed, epoch))

    def epoch_size(self, epoch: int) -> int:
        """Return the number of batches of an epoch, without making them."""
        if (windows := self._windows(epoch)) is not None:
            return len(windows)
        lengths = self.examples.source_lengths, self.examples.target_lengths
        examples = self.examples.epoch(epoch, self.seed)
        return plan_size(*lengths, examples, self.batch_tokens, (self.seed, epoch))

    def _windows(self, epoch: int) -> WindowPlan | None:
        """Return the batches of an epoch of a large corpus; None if it is not large."""
        if not isinstance(self.examples, InBlocks):
            return None
        if self._last is None or self._last[0] != epoch:
            found = self.examples.blocks(epoch, self.seed)
            windows = None if found is None else WindowPlan(found, self._plan_of(epoch), self._size_of(epoch))
            self._last = epoch, windows
        return self._last[1]

    def _plan_of(self, epoch: int) -> Callable[[int, Indices], list[Indices]]:
        lengths = self.examples.source_lengths, self.examples.target_lengths
        return lambda window, examples: plan(
            *lengths, examples, self.batch_tokens, (self.seed, epoch, window)
        )

    def _size_of(self, epoch: int) -> Callable[[int, Indices], int]:
        lengths = self.examples.source_lengths, self.examples.target_lengths
        return lambda window, examples: plan_size(
            *lengths, examples, self.batch_tokens, (self.seed, epoch, window)
        )

    def evaluation_batches(self) -> list[Indices]:
        """Return batches that hold every example once, by length."""
        lengths = self.examples.source_lengths, self.examples.target_lengths
        return fill(by_length(*lengths), *lengths, self.batch_tokens)
