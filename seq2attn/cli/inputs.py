"""Read lines from files and standard input."""

import codecs
import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from seq2attn.errors import Seq2attnError

FILES = click.argument(
    "files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)


def lines(files: tuple[Path, ...]) -> Iterator[str]:
    """Yield the lines of files, or of standard input. Lines end with a line feed only.

    Files may be compressed (.gz, .xz, .bz2). A byte order mark at the start of a file is dropped.
    """
    for file in files or (Path("-"),):
        with contextlib.ExitStack() as stack:
            for number, line in enumerate(_bytes(file, stack), 1):
                line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                try:
                    yield line.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    name = "standard input" if str(file) == "-" else file
                    raise Seq2attnError(
                        f"{name}:{number}: expected UTF-8, got the byte {error.object[error.start]:#x} "
                        f"at position {error.start + 1} of the line"
                    ) from error


def _bytes(file: Path, stack: contextlib.ExitStack) -> Iterable[bytes]:
    """Return the lines of a file as bytes, decompressed if its suffix says so."""
    if file.suffix in (".gz", ".xz", ".bz2"):
        from seq2attn.data.files import lines as decompressed

        return decompressed(file)
    return stack.enter_context(click.open_file(str(file), "rb"))
