"""The queue of lines: what is computed together, whose turn it is, and what happens to requests that leave."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from seq2attn.serving.model_thread import Computed, ModelThread
from seq2attn.serving.waiting import Line, QueueFullError, StoppedError, Ticket, WaitingLines, Work, width


@dataclass(frozen=True)
class Doubling(Work):
    """Doubles numbers, which are their own lengths."""

    kind: str = "one"
    size: int = 12

    @property
    def budget(self) -> int:
        return self.size

    def lines(self, items: Sequence[int]) -> list[Line]:
        return [Line(item, item, number) for number, item in enumerate(items)]

    def compute(self, lines: Sequence[Line]) -> list[int]:
        if any(line.item == 13 for line in lines):
            raise ValueError("13")
        return [2 * line.item for line in lines]


def add(queue: WaitingLines, *items: int, work: Work = Doubling()) -> Ticket:
    return queue.add(work, work.lines(items))


def take(queue: WaitingLines) -> list[int]:
    """The items of the next batch."""
    taken = queue.take(lambda work: work.budget)
    assert taken is not None
    return [one.line.item for one in taken[1]]


def test_a_batch_holds_its_budget_and_a_longer_line_comes_alone() -> None:
    queue = WaitingLines(100)
    add(queue, 2, 2, 2, 2, 2, 30)
    assert (
        [take(queue) for _ in range(3)] == [[2, 2, 2, 2], [2], [30]] and queue.weight == 0 and not len(queue)
    )


def test_a_batch_is_filled_with_shorter_lines_then_with_longer_ones_but_not_with_very_long_ones() -> None:
    queue = WaitingLines(100)
    work = Doubling(size=1000)
    add(queue, 3, 40, 9, work=work)
    add(queue, 1, 5, 2, work=work)
    assert width(9) > width(5) > width(3) > width(2) > width(1)
    assert take(queue) == [3, 2, 1, 5, 9]  # the 40 would make the others wait for it
    assert take(queue) == [40]


def test_a_long_queue_gives_batches_of_one_length() -> None:
    queue = WaitingLines(10_000)
    add(queue, *[9, 2, 30] * 100, work=Doubling(size=120))
    assert [set(take(queue)) for _ in range(6)] == [
        {9},
        {2},
        {30},
        {30},
        {30},
        {30},
    ]  # by the first that waits


def test_lines_of_different_works_are_not_computed_together() -> None:
    queue = WaitingLines(100)
    add(queue, 1, 1)
    add(queue, 1, work=Doubling("other"))
    add(queue, 1)
    assert take(queue) == [1, 1, 1] and take(queue) == [1]


def test_requests_take_turns_within_a_batch() -> None:
    queue = WaitingLines(100)
    tickets = [add(queue, 2, 2, 2, 2), add(queue, 2, 2), add(queue, 2)]
    assert take(queue) == [2, 2, 2, 2]
    assert [sum(result.running() for result in ticket.results) for ticket in tickets] == [2, 1, 1]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_small_request_waits_for_one_batch_beside_a_large_one(length: int) -> None:
    """It comes while a batch of the large one is computed, and is in the next one, however long its line is."""
    queue = WaitingLines(100_000)
    large = add(queue, *[1, 2, 5] * 3000)
    for _ in range(3):
        take(queue)
        small = add(queue, length, work=Doubling("other"))
        assert take(queue) == [length] and small.begun and not small.waits
    assert large.waits


def test_a_large_request_is_not_starved_by_small_ones() -> None:
    queue = WaitingLines(100_000)
    large = add(queue, 5, 5, 5, 5, 5)
    other = Doubling("other")
    for _ in range(30):  # before each batch another small request comes, of another work
        add(queue, 1, work=other)
        take(queue)
    assert not large.waits


def test_a_full_queue_refuses_but_an_empty_one_takes_any_request() -> None:
    queue = WaitingLines(3)
    add(queue, 1, 1, 1, 1, 1)
    with pytest.raises(QueueFullError, match="5 lines wait already"):
        add(queue, 1)
    take(queue)
    add(queue, 1)


def test_lines_of_a_client_that_has_left_are_not_computed() -> None:
    queue = WaitingLines(100)
    gone, here = add(queue, 2, 2, 2, 2, 2, 2), add(queue, 1)
    taken = queue.take(lambda work: 6)
    queue.discard(gone)
    queue.discard(gone)
    assert queue.weight == 1 and take(queue) == [1] and here.begun
    assert [result.cancelled() for result in gone.results] == [False, False, True, True, True, True]
    assert taken is not None and len(taken[1]) == 2


def test_only_what_was_not_begun_can_be_withdrawn() -> None:
    queue = WaitingLines(100)
    begun, not_begun = add(queue, 5, 5, 5), add(queue, 1, work=Doubling("other"))
    take(queue)
    assert not queue.withdraw(begun) and queue.withdraw(not_begun) and not queue.withdraw(not_begun)
    assert queue.weight == 1


def test_a_closed_queue_gives_out_what_it_has_and_then_ends() -> None:
    queue = WaitingLines(100)
    ticket = add(queue, 1, 1)
    queue.close()
    with pytest.raises(StoppedError):
        add(queue, 1)
    assert take(queue) == [1, 1] and queue.take(lambda work: 1) is None and not ticket.waits


def test_what_is_given_up_fails_and_what_is_computed_does_not() -> None:
    queue = WaitingLines(100)
    ticket = add(queue, 5, 5, 5)
    queue.take(lambda work: 1)
    queue.close(abandon=True)
    assert [type(result.exception()) for result in ticket.results[1:]] == [StoppedError, StoppedError]
    assert ticket.results[0].running() and queue.take(lambda work: 1) is None and queue.weight == 0


def run_thread(queue: WaitingLines) -> list[Computed]:
    """Compute all that waits; return the batches."""
    batches: list[Computed] = []
    thread = ModelThread("twice", queue, 1e9, batches.append)
    queue.close()
    thread.run()
    return batches


def test_a_thread_answers_every_line_and_a_bad_one_harms_no_other() -> None:
    queue = WaitingLines(1000)
    work = Doubling(size=100)
    tickets = [add(queue, 1, 2, 3, work=work), add(queue, 3, 13, 12, work=work)]
    batches = run_thread(queue)
    assert [result.result() for result in tickets[0].results] == [2, 4, 6]
    good, bad, after = tickets[1].results
    assert (good.result(), after.result()) == (6, 24) and str(bad.exception()) == "13"
    assert sum(batch.lines for batch in batches) == 6 and sum(batch.failed for batch in batches) == 1


def test_a_thread_loses_nothing_that_many_threads_bring() -> None:
    queue, results = WaitingLines(10**9), dict[int, Any]()
    batches: list[Computed] = []
    thread = ModelThread("twice", queue, 1.0, batches.append)
    thread.start()

    def ask(first: int) -> None:
        tickets = [add(queue, *range(first, first + count), work=Doubling(size=500)) for count in (1, 7, 30)]
        for ticket in tickets:
            results.update(
                (line.item, result.result(30))
                for line, result in zip(ticket.lines, ticket.results, strict=True)
            )

    asking = [threading.Thread(target=ask, args=(first,)) for first in range(20, 420, 20)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    queue.close()
    thread.join()
    assert results == {item: 2 * item for item in range(20, 430)}
    assert sum(batch.lines for batch in batches) == 20 * 38
