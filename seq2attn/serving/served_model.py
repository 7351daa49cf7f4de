"""A model that is served: what waits for it, and the thread that computes it."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from seq2attn.inference.engines.registry import TORCH
from seq2attn.inference.predictor import Predictor
from seq2attn.inference.translator import TextPredictor
from seq2attn.serving.beginnings import Added, Beginnings
from seq2attn.serving.counters import Counters
from seq2attn.serving.limits import Limits
from seq2attn.serving.model_thread import ModelThread
from seq2attn.serving.pairs import Pair
from seq2attn.serving.refusals import INVALID, LEFT, UNAVAILABLE, RefusedError, refused
from seq2attn.serving.waiting import Line, Ticket, WaitingLines, Work

_LONGEST_RETRY = 60  # seconds
_FEW = 8  # lines that are measured at once; more of them in another thread
P = TypeVar("P", bound=Predictor, covariant=True)


class ServedModel(Generic[P]):
    """A predictor with a queue and a thread of its own.

    Args:
        name: by which clients ask for it.
        predictor: of any task.
        limits: of the server.
        counters: where its batches are counted.
        checksum: of its weights.
        pairs: the languages that it translates, if it does.
    """

    def __init__(
        self,
        name: str,
        predictor: P,
        limits: Limits,
        counters: Counters,
        checksum: str = "",
        pairs: Sequence[Pair] = (),
    ) -> None:
        self.name, self.predictor, self.limits = name, predictor, limits
        self.checksum, self.pairs = checksum, pairs
        self.waiting = WaitingLines(limits.waiting)
        self.thread = ModelThread(
            name, self.waiting, limits.batch_seconds, lambda computed: counters.batch(name, computed)
        )

    def fits(self, name: str | None, source: str | None, target: str | None) -> bool:
        """Whether it has this name, and these languages; None is any."""
        return name in (None, self.name) and (
            source is target is None or any(pair.fits(source, target) for pair in self.pairs)
        )

    def tags(self, source: str | None, target: str | None) -> dict[str, str]:
        """Return the tags of texts of these languages, with the targets that they name; none if no language
        is given."""
        if source is target is None:
            return {}
        return {pair.tag: pair.target for pair in self.pairs if pair.tag and pair.fits(source, target)}

    def tag(self, source: str | None, target: str | None) -> str | None:
        """Return the tag of texts of these languages; None if they have none, or no language is given.

        RefusedError if it depends on the language that is not given.
        """
        tags = self.tags(source, target)
        if len({*tags.values()}) > 1:
            raise RefusedError(INVALID, f"expected target, one of {', '.join(sorted(tags.values()))}")
        return next(iter(tags), None)

    @property
    def aligns(self) -> bool:
        """Whether its texts have alignments: it writes them from texts, with attention."""
        return isinstance(self.predictor, TextPredictor) and bool(
            self.predictor.model.decoder.attention_layers
        )

    @property
    def engine(self) -> str:
        """The name of the program that searches, or else computes."""
        engine = getattr(getattr(self.predictor, "generator", None), "engine", None)
        return TORCH if engine is None else str(engine.name)

    @property
    def retry_after(self) -> int:
        """The seconds after which what waits is computed, as far as the speed of the last batches tells."""
        speed = self.thread.weight_per_second
        return min(_LONGEST_RETRY, max(1, math.ceil(self.waiting.weight / speed))) if speed else 1

    async def submit(self, work: Work, items: Sequence[Any], whole: bool = False) -> Ticket:
        """Let items wait. RefusedError if they are bad, or too many wait.

        whole: refuse items of which the model reads the beginning only.
        """
        try:
            few = len(items) <= _FEW
            lines: list[Line] = work.lines(items) if few else await asyncio.to_thread(work.lines, items)
            if whole and (cut := [line.number for line in lines if line.cut]):
                raise RefusedError(
                    INVALID, f"text {cut[0]} is longer than the model reads: split it, or let it be cut"
                )
            return self.waiting.add(work, lines)
        except Exception as error:
            raise refused(error, self.retry_after) from error

    async def results(self, ticket: Ticket, left: Callable[[], Awaitable[None]]) -> list[Any]:
        """Return the results of a ticket in their order.

        left: returns when the client has left. RefusedError if it has, if the ticket was not begun in time,
        or if a line failed; then no more of its lines are computed.
        """
        return [result async for result in self.stream(ticket, left)]

    async def stream(
        self, ticket: Ticket, left: Callable[[], Awaitable[None]], beginnings: Beginnings | None = None
    ) -> AsyncIterator[Any]:
        """Yield the results of a ticket in their order, each as soon as it is there; see `results`.

        beginnings: of the results; before a result, yield what is `Added` to its beginning.
        """
        leaving = asyncio.ensure_future(left())
        overdue = asyncio.get_running_loop().time() + self.limits.timeout
        try:
            for number, result in enumerate(ticket.results):
                waited, text = {asyncio.wrap_future(result)}, ""
                while not result.done():
                    more = [] if beginnings is None else [beginnings.longer(number, text)]
                    await self._first({*waited, *more}, leaving, ticket, overdue)
                    if more and more[0].done() and not result.done():
                        yield Added(more[0].result()[len(text) :])
                        text = more[0].result()
                try:
                    yield result.result()
                except Exception as error:
                    raise refused(error, self.retry_after) from error
        finally:
            leaving.cancel()
            self.waiting.discard(ticket)

    async def _first(
        self,
        results: "set[asyncio.Future[Any]]",
        leaving: "asyncio.Future[None]",
        ticket: Ticket,
        overdue: float,
    ) -> None:
        """Wait for the first of some results. RefusedError if the client leaves, or the ticket is overdue,
        before that."""
        while not any(result.done() for result in results):
            left = None if ticket.begun else max(0.0, overdue - asyncio.get_running_loop().time())
            await asyncio.wait({*results, leaving}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if any(result.done() for result in results):
                return
            if leaving.done():
                raise RefusedError(LEFT, "the client has left")
            if left == 0.0 and self.waiting.withdraw(ticket):
                seconds = f"{self.limits.timeout:g} seconds"
                raise RefusedError(
                    UNAVAILABLE, f"nothing of this was begun within {seconds}", self.retry_after
                )
