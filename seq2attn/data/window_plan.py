"""The batch plan of a large corpus: one window of it at a time, so that an epoch starts at once.

An epoch is a random order of blocks of neighbouring examples; WINDOW blocks at a time are a window, whose
examples are planned as those of a small corpus are (`batch_plan.plan`). So memory is that of one window, what
is read from the disk lies together, and the order is a pure function of (seed, epoch) as well.
"""

from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

LARGE = 1 << 24  # examples of an epoch, from which on it is planned in windows
BLOCK = 8192  # neighbouring examples
WINDOW = 64  # blocks


def blocks(sizes: Sequence[int], weights: Sequence[float], seed: Sequence[int]) -> Indices:
    """Return the blocks (N, 2) of an epoch, from the first example of a block to that after its last, in
    random order. A corpus is in it `weight` times: for the rest of a weight, a random part of it is.
    """
    found, begin = list[Indices](), 0
    for corpus, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        begins = begin + np.arange(0, size, BLOCK)
        own = np.stack([begins, np.minimum(begins + BLOCK, begin + size)], 1)  # (N, 2)
        whole, rest = divmod(weight, 1)
        generator = np.random.default_rng([*seed, corpus])
        found += [own] * int(whole) + [_part(own, round(rest * size), generator)]
        begin += size
    return np.random.default_rng([*seed]).permutation(np.concatenate(found)).astype(np.int64)


def _part(own: Indices, count: int, generator: np.random.Generator) -> Indices:
    """Return blocks with so many of a corpus's examples, each of which is as likely to be among them.

    They are a stretch of a circle of all blocks in random order, which is cut at a random example, so that a
    corpus of less than a block has its share, too.
    """
    if not count:
        return own[:0]
    circle = np.tile(generator.permutation(own), (2, 1))
    sizes = circle[:, 1] - circle[:, 0]
    ends = np.cumsum(sizes)  # on the circle
    first = generator.integers(ends[-1] // 2)
    before, after = np.maximum(first - (ends - sizes), 0), np.maximum(ends - (first + count), 0)
    cut = np.stack([circle[:, 0] + before, circle[:, 1] - after], 1)
    return cut[cut[:, 0] < cut[:, 1]]


class WindowPlan(Sequence[Indices]):
    """The batches of an epoch; those of one window at a time are in memory.

    Args:
        blocks: (N, 2), see `blocks`.
        plan: returns the batches of a window, given its number and its examples.
        count: returns how many they are, in a fraction of the time.
    """

    def __init__(
        self,
        blocks: Indices,
        plan: Callable[[int, Indices], Sequence[Indices]],
        count: Callable[[int, Indices], int],
    ) -> None:
        self._blocks, self._plan, self._count = blocks, plan, count
        self._ends: list[int] = []  # of the windows so far, in batches
        self._open: tuple[int, Sequence[Indices]] = (-1, [])  # the number of a window, and its batches

    @property
    def num_windows(self) -> int:
        """The number of windows."""
        return -(-len(self._blocks) // WINDOW)

    def __len__(self) -> int:
        """The number of batches. All windows are counted for it, once."""
        return self._end(self.num_windows - 1)

    @overload
    def __getitem__(self, index: int) -> Indices: ...
    @overload
    def __getitem__(self, index: slice) -> list[Indices]: ...
    def __getitem__(self, index: int | slice) -> Indices | list[Indices]:
        """Return batches by position. Only the windows up to these are counted; negative positions and steps
        count all."""
        if isinstance(index, int):
            position = index if index >= 0 else len(self) + index
            if position < 0 or (batch := self._batch(position)) is None:
                raise IndexError(f"batch {index} of {len(self)}")
            return batch
        begin, stop = index.start or 0, index.stop
        if index.step is not None or stop is None or min(begin, stop) < 0:
            return [self[position] for position in range(*index.indices(len(self)))]
        found = (self._batch(position) for position in range(begin, stop))
        return [batch for batch in found if batch is not None]

    def examples(self, window: int) -> Indices:
        """Return the examples of a window."""
        ranges = self._blocks[window * WINDOW : (window + 1) * WINDOW].tolist()
        return np.concatenate([np.arange(begin, end) for begin, end in ranges])

    def _batch(self, position: int) -> Indices | None:
        """Return the batch at a position; None: there are fewer."""
        number, batches = self._open
        begin = self._end(number - 1)
        if not begin <= position < begin + len(batches):
            number = next((n for n in range(self.num_windows) if self._end(n) > position), -1)
            if number < 0:
                return None
            self._open = number, self._plan(number, self.examples(number))
            begin, batches = self._end(number - 1), self._open[1]
        return batches[position - begin]

    def _end(self, window: int) -> int:
        """Return the number of batches of the windows up to this one."""
        while len(self._ends) <= window:
            number = len(self._ends)
            self._ends.append(self._end(number - 1) + self._count(number, self.examples(number)))
        return self._ends[window] if window >= 0 else 0
