"""Read lines from files and standard input, and put them together for batches without letting them wait."""

import codecs
import contextlib
import io
import os
import select
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import click

from seq2attn.errors import Seq2attnError

Item = TypeVar("Item")
PATIENCE = 0.1  # seconds that a line waits for others to be computed with
LONGEST = 1 << 24  # bytes of a line, as in data files

FILES = click.argument(
    "files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)


class Pipe:
    """Standard input that is a pipe or a terminal: its lines, and whether the next one is already there."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.ended = descriptor, False
        self.buffer = bytearray()  # what was read and is not a line yet

    @classmethod
    def open(cls, files: tuple[Path, ...]) -> "Pipe | None":
        """Return the pipe that lines come from; None for files, and for standard input that is a file."""
        if len(files) > 1 or (files and str(files[0]) != "-") or sys.stdin is None:
            return None
        try:
            descriptor = sys.stdin.fileno()
        except (io.UnsupportedOperation, ValueError):  # replaced by another object
            return None
        return None if stat.S_ISREG(os.fstat(descriptor).st_mode) else cls(descriptor)

    def __iter__(self) -> Iterator[bytes]:
        while self._has_line(None):
            end = self.buffer.find(b"\n") + 1 or len(self.buffer)
            line = bytes(self.buffer[:end])
            del self.buffer[:end]
            yield line

    def ready(self, deadline: float) -> bool:
        """Return whether there is another line, at the latest at a time of time.monotonic."""
        return self._has_line(deadline)

    @property
    def _is_over(self) -> bool:
        """Whether no more is read for a line: at the end of the input, and of a line that is too long."""
        return self.ended or len(self.buffer) > LONGEST

    def _has_line(self, deadline: float | None) -> bool:
        """Read until there is a line, or a too long one, the input ends or the time is over; return whether
        there is a line."""
        searched = 0
        while (found := self.buffer.find(b"\n", searched)) < 0 and not self._is_over:
            searched = len(self.buffer)
            if deadline is not None:
                left = max(0.0, deadline - time.monotonic())
                if not select.select([self.descriptor], [], [], left)[0]:
                    return False
            content = os.read(self.descriptor, 1 << 16)
            self.buffer += content
            self.ended = not content
        return found >= 0 or bool(self.buffer)


def chunks(items: Iterable[Item], size: int, pipe: Pipe | None) -> Iterator[list[Item]]:
    """Yield items in lists of a size. From a pipe, an item waits at most PATIENCE for those after it."""
    items = iter(items)
    while chunk := list(islice(items, size if pipe is None else 1)):
        deadline = time.monotonic() + PATIENCE
        while pipe is not None and len(chunk) < size and pipe.ready(deadline):
            chunk.extend(islice(items, 1))
        yield chunk


def is_json_lines(file: Path) -> bool:
    """Whether a file has JSONL, by its name."""
    return bool({".jsonl", ".ndjson"} & {suffix.lower() for suffix in file.suffixes})


def lines(files: tuple[Path, ...], pipe: Pipe | None = None) -> Iterator[str]:
    """Yield the lines of files, or of standard input, which may be an open `pipe`. Lines end with a line feed
    only.

    Files may be compressed (.gz, .xz, .bz2). A byte order mark at the start of a file is dropped.

    Raises:
        Seq2attnError: a line is not UTF-8, or has more than LONGEST bytes; or a file is JSONL, whose lines
            are no texts.
    """
    for file in files or (Path("-"),):
        if is_json_lines(file):
            raise Seq2attnError(
                f"{file}: expected one text a line, and this is JSONL, which only `summarize` and `score "
                "--source` read: write its texts to a plain file, for example with jq -r"
            )
        with contextlib.ExitStack() as stack:
            for number, line in enumerate(pipe or _bytes(file, stack), 1):
                name = "standard input" if str(file) == "-" else file
                if len(line) > LONGEST:
                    raise Seq2attnError(
                        f"{name}:{number}: a line of more than {LONGEST:,} bytes: expected texts, one a line"
                    )
                line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                try:
                    yield line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    utf16 = number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
                    byte = (
                        f"the byte {error.object[error.start]:#x} at position {error.start + 1} of the line"
                    )
                    came, encoding = ("UTF-16", "utf-16") if utf16 else (byte, "latin1")
                    raise Seq2attnError(
                        f"{name}:{number}: expected UTF-8, got {came}: convert it, for example with "
                        f"iconv -f {encoding} -t utf-8"
                    ) from error


def _bytes(file: Path, stack: contextlib.ExitStack) -> Iterable[bytes]:
    """Return the lines of a file as bytes, decompressed if its suffix says so; a longer one than LONGEST only
    in part."""
    if file.suffix in (".gz", ".xz", ".bz2"):
        from seq2attn.data.files import lines as decompressed

        return decompressed(file)
    if str(file) == "-" and sys.stdin is None:
        raise Seq2attnError("standard input is closed: give a file, or send texts to it (/dev/null for none)")
    stream = stack.enter_context(click.open_file(str(file), "rb"))
    return iter(lambda: stream.readline(LONGEST + 1), b"")


def own_files(
    images: Sequence[str], folder: Path, endings: Sequence[str], made: str, verb: str
) -> list[list[Path]]:
    """Return the files that are made of each image in a folder: its name, and each ending in the place of its
    suffix. Seq2attnError if two images have one name, or if a file is itself one of the images.

    made, verb: what is made of an image, and by doing what, for the error: masks, segment.
    """
    stems = [Path(image).stem for image in images]
    stem, count = Counter(stems).most_common(1)[0]
    if count > 1:
        raise Seq2attnError(
            f"{count} images are called {stem}, and their {made} would have one name: {verb} them into "
            "several folders"
        )
    files = [[folder / f"{stem}{ending}" for ending in endings] for stem in stems]
    refuse_inputs([file for own in files for file in own], images)
    return files


def refuse_inputs(files: Iterable[Path], inputs: Iterable[str]) -> None:
    """Seq2attnError if a file that is to be written is one of the inputs, which would be lost."""
    read = {name for given in inputs for name in _identity(Path(given))}
    for file in files:
        if not read.isdisjoint(_identity(file)):
            raise Seq2attnError(f"{file} is an input, and would be overwritten: choose another output")


def _identity(file: Path) -> list[object]:
    """Return what two paths of the same file have in common; nothing if there is no such file."""
    try:
        status = file.stat()
    except (OSError, ValueError):  # a text is no path
        return []
    return [(status.st_dev, status.st_ino)]
