"""How fast several processes train together, and which of them is the slowest."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean

from seq2attn.runtime.distributed import Group


class Pace:
    """Measures the updates from one line of the log to the next.

    A process computes its own batches, and then waits for the others, to sum the gradients. So only the time
    of its batches tells that it is slow.
    """

    def __init__(self) -> None:
        self.last: dict[str, float] = {}  # what the last line has said
        self._begin()

    def _begin(self) -> None:
        self._updates = self._tokens = 0
        self._seconds = self._own_seconds = 0.0

    @contextmanager
    def own(self) -> Iterator[None]:
        """Measure what this process does for a batch of its own."""
        began = time.monotonic()
        yield
        self._own_seconds += time.monotonic() - began

    def add(self, tokens: int, seconds: float) -> None:
        """Count an update of all processes: its target tokens, and how long it has taken."""
        self._updates += 1
        self._tokens += tokens
        self._seconds += seconds

    def line(self, group: Group, sharded: bool = False) -> dict[str, float]:
        """Return what a line of the log says of the updates since the last one; nothing for one process.

        `tokens_per_second` is that of all processes together; `slowest_process` the one whose batches take
        longest: `slowest_seconds` of an update, beside `mean_seconds` of the processes that have batches. A
        sharded model makes them wait for each other within a batch, so that none can be told from the others.
        All processes must call this together.
        """
        if group.size == 1:
            return {}
        shares: list[float] = group.all(self._own_seconds / self._updates)
        line: dict[str, float] = {"tokens_per_second": self._tokens / self._seconds}
        if not sharded:
            line["slowest_process"] = shares.index(max(shares))
            line["slowest_seconds"] = max(shares)
            line["mean_seconds"] = fmean([share for share in shares if share] or shares)
        self._begin()
        self.last = line
        return line
