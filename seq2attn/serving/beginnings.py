"""The beginnings of texts that are being written: a model's thread tells them, and a request sends them."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple


class Added(NamedTuple):
    """Words that were added to the beginning of a result."""

    text: str


class Beginnings:
    """The beginnings of the results of a request. It belongs to the event loop that makes it.

    Args:
        count: the number of results.
    """

    def __init__(self, count: int) -> None:
        self._loop, self._texts = asyncio.get_running_loop(), [""] * count
        self._wanted = (0, "", self._loop.create_future())

    def listener(self, number: int) -> Callable[[str], None]:
        """Return what takes the beginnings of a result, in any thread."""

        def listen(text: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(self._take, number, text)

        return listen

    def longer(self, number: int, text: str) -> "asyncio.Future[str]":
        """Return the beginning of a result as soon as it is longer than this text. Only one is waited for."""
        self._wanted = number, text, self._loop.create_future()
        self._answer()
        return self._wanted[2]

    def _take(self, number: int, text: str) -> None:
        if text.startswith(self._texts[number]):  # not if a batch that has failed is computed once more
            self._texts[number] = text
            self._answer()

    def _answer(self) -> None:
        number, text, future = self._wanted
        if len(self._texts[number]) > len(text) and not future.done():
            future.set_result(self._texts[number])
