"""Beginnings of results are sent while their batch is computed."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tiny_serving import LIMITS, translator

pytest.importorskip("fastapi")

from seq2attn.serving.beginnings import Added, Beginnings
from seq2attn.serving.counters import Counters
from seq2attn.serving.served_model import ServedModel
from seq2attn.serving.waiting import Line, Work


@dataclass(frozen=True)
class Spelling(Work):
    """Writes texts word by word; it goes on when a word has been read."""

    read: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def budget(self) -> int:
        return 100

    def lines(self, items: Sequence[Any]) -> list[Line]:
        return [Line(item, 1, number) for number, item in enumerate(items)]

    def compute(self, lines: Sequence[Line]) -> list[str]:
        for listen, text, awaited in (line.item for line in lines):
            words = text.split()
            for count in range(1, len(words)):
                listen(" ".join(words[:count]))
                assert not awaited or self.read.acquire(timeout=60)
        return [text for _, text, _ in (line.item for line in lines)]


def streamed(*texts: str) -> list[Any]:
    """What a request gets of texts; the words of the first one before its batch has been computed."""

    async def ask() -> list[Any]:
        beginnings, work, got = Beginnings(len(texts)), Spelling(), list[Any]()
        items = [(beginnings.listener(number), text, number == 0) for number, text in enumerate(texts)]
        ticket = await model.submit(work, items)
        async for one in model.stream(ticket, asyncio.Event().wait, beginnings):  # type: ignore[arg-type]
            got.append(one)
            work.read.release()
        return got

    model = ServedModel("spelling", translator(), LIMITS, Counters())
    model.thread.start()
    try:
        return asyncio.run(ask())
    finally:
        model.waiting.close()
        model.thread.join()


def test_words_come_before_their_result_and_results_in_order() -> None:
    expected = [Added("a"), Added(" big"), Added(" house"), "a big house stands", "here"]
    assert streamed("a big house stands", "here") == expected


def test_a_beginning_is_never_taken_back_and_only_what_is_longer_is_waited_for() -> None:
    async def read() -> None:
        beginnings = Beginnings(2)
        listen = beginnings.listener(1)
        listen("one two")
        assert await beginnings.longer(1, "") == "one two"
        later = beginnings.longer(1, "one two")
        for text in ("one", "one two", "uno dos tres", "one two three"):  # a batch may be computed once more
            listen(text)
        assert await later == "one two three"
        assert not beginnings.longer(0, "").done()

    asyncio.run(read())


def test_a_listener_may_outlive_the_request() -> None:
    async def leave() -> Any:
        return Beginnings(1).listener(0)

    asyncio.run(leave())("nobody waits")
