"""Locks: one process at a time writes to a folder."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seq2attn.errors import Seq2attnError
from seq2attn.runtime.files import named, require_regular

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

MAX_CONTENT = 4096  # bytes of a lock that are read


class LockError(Seq2attnError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(path: Path, note: Callable[[str], object]) -> Iterator[None]:
    """Hold a lock file until the end of the context; it names the host, the process and the time.

    The lock is the operating system's, so that it ends with the process; a file that a killed process left is
    taken over, and `note` is called with a line that says so. Where the file system has no locks, the content
    of the file decides: a process on this host that is gone has lost its lock, one on another host has not.

    Raises LockError if another process, or another thread, holds the lock.
    """
    handle = _open(path)
    try:
        if owner := _read(handle):
            note(f"{path} was left by {owner}, which does not hold it any more: taken over")
        content = {"host": socket.gethostname(), "process": os.getpid(), "since": _now()}
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{json.dumps(content)}\n".encode(), 0)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise named(error, path) from error
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                # Where the folder was removed in the meantime, another process may have made it anew.
                if os.path.samestat(os.fstat(handle), path.stat()):
                    path.unlink()
    finally:
        os.close(handle)


def abandoned(path: Path) -> bool:
    """Return whether a lock file names a process that does not hold it any more: it was killed."""
    try:
        require_regular(path)
        handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return False
    try:
        if _read(handle) is None:  # its process is about to lock it
            return False
        _lock(handle, path)
    except LockError:
        return False
    finally:
        os.close(handle)
    return True


def _open(path: Path) -> int:
    """Return a handle of the file that has the lock. LockError if another process has it."""
    while True:
        try:
            require_regular(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise LockError(
                f"{path} is not a file ({error.strerror}), and the lock has to be there: delete it"
            ) from error
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            _lock(handle, path)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its owner removed the file between our opening and our locking it: again


def _lock(handle: int, path: Path) -> None:
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(handle) or "another process"
            raise LockError(
                f"{path.parent} is being written to by {holder}: wait until it ends, or use another folder"
            ) from None
        except OSError:  # a file system without locks
            pass
        else:
            return
    owner = _read(handle)
    if owner is not None and not owner.gone:
        raise LockError(
            f"{path.parent} is being written to by {owner}: wait until it ends, or use another folder. "
            f"If that process is gone, delete {path}"
        )


class _Owner:
    """The process that a lock file names."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.host, self.process, self.since = (content.get(key) for key in ("host", "process", "since"))

    @property
    def gone(self) -> bool:
        """Whether the process is known to have ended: it was on this host."""
        if self.host != socket.gethostname() or not isinstance(self.process, int) or os.name != "posix":
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} (since {self.since})"


def _read(handle: int) -> _Owner | None:
    """Return the owner that a lock file names; None if it is empty or names none."""
    try:
        content = json.loads(os.pread(handle, MAX_CONTENT, 0))
    except (ValueError, RecursionError):
        return None
    return _Owner(content) if isinstance(content, dict) else None


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")
