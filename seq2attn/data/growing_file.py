"""An Arrow file that is written part by part; after a kill, the finished parts are kept."""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seq2attn.data.report import DataError, UnreachableError
from seq2attn.runtime.drafts import sweep_drafts
from seq2attn.runtime.files import append
from seq2attn.runtime.locks import LockError, locked

if TYPE_CHECKING:
    import pyarrow

PREFIX = ".partial."  # of the names of folders with growing files
KEPT = 7 * 24 * 3600  # seconds for which what a killed process has left is kept
POLL = 0.5  # seconds between two looks at whether another process has ended
JOURNAL = "journal.jsonl"
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream


@contextlib.contextmanager
def partial_folder(parent: Path, name: str) -> Iterator[tuple[Path, bool]]:
    """Yield a folder for a growing file, and whether another process had it in the meantime.

    One process at a time has it; others wait. It is removed at the end of the context; after an error only if
    the file has no part yet, or the data are faulty. So who makes the file again, goes on where it ended.
    """
    folder, lock, waited = parent / f"{PREFIX}{name}", parent / f"{PREFIX}{name}.lock", False
    sweep_drafts(parent)
    _sweep(parent)
    with contextlib.ExitStack() as context:
        while True:
            try:
                context.enter_context(locked(lock, lambda line: None))
                break
            except LockError:
                waited = True
                time.sleep(POLL)
        try:
            yield folder, waited
        except BaseException as error:
            faulty = isinstance(error, DataError) and not isinstance(error, UnreachableError)
            if faulty or not (folder / JOURNAL).exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what killed processes have left, and nobody has gone on with."""
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            times = [file.stat().st_mtime for file in (path, path / JOURNAL) if file.exists()]
            if time.time() - max(times) > KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


class FilePart(NamedTuple):
    """Rows that are written together, and what is to be known of them."""

    batches: Sequence["pyarrow.RecordBatch"]
    notes: dict[str, Any]  # JSON


class GrowingFile:
    """The file `rows.arrow` in a folder, and a journal beside it with the checksum and notes of each part.

    Iterate over `recovered` first: it yields the parts that are there, and drops what follows the last whole
    one. Then append parts with `write`, and end with `finish`.
    """

    def __init__(self, folder: Path, schema: "pyarrow.Schema") -> None:
        folder.mkdir(exist_ok=True)
        self.path, self._journal = folder / "rows.arrow", folder / JOURNAL
        self._schema, self._checksum = schema, hashlib.sha256()

    def recovered(self) -> Iterator[FilePart]:
        """Yield the whole parts of an earlier process."""
        import pyarrow

        head = bytes(self._schema.serialize())
        entries = list(self._entries()) if self.path.exists() else []
        size, lines = len(head), 0
        if entries:
            with self.path.open("rb") as file:
                whole = file.read(len(head)) == head
                for entry in entries if whole else ():
                    content = file.read(entry["size"])
                    if hashlib.sha256(content).hexdigest() != entry["checksum"]:
                        break
                    self._checksum.update(head * (not lines) + content)
                    size, lines = size + entry["size"], lines + 1
                    with pyarrow.ipc.open_stream(head + content + _END) as reader:
                        yield FilePart([*reader], entry["notes"])
        if lines:
            with self.path.open("r+b") as file:
                file.truncate(size)
            kept = self._journal.read_bytes().splitlines(keepends=True)[:lines]
            self._journal.write_bytes(b"".join(kept))
        else:
            self._journal.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            self._append(head)

    def _entries(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the journal, to the first that is damaged."""
        with contextlib.suppress(OSError):
            for line in self._journal.read_bytes().splitlines():
                checksum, _, text = line.partition(b" ")
                if checksum.decode(errors="replace") != hashlib.sha256(text).hexdigest():
                    return
                yield json.loads(text)

    def write(self, part: FilePart) -> None:
        """Append a part. OSError names the file."""
        content = b"".join(bytes(batch.serialize()) for batch in part.batches)
        self._append(content)
        checksum = hashlib.sha256(content).hexdigest()
        entry = {"size": len(content), "checksum": checksum, "notes": part.notes}
        text = json.dumps(entry).encode()
        append(self._journal, f"{hashlib.sha256(text).hexdigest()} ".encode() + text + b"\n")

    def finish(self) -> str:
        """End the file, and return its SHA-256."""
        self._append(_END)
        return self._checksum.hexdigest()

    def _append(self, content: bytes) -> None:
        append(self.path, content)
        self._checksum.update(content)
