"""Files: openers of compressed files, reading of regular files only, and atomic writing."""

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

CHUNK = 1 << 16  # bytes that are decompressed at once


class _Streams(io.RawIOBase):
    """Decompresses the streams of a file, one after the other.

    Unlike `lzma.open` and `bz2.open`, it does not ignore what follows them and is no stream: half a file, or
    text that was appended to it. LZMAError or OSError for that, EOFError for a stream without its end.
    """

    def __init__(self, make: Callable[[], Any], file: IO[bytes]) -> None:
        self._make, self._stream = make, make()
        self.fileobj = file  # as it is called in gzip

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next decompressed bytes; 0 at the end."""
        while True:
            given = b""
            if self._stream.eof:
                given = (self._stream.unused_data or self.fileobj.read(CHUNK)).lstrip(b"\0")  # padding of xz
                if not given and not (given := self.fileobj.read(CHUNK).lstrip(b"\0")):
                    return 0
                self._stream = self._make()
            elif self._stream.needs_input and not (given := self.fileobj.read(CHUNK)):
                raise EOFError("it ends before the end of its compressed data")
            if content := self._stream.decompress(given, len(buffer)):
                buffer[: len(content)] = content
                return len(content)

    def close(self) -> None:
        """Close the file, too."""
        self.fileobj.close()
        super().close()


def _open_streams(make: Callable[[], Any], file: Any, mode: str = "rb") -> Any:
    return io.BufferedReader(_Streams(make, file if hasattr(file, "read") else Path(file).open(mode)), CHUNK)


def _open_gzip(file: Any, mode: str = "rb") -> Any:
    """Open a file. BadGzipFile if it has no bytes, which `gzip.open` takes for an empty text."""
    if not hasattr(file, "read") and Path(file).is_file() and not Path(file).stat().st_size:
        raise gzip.BadGzipFile("it has 0 bytes")
    return gzip.open(file, mode)


# Open a path, or a binary file, for reading bytes; by suffix.
COMPRESSED: dict[str, Callable[..., Any]] = {
    ".gz": _open_gzip,
    ".xz": partial(_open_streams, lzma.LZMADecompressor),
    ".bz2": partial(_open_streams, bz2.BZ2Decompressor),
}
DRAFT = ".unfinished."  # the prefix of the name of a file that is being written


def require_regular(path: Path) -> None:
    """Raise OSError, which names the file, unless it is a regular file: pipes and devices may never end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is a pipe or a device, expected a file", str(path))


def read(path: Path) -> bytes:
    """Return the content of a regular file. OSError names the file."""
    require_regular(path)
    return path.read_bytes()


def write(path: Path, content: bytes | Callable[[Any], object]) -> None:
    """Write a file atomically: under a temporary name in the same folder, which is then renamed.

    If that fails, the file is as before, nothing else is left, and the OSError names the file.

    content: bytes, or a function that writes to an open file.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{DRAFT}{path.name}.")
    except OSError as error:
        raise named(error, path) from error
    file = _Recorder(os.fdopen(handle, "wb", buffering=0))
    try:
        with file.file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            os.fsync(handle)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        cause = file.error or (error if isinstance(error, OSError) else None)
        if cause is None or not isinstance(error, Exception):
            raise
        raise named(cause, path) from error


def append(path: Path, content: bytes) -> None:
    """Append to a regular file. OSError names the file."""
    if path.exists():
        require_regular(path)
    try:
        with path.open("ab", buffering=0) as file:
            _Recorder(file).write(content)
    except OSError as error:
        raise named(error, path) from error


def named(error: OSError, path: Path) -> OSError:
    """Return an error with the name of the file."""
    return OSError(error.errno, error.strerror or str(error), str(path))


class _Recorder:
    """A binary file that keeps the error of a failed write: torch.save reports another one in its place."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write all of the content. OSError if, for example, the disk is full."""
        rest = memoryview(content).cast("B")
        size = len(rest)
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            self.error = error
            raise
        return size

    def flush(self) -> None:
        """Do nothing: the file has no buffer."""
