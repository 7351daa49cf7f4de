"""The lines that wait for a model, and which of them are computed together.

What waits are lines and not requests: a batch has lines of several requests, and a long request takes turns
with the others. Nothing here knows what a line is, or computes anything.
"""

import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from seq2attn.errors import Seq2attnError

_LONGER = 4  # classes of lengths by which a line may be longer than the first one of its batch


class QueueFullError(Seq2attnError):
    """More lines would wait than are allowed to."""


class StoppedError(Seq2attnError):
    """The model stopped before it came to a line."""


class Line(NamedTuple):
    """A line: a text, a pair of texts, an image, or what else a model computes a result for."""

    item: Any
    length: int  # what the model reads of it: pieces, words or pixels
    number: int = 0  # its place in its request, from 0
    weight: int = 1  # what it counts for in the queue
    cut: bool = False  # whether the model reads its beginning only


class Work(ABC):
    """What is computed for lines. Lines with equal works are computed together, so a work is hashable."""

    @property
    @abstractmethod
    def budget(self) -> int:
        """The size of a batch, at most: its number of lines times the length of its longest one."""

    @abstractmethod
    def lines(self, items: Sequence[Any]) -> list[Line]:
        """Return the items of a request as lines. Seq2attnError for an item that cannot be computed."""

    @abstractmethod
    def compute(self, lines: Sequence[Line]) -> Sequence[Any]:
        """Return the result of each line, which does not depend on the others."""


class Taken(NamedTuple):
    """A line that is computed now, and where its result goes."""

    line: Line
    result: "Future[Any]"


class Ticket:
    """The lines of a request, with a future for the result of each."""

    def __init__(self, work: Work, lines: Sequence[Line]) -> None:
        self.work, self.lines = work, lines
        self.results: list[Future[Any]] = [Future() for _ in lines]
        self.begun = False  # whether a line of it was taken
        self._waiting: dict[int, deque[int]] = {}  # the indices of its waiting lines, by their width
        for index, line in enumerate(lines):
            self._waiting.setdefault(width(line.length), deque()).append(index)

    @property
    def weight(self) -> int:
        """The weight of the lines that wait."""
        return sum(self.lines[index].weight for queue in self._waiting.values() for index in queue)

    @property
    def waits(self) -> bool:
        """Whether a line waits."""
        return bool(self._waiting)

    def first(self) -> Line:
        """Return the first line that waits."""
        return self.lines[min(queue[0] for queue in self._waiting.values())]

    def next(self, width: int) -> Line | None:
        """Return the next line of a width; None if none waits."""
        queue = self._waiting.get(width)
        return None if queue is None else self.lines[queue[0]]

    def take(self, width: int) -> Taken:
        """Take the next line of a width, which waits no longer."""
        queue = self._waiting[width]
        index = queue.popleft()
        if not queue:
            del self._waiting[width]
        self.begun = True
        self.results[index].set_running_or_notify_cancel()
        return Taken(self.lines[index], self.results[index])

    def give_up(self, error: Exception) -> None:
        """Let the lines that wait fail."""
        for index in (index for queue in self._waiting.values() for index in queue):
            if self.results[index].set_running_or_notify_cancel():
                self.results[index].set_exception(error)
        self._waiting.clear()


def width(length: int) -> int:
    """Return the class of a length: within a class, lengths differ by less than the square root of 2."""
    return math.floor(2 * math.log2(length + 1))


class WaitingLines:
    """The lines that wait for one model.

    A batch begins with the first line of the request whose turn it is, and is filled with lines of the same
    work that are about as long, then with shorter ones, then with longer ones, up to four times as long: a
    line of each request in turn. The request then goes behind those that have come in the meantime. So one
    that comes beside a long one waits for the batch that is computed then, and no line waits for ever.

    limit: the largest weight of all lines that wait; a request that comes to an empty queue may have more.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.weight = limit, 0
        self._tickets: dict[Ticket, None] = {}  # those with lines that wait, in the order of their turns
        self._last: Ticket | None = None  # whose turn it was
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return len(self._tickets)

    def add(self, work: Work, lines: Sequence[Line]) -> Ticket:
        """Let the lines of a request wait. QueueFullError if they are too many."""
        ticket = Ticket(work, lines)
        weight = ticket.weight
        with self._changed:
            if self._closed:
                raise StoppedError("the server stops: ask again later")
            if self.weight and self.weight + weight > self.limit:
                raise QueueFullError(f"{self.weight:,} lines wait already: ask again later")
            if lines:
                self._tickets[ticket] = None
                self.weight += weight
                self._changed.notify()
        return ticket

    def discard(self, ticket: Ticket) -> None:
        """Let the lines of a request wait no longer: nobody asks for them any more."""
        with self._changed:
            if self._tickets.pop(ticket, self) is None:
                self.weight -= ticket.weight
        for result in ticket.results:
            result.cancel()

    def withdraw(self, ticket: Ticket) -> bool:
        """Discard a request if none of its lines was taken yet. Return whether it was discarded."""
        with self._changed:
            if ticket.begun or self._tickets.pop(ticket, self) is not None:
                return False
            self.weight -= ticket.weight
        return True

    def take(self, budget: Callable[[Work], float]) -> tuple[Work, list[Taken]] | None:
        """Return lines to be computed together, and their work; wait for them if there are none.

        budget: returns the size of a batch for a work. None after `close`, when no line waits.
        """
        with self._changed:
            if self._last is not None and self._last in self._tickets:
                del self._tickets[self._last]
                self._tickets[self._last] = None
            while not self._tickets:
                if self._closed:
                    return None
                self._changed.wait()
            ticket = self._last = next(iter(self._tickets))
            return ticket.work, self._filled(ticket, budget(ticket.work))

    def close(self, abandon: bool = False) -> None:
        """Take no more lines; with `abandon`, also give up those that wait."""
        with self._changed:
            self._closed = True
            given_up = [*self._tickets] if abandon else []
            for ticket in given_up:
                self._tickets.pop(ticket)
                self.weight -= ticket.weight
            self._changed.notify_all()
        for ticket in given_up:
            ticket.give_up(StoppedError("the server stopped before this was computed"))

    def _filled(self, ticket: Ticket, budget: float) -> list[Taken]:
        """Take a batch that begins with the first line of a ticket."""
        first = ticket.first()
        longest, batch = first.length + 1, list[Taken]()
        order = [
            ticket,
            *(other for other in self._tickets if other is not ticket and other.work == ticket.work),
        ]
        middle = width(first.length)
        for kind in (*range(middle, -1, -1), *range(middle + 1, middle + 1 + _LONGER)):
            turns = deque(one for one in order if one.next(kind) is not None)
            while turns:
                line = turns[0].next(kind)
                if line is None:
                    turns.popleft()
                    continue
                wanted = max(longest, line.length + 1)
                if batch and wanted * (len(batch) + 1) > budget:
                    return self._taken(order, batch)
                longest = wanted
                batch.append(turns[0].take(kind))
                turns.rotate(-1)
        return self._taken(order, batch)

    def _taken(self, tickets: Sequence[Ticket], batch: list[Taken]) -> list[Taken]:
        """Forget the lines of a batch, and the tickets that have no more."""
        self.weight -= sum(taken.line.weight for taken in batch)
        for ticket in tickets:
            if not ticket.waits:
                self._tickets.pop(ticket, None)
        return batch
