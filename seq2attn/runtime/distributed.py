"""Processes that train one model together: torchrun starts them, `torch.distributed` carries what they say.

Every process holds the whole model and makes the same plan. Of the batches of an update each computes its
share, the gradients are summed, and every process then makes the same update. Values are exchanged as JSON
and as plain tensors, never as pickled objects.
"""

import contextlib
import io
import json
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from seq2attn.errors import Seq2attnError
from seq2attn.runtime.process import OWN_FAULT, end_with_parent

T = TypeVar("T")

BUCKET = 2**25  # bytes of gradients that are summed at a time
POLL = 0.2  # seconds between two looks at what the first process has to say
TIMEOUT = 600.0  # seconds for which a process waits for the others, if SEQ2ATTN_TIMEOUT does not say
NOTICED = 2.0  # seconds within which all processes notice that one of them does not answer


class GroupError(Seq2attnError):
    """Another process of the group has ended, or does not answer."""


class Group:
    """The processes of a training. This is the group of one process: its methods return what they get."""

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the run's folder and the terminal."""
        return self.rank == 0

    def share(self, items: Iterable[T]) -> list[tuple[int, T]]:
        """Return the items that are this process's, each with its index among all."""
        return [(index, item) for index, item in enumerate(items) if self.owns(index)]

    def owns(self, index: int) -> bool:
        """Return whether the item with this index is in this process's share."""
        return index % self.size == self.rank

    def all(self, value: Any) -> list[Any]:
        """Return the value of every process, in their order. Values are JSON."""
        return [value]

    def merged(self, values: dict[int, T]) -> list[T]:
        """Return the values of all processes in the order of their indices, which `share` has given."""
        return [value for _, value in sorted(values.items())]

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what a function returns in the first process, where alone it is called: plain values and
        tensors. GroupError in the others if it raises."""
        return make()

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the values that they have in the first process."""

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their sums over all processes. None counts as zeros; it stays None if it
        is so in all of them."""

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes."""

    def announce(self, value: Any) -> None:
        """Let the other processes have a value, JSON, for which they wait with `announced`. Values come in
        their order."""

    def announced(self) -> Any:
        """Return the value that the first process announces next, however long it takes. GroupError if a
        process fails meanwhile."""
        raise GroupError("there is one process only, which announces to others")

    def meet(self) -> None:
        """Wait until all processes are here, however long it takes. GroupError if one fails meanwhile."""


ALONE = Group()


class Processes(Group):
    """The processes of `torch.distributed`'s default group."""

    def __init__(self, store: Store) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._store = PrefixStore("seq2attn", store)
        self._announcements = self._meetings = 0

    def all(self, value: Any) -> list[Any]:
        """See the base class."""
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with self._answered():
            sizes = [torch.zeros(1, dtype=torch.int64, device="cpu") for _ in range(self.size)]
            dist.all_gather(sizes, torch.tensor([len(content)], device="cpu"))
            longest = max(int(size) for size in sizes)
            padded = torch.cat([content, content.new_zeros(longest - len(content))])
            contents = [torch.zeros_like(padded) for _ in range(self.size)]
            dist.all_gather(contents, padded)
        return [
            json.loads(bytes(content[: int(size)].tolist()))
            for content, size in zip(contents, sizes, strict=True)
        ]

    def merged(self, values: dict[int, T]) -> list[T]:
        """See the base class."""
        pairs = [pair for rows in self.all(list(values.items())) for pair in rows]
        return [value for _, value in sorted(pairs, key=lambda pair: int(pair[0]))]

    def from_first(self, make: Callable[[], T]) -> T:
        """See the base class."""
        if not self.first:
            value: T = torch.load(io.BytesIO(self._content(b"")), map_location="cpu", weights_only=True)
            if isinstance(value, dict) and value.keys() == {_FAILED}:
                raise _failed(0, value[_FAILED])
            return value
        try:
            made = make()
        except Exception as error:
            self._content(_saved({_FAILED: str(error)}))
            raise
        self._content(_saved(made))
        return made

    def _content(self, content: bytes) -> bytes:
        """Return the content that the first process gives."""
        with self._answered():
            size = torch.tensor([len(content)], device="cpu")
            dist.broadcast(size, 0)
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if self.first else None
            data = torch.empty(int(size), dtype=torch.uint8, device="cpu") if data is None else data
            dist.broadcast(data, 0)
        return data.numpy().tobytes()

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """See the base class."""
        with torch.no_grad(), self._answered():
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """See the base class."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        there = [0.0 if parameter.grad is None else 1.0 for parameter in trained]
        there = [sum(flags) for flags in zip(*self.all(there), strict=True)]
        used = [parameter for parameter, flag in zip(trained, there, strict=True) if flag]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.add([parameter.grad for parameter in used if parameter.grad is not None])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """See the base class."""
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            with self._answered():
                dist.all_reduce(flat)
            for tensor, total in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def announce(self, value: Any) -> None:
        """See the base class."""
        with self._answered():
            self._store.set(self._next_announcement(), json.dumps(value))

    def announced(self) -> Any:
        """See the base class."""
        key = self._next_announcement()
        with self._answered():
            self._wait(lambda: self._store.check([key]))
            return json.loads(self._store.get(key))

    def _next_announcement(self) -> str:
        self._announcements += 1
        return f"announced/{self._announcements}"

    def meet(self) -> None:
        """See the base class."""
        self._meetings += 1
        key = f"met/{self._meetings}"
        with self._answered():
            self._store.add(key, 1)
            self._wait(lambda: self._store.add(key, 0) == self.size)

    def fail(self, error: BaseException) -> None:
        """Let the processes that wait without a limit know that this one has failed."""
        told = json.dumps([self.rank, str(error) or type(error).__name__])
        with contextlib.suppress(RuntimeError):  # nobody may be left who keeps the store
            self._store.compare_set("failed", "", told)  # the first failure is the cause of others

    def _wait(self, there: Callable[[], bool]) -> None:
        """Wait for as long as it takes. GroupError if a process fails meanwhile."""
        while not there():
            if self._store.check(["failed"]):
                raise _failed(*json.loads(self._store.get("failed")))
            time.sleep(POLL)

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """Re-raise the errors of a process that does not answer. Nothing may be saved after one: the other
        processes may be at another update."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise GroupError(
                f"process {self.rank} of {self.size}: {self._silent()} ended or does not answer ({reason}). "
                "Training can be resumed from what was saved last"
            ) from error

    def _silent(self) -> str:
        """Name the processes that have not noticed a failure, and so are its cause.

        The store is asked in a thread: behind a cut cable it may not answer either.
        """
        missing: set[int] = {*range(self.size)} - {self.rank}

        def ask() -> None:
            with contextlib.suppress(RuntimeError):  # the store may be gone
                self._store.set(f"noticed/{self.rank}", "")
                end = time.monotonic() + NOTICED
                while missing and time.monotonic() < end:
                    missing.difference_update([r for r in missing if self._store.check([f"noticed/{r}"])])
                    time.sleep(POLL)
                asked.set()

        asked = threading.Event()
        threading.Thread(target=ask, daemon=True).start()
        if not asked.wait(2 * NOTICED) or not missing:
            return "another one has"
        names = " and ".join(map(str, sorted(missing)))
        return f"process {names} has" if len(missing) == 1 else f"one of the processes {names} has"


