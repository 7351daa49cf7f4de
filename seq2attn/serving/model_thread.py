"""The thread in which a model computes what waits for it."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from seq2attn.serving.waiting import Taken, WaitingLines, Work

_MEMORY = 0.5  # how much of the measured speed is kept with each batch


class Computed(NamedTuple):
    """A batch that was computed."""

    lines: int
    length: int  # that of all its lines
    padded: int  # its size: lines times the longest one
    seconds: float
    failed: int  # lines without a result


class ModelThread(threading.Thread):
    """Computes the lines that wait for a model, batch by batch, and never waits itself: what is there when it
    is free is the next batch.

    Args:
        name: of the model.
        waiting: the lines.
        seconds: how long a batch may take, as far as the speed of the last ones tells.
        observe: called with each batch, in this thread.
    """

    def __init__(
        self, name: str, waiting: WaitingLines, seconds: float, observe: Callable[[Computed], None]
    ) -> None:
        super().__init__(name=f"model {name}", daemon=True)
        self.waiting, self.seconds, self.observe = waiting, seconds, observe
        self.speed: dict[type[Work], float] = {}  # size of a batch by seconds
        self.weight_per_second = 0.0  # 0: nothing was measured yet

    def run(self) -> None:
        """Compute until the queue is closed and empty."""
        while (taken := self.waiting.take(self._most)) is not None:
            self._compute(*taken)

    def _most(self, work: Work) -> float:
        """Return the size of a batch that takes as long as it may."""
        speed = self.speed.get(type(work))
        return work.budget if speed is None else min(work.budget, speed * self.seconds)

    def _compute(self, work: Work, batch: list[Taken]) -> None:
        begin = time.monotonic()
        failed = self._answer(work, batch)
        seconds = max(time.monotonic() - begin, 1e-6)
        lines = [taken.line for taken in batch]
        padded = len(lines) * (max(line.length for line in lines) + 1)
        kind = type(work)
        self.speed[kind] = _mean(self.speed.get(kind, 0.0), padded / seconds)
        self.weight_per_second = _mean(self.weight_per_second, sum(line.weight for line in lines) / seconds)
        self.observe(Computed(len(lines), sum(line.length for line in lines), padded, seconds, failed))

    def _answer(self, work: Work, batch: Sequence[Taken]) -> int:
        """Set the results of a batch; return how many lines failed. If a batch fails, its lines are computed
        one by one, so that a bad one does no harm to the others."""
        results: Sequence[Any]
        try:
            results = work.compute([taken.line for taken in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            if len(batch) > 1:
                return sum(self._answer(work, [taken]) for taken in batch)
            batch[0].result.set_exception(error)
            return 1
        for taken, result in zip(batch, results, strict=True):
            taken.result.set_result(result)
        return 0


def _mean(before: float, now: float) -> float:
    """Return the running mean; now, if there was nothing before."""
    return _MEMORY * before + (1 - _MEMORY) * now if before else now
