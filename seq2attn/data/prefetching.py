"""Prepare the next batches in threads, beside training."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from seq2attn.data.batch_plan import Indices
from seq2attn.data.batches import AnyBatch, AnyBatchLoader
from seq2attn.runtime.distributed import ALONE, Group


class PrefetchingLoader:
    """Gives the batches of a loader; in an epoch of training the next ones are prepared in threads meanwhile.

    The loader's `batch` must be a pure function of the indices and the epoch: then the batches are the same
    with any number of threads, in any order, and from any batch on.

    Args:
        loader: makes the batches.
        workers: the number of threads, and of batches that are prepared ahead.
        group: the processes that share the batches of an update; only this one's are prepared.
        accumulate: the number of batches of an update.
    """

    def __init__(
        self, loader: AnyBatchLoader, workers: int, group: Group = ALONE, accumulate: int = 1
    ) -> None:
        self._loader, self._workers = loader, workers
        self._group, self._accumulate = group, accumulate
        self._pool = ThreadPoolExecutor(workers, "batches")
        self._plan: tuple[int | None, Sequence[Indices]] = (None, [])  # of the last epoch that was asked for
        self._positions: dict[bytes, int] = {}  # of the batches in the plan
        self._pending: dict[int, Future[AnyBatch]] = {}  # by position

    def epoch(self, epoch: int) -> Sequence[Indices]:
        """Return the batches of an epoch, as indices of examples."""
        plan = self._loader.epoch(epoch)
        self._drop(keep=[])
        self._plan = epoch, plan
        self._positions = {indices.tobytes(): position for position, indices in enumerate(plan)}
        return plan

    def epoch_size(self, epoch: int) -> int:
        """Return the number of batches of an epoch."""
        return self._loader.epoch_size(epoch)

    def evaluation_batches(self) -> list[Indices]:
        """Return batches that hold every example once."""
        return self._loader.evaluation_batches()

    def batch(self, indices: Indices, epoch: int | None = None) -> AnyBatch:
        """Return the examples with these indices; let threads prepare the next batches of the epoch."""
        planned, plan = self._plan
        position = self._positions.get(indices.tobytes()) if epoch is not None and epoch == planned else None
        if position is None:
            return self._loader.batch(indices, epoch)
        future = self._pending.pop(position, None)
        # Of each update a process has a batch, if it has any at all: `workers` updates are enough to look at.
        following = range(position + 1, min(position + 1 + self._workers * self._accumulate, len(plan)))
        ahead = [*islice(filter(self._is_own, following), self._workers)]
        self._drop(keep=ahead)
        for later in ahead:
            if later not in self._pending:
                self._pending[later] = self._pool.submit(self._loader.batch, plan[later], epoch)
        return self._loader.batch(indices, epoch) if future is None else future.result()

    def _is_own(self, position: int) -> bool:
        """Return whether this process computes the batch at a position, as `Group.share` does."""
        return self._group.owns(position % self._accumulate)

    def _drop(self, keep: Sequence[int]) -> None:
        """Drop the batches at other positions, which nobody is going to ask for."""
        for position in [position for position in self._pending if position not in keep]:
            self._pending.pop(position).cancel()