_FAILED = "the first process failed"


def _failed(rank: int, reason: str) -> GroupError:
    """Return the error for a process that has failed, and says so itself."""
    OWN_FAULT.clear()
    return GroupError(f"process {rank}: {reason}")


def _saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors of one type on one device, with about BUCKET bytes, in their order."""
    bucket, size = list[Tensor](), 0
    for tensor in tensors:
        if bucket and (size > BUCKET or _kind(bucket[0]) != _kind(tensor)):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel() * tensor.element_size()
    if bucket:
        yield bucket


def _kind(tensor: Tensor) -> tuple[torch.dtype, torch.device]:
    return tensor.dtype, tensor.device


@contextlib.contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that torchrun has started, until the end of the context; a process that it has not
    started is alone.

    In an exchange a process waits for the others for as many seconds as SEQ2ATTN_TIMEOUT says.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "MASTER_ADDR" not in os.environ:
        yield ALONE
        return
    end_with_parent()
    timeout = _timeout()
    OWN_FAULT.set()
    group = Processes(_met(timeout))
    try:
        yield group
    except GroupError:
        raise  # another has failed, and behind a cut cable the store would keep this one waiting
    except BaseException as error:
        group.fail(error)
        raise
    finally:
        dist.destroy_process_group()


def _met(timeout: timedelta) -> Store:
    """Meet the other processes; return the store that they have in common from this start on."""
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        store = PrefixStore(_name_of_start(store, rank, size, timeout), store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        raise GroupError(
            f"cannot meet the other processes of torchrun ({str(error).strip().splitlines()[0][:200]}): are "
            "all of them started, with one MASTER_ADDR and MASTER_PORT, which this machine can reach?"
        ) from error
    return store


def _timeout() -> timedelta:
    said = os.environ.get("SEQ2ATTN_TIMEOUT") or TIMEOUT
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e6:
        raise Seq2attnError(f"SEQ2ATTN_TIMEOUT: expected a number of seconds above 0, got {said}")
    return timedelta(seconds=seconds)


def _name_of_start(store: Store, rank: int, size: int, timeout: timedelta) -> str:
    """Return a name that the processes that start together have in common, and no others.

    torchrun keeps its store when it starts processes again, with the addresses of those before. Processes
    that find these wait for somebody who is not there any more. So the first process makes up a name, and
    tells it to those that ask for it now, by a question that nobody has asked before.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"question/{rank}", own)
        store.wait([f"answer/{own}"], timeout)
        name: str = store.get(f"answer/{own}").decode()
        store.set(f"{name}/{rank}", "here")
        return name
    end, missing = time.monotonic() + timeout.total_seconds(), {*range(1, size)}
    while missing and time.monotonic() < end:
        for other in [*missing]:
            if store.check([f"question/{other}"]):  # if of a process before, nobody reads the answer
                store.set(f"answer/{store.get(f'question/{other}').decode()}", own)
            missing -= {other} if store.check([f"{own}/{other}"]) else set()
        time.sleep(POLL / 10)
    if missing:
        raise GroupError(
            f"waited {timeout} for the processes {sorted(missing)} of {size}, which did not start"
        )
    return own


def require_equal(group: Group, what: str, value: str) -> None:
    """GroupError, which names the processes, unless all have the same value."""
    values: Sequence[str] = group.all(value)
    if others := [rank for rank, other in enumerate(values) if other != values[0]]:
        raise GroupError(
            f"expected the same {what} in all processes; process 0 has {values[0]}, process {others[0]} has "
            f"{values[others[0]]}"
        )
