"""Encode texts in several processes.

A process is a new interpreter: it is not forked, since locks of the program's threads would be copied as they
are, and it does not import the program's main module, which a script without `if __name__ == "__main__"`
would run again. It reads texts from its standard input and writes their ids to its standard output until
the input ends, which it also does when the program is killed.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from seq2attn.errors import Seq2attnError
from seq2attn.text.given_ids import Numbering
from seq2attn.text.vocabulary import Vocabulary

T = TypeVar("T")
Texts = tuple[Sequence[str], ...]  # of each side

ALONE = 30  # units that are encoded in this process before others are started, which takes half a second
AHEAD = 2  # units for each process that are read before they are needed
# What a process runs; it has the program's own path of modules.
_COMMAND = (
    "import sys; sys.path[:] = sys.argv[1:]; from seq2attn.text.encoding_processes import serve; serve()"
)


class Ids(NamedTuple):
    """The ids of texts, one text after the other."""

    offsets: NDArray[np.int32]  # (N + 1,): text n has the values from offsets[n] to offsets[n + 1]
    values: NDArray[np.int32]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ids":
        """Put the ids of texts together."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int32)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(offsets, np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1])))

    @property
    def lengths(self) -> NDArray[np.int32]:
        """The number of ids of each text."""
        return np.diff(self.offsets)

    def rows(self) -> list[NDArray[np.int32]]:
        """Return the ids of each text."""
        return np.split(self.values, self.offsets[1:-1])


class Encoder(Protocol):
    """Turns texts into ids."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text."""


class EncodingError(Seq2attnError):
    """A process that encodes texts has ended."""


def encoded(
    units: Iterable[T], texts: Callable[[T], Texts], encoders: Sequence[Encoder], workers: int
) -> Generator[tuple[T, list[Ids]], None, None]:
    """Yield each unit with the ids of its texts, in order; the result does not depend on `workers`.

    Args:
        units: are read a few in advance.
        texts: returns the texts of a unit on each side.
        encoders: one for each side. Only vocabularies of pieces are encoded in several processes.
        workers: the number of processes. They start if there are more than ALONE units.

    Raises:
        EncodingError: one of them has ended.
    """
    units = iter(units)
    vocabularies = [encoder for encoder in encoders if type(encoder) is Vocabulary]
    several = workers > 1 and len(vocabularies) == len(encoders)
    for unit in islice(units, ALONE) if several else units:
        sides = zip(encoders, texts(unit), strict=True)
        yield unit, [Ids.of(encoder.encode(side)) for encoder, side in sides]
    first = next(units, None)
    if first is not None:
        with _processes(vocabularies, workers) as ask:
            yield from _in_order(chain([first], units), lambda unit: ask(texts(unit)), workers)


def _in_order(
    units: Iterator[T], work: Callable[[T], list[Ids]], workers: int
) -> Iterator[tuple[T, list[Ids]]]:
    """Yield units with what `work` returns in threads, of which each waits for a process."""
    pending = deque[tuple[T, Future[list[Ids]]]]()
    pool = ThreadPoolExecutor(workers, "encoding")
    try:
        for unit in units:
            pending.append((unit, pool.submit(work, unit)))
            if len(pending) > AHEAD * workers:
                ready, result = pending.popleft()
                yield ready, result.result()
        while pending:
            ready, result = pending.popleft()
            yield ready, result.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _processes(vocabularies: Sequence[Vocabulary], count: int) -> Iterator[Callable[[Texts], list[Ids]]]:
    """Start processes; yield a function that encodes texts in one that is free."""
    with contextlib.ExitStack() as started:
        free = SimpleQueue[_Process]()
        for _ in range(count):
            free.put(started.enter_context(_Process(vocabularies)))

        def ask(texts: Texts) -> list[Ids]:
            process = free.get()
            try:
                return process.encode(texts)
            finally:
                free.put(process)

        yield ask


class _Process:
    """One process, for one thread at a time."""

    def __init__(self, vocabularies: Sequence[Vocabulary]) -> None:
        command = [sys.executable, "-c", _COMMAND, *map(str, sys.path)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0)
        if self._process.stdin is None or self._process.stdout is None:
            raise EncodingError("a process has no pipes")
        self._to = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._from = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        with self._alive():
            self._to.send_bytes(_packed([vocabulary.model for vocabulary in vocabularies]))
            numberings = [vocabulary.numbering or Numbering() for vocabulary in vocabularies]
            self._to.send_bytes(_packed([numbering.identity().encode() for numbering in numberings]))

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *error: object) -> None:
        self._to.close()  # ends the process, unless it is at work
        self._from.close()
        if error[0] is not None:
            self._process.kill()
        self._process.wait()

    def encode(self, texts: Texts) -> list[Ids]:
        """Return the ids of the texts of each side."""
        with self._alive():
            for side in texts:
                self._to.send_bytes(_packed([text.encode() for text in side]))
            answers = [self._from.recv_bytes() for _ in range(2 * len(texts))]
        arrays = [np.frombuffer(answer, np.int32) for answer in answers]
        return [Ids(offsets, values) for offsets, values in zip(arrays[::2], arrays[1::2], strict=True)]

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """Say how the process has ended, if it has."""
        try:
            yield
        except (EOFError, BrokenPipeError, ConnectionError) as error:
            status = self._process.wait()
            raise EncodingError(
                f"a process that encodes texts has ended (exit status {status}); -9 is often a lack of "
                "memory: lower data.workers"
            ) from error


def serve() -> None:
    """Encode what comes from standard input until it ends. This is all that the processes do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, whose end closes the pipe
    texts, ids = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # nothing else may write to the pipe
    with contextlib.suppress(EOFError, BrokenPipeError):
        models, numberings = _unpacked(texts.recv_bytes()), _unpacked(texts.recv_bytes())
        vocabularies = [
            Vocabulary(model, numbering=Numbering.of_identity(numbering.decode()))
            for model, numbering in zip(models, numberings, strict=True)
        ]
        while True:
            sides = [_unpacked(texts.recv_bytes()) for _ in vocabularies]
            for vocabulary, side in zip(vocabularies, sides, strict=True):
                encoded = Ids.of(vocabulary.encode([text.decode() for text in side], threads=1))
                ids.send_bytes(encoded.offsets.tobytes())
                ids.send_bytes(encoded.values.tobytes())


def _packed(contents: Sequence[bytes]) -> bytes:
    """Put bytes together: their number, the size of each, and the bytes."""
    sizes = np.array([len(contents), *map(len, contents)], dtype=np.int64)
    return b"".join([sizes.tobytes(), *contents])


def _unpacked(content: bytes) -> list[bytes]:
    """Return the bytes that `_packed` has put together."""
    count = int(np.frombuffer(content, np.int64, 1)[0])
    ends = (8 * (count + 1) + np.cumsum(np.frombuffer(content, np.int64, count + 1)[1:])).tolist()
    begins = [8 * (count + 1), *ends]
    return [content[begin:end] for begin, end in zip(begins, ends, strict=False)]
