"""Arrow files in the cache folder: named by what they depend on, written atomically, checked when opened."""

import contextlib
import hashlib
import json
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seq2attn.data.growing_file import JOURNAL, GrowingFile, partial_folder
from seq2attn.data.report import DataError, Report
from seq2attn.runtime.drafts import draft_folder
from seq2attn.runtime.files import named, read, require_regular

if TYPE_CHECKING:
    import datasets
    import pyarrow
    from datasets.arrow_writer import ArrowWriter

BLOCK = 2**20  # bytes that are hashed at a time
LARGE = 2**30  # bytes of a file whose checksum is not waited for, which takes a second or two


class Notes(NamedTuple):
    """What is known of a corpus once it is read."""

    report: Report  # of reading it
    content: str  # hash of what is in it
    details: dict[str, Any]  # JSON: further results of reading it


class Stored(NamedTuple):
    """A corpus in the cache."""

    chunks: list["pyarrow.RecordBatch"]  # memory-mapped
    notes: Notes
    check: "Check | None" = None  # of a large file, whose checksum is computed meanwhile


class Check:
    """Compares the checksum of a large file in a thread, while it is used."""

    def __init__(self, path: Path, checksum: str) -> None:
        self._path, self._checksum, self._fault = path, checksum, False
        self.thread = threading.Thread(target=self._run, name="checksum", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._fault = checksum_of(self._path) != self._checksum
        except OSError:
            self._fault = True
        if self._fault:
            self._path.with_suffix(".json").unlink(missing_ok=True)  # so that it is made again

    def require(self) -> None:
        """Raise DataError if the file is known to be damaged."""
        if self._fault:
            raise DataError(f"{self._path} is damaged: start again, and it is made again from the data")


def stored(
    name: str, columns: Callable[[], "datasets.Features"], write: Callable[["ArrowWriter"], Notes]
) -> Stored:
    """Open the file of this name in the cache folder; if there is none, or it is damaged, write it.

    The folder is $SEQ2ATTN_CACHE, or one in the cache folder of `datasets`. A file is written to a temporary
    folder and then moved, so that it is never incomplete.

    Args:
        name: differs if the content may differ.
        columns: returns the columns of the table.
        write: writes its rows, and returns the notes that are kept with them.

    Raises:
        DataError: there is no cache folder; and those of `write`.
    """
    path = cache_folder() / f"{name}.arrow"
    if (notes := _notes(path)) is not None:
        return _open(path, notes, check=True)
    with _naming(path):
        return _open(path, _write(path, columns(), write))


def grown(name: str, write: Callable[[Path], tuple[GrowingFile, Notes]]) -> Stored:
    """Open the file of this name in the cache folder; if there is none, or it is damaged, write it, or go on
    with what a killed process has written of it. If another process is writing it, wait for it.

    Args:
        name: differs if the content may differ.
        write: writes the file in a folder; returns it, and the notes that are kept with it.

    Raises:
        DataError: there is no cache folder; and those of `write`.
    """
    path = cache_folder() / f"{name}.arrow"
    if (notes := _notes(path)) is not None:
        return _open(path, notes, check=True)
    with _naming(path), partial_folder(path.parent, name) as (folder, waited):
        if not waited or (notes := _notes(path)) is None:
            file, made = write(folder)
            notes = _noted(made, file.finish())
            move(file.path, path)
            _write_notes(notes, folder / JOURNAL, path)
    return _open(path, notes)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Re-raise an OSError that names no file with this one."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise named(error, path) from error


def cache_folder(name: str = "") -> Path:
    """Return the cache folder, or a folder in it; it is made if there is none."""
    import datasets

    cache = Path(os.environ.get("SEQ2ATTN_CACHE") or Path(datasets.config.HF_DATASETS_CACHE) / "seq2attn")
    folder = cache / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be made ({error.strerror}): set SEQ2ATTN_CACHE to a folder"
        ) from error
    return folder


def _notes(path: Path) -> dict[str, Any] | None:
    """Return the notes on a file, which are written last; None, with a warning, if it is damaged.

    The checksum of the file is always computed: its date tells nothing about a disk that forgets. That of a
    large one takes its time, and is computed while the file is used (`Check`).
    """
    notes_path = path.with_suffix(".json")
    if not (path.exists() and notes_path.exists()):
        return None
    try:
        checksum, text = read(notes_path).split(b"\n", 1)
        notes: dict[str, Any] = json.loads(text)
        intact = checksum.decode() == hashlib.sha256(text).hexdigest()
        if intact and (_is_large(path) or notes["checksum"] == checksum_of(path)):
            return notes
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass  # of a damaged file, or one that is none
    warnings.warn(f"{path} is damaged: it is made again from the data", stacklevel=3)
    return None


def _is_large(path: Path) -> bool:
    require_regular(path)
    return path.stat().st_size > LARGE


def checksum_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    require_regular(path)
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum.update(block)
    return checksum.hexdigest()


def _open(path: Path, notes: dict[str, Any], check: bool = False) -> Stored:
    """Open a file; check: compute the checksum of a large one, which `_notes` has not done."""
    import pyarrow

    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
        chunks = [*stream]
    checking = Check(path, notes["checksum"]) if check and _is_large(path) else None
    report = Report.from_dict(notes["report"])
    return Stored(chunks, Notes(report, notes["content"], notes["details"]), checking)


def _write(
    path: Path, columns: "datasets.Features", write: Callable[["ArrowWriter"], Notes]
) -> dict[str, Any]:
    """Write a file and its notes, and return the notes."""
    from datasets.arrow_writer import ArrowWriter

    with draft_folder(path.parent, path.name) as folder:
        draft = folder / path.name
        with ArrowWriter(path=str(draft), features=columns) as writer:
            notes = write(writer)
            writer.finalize()
        values = _noted(notes, checksum_of(draft))
        move(draft, path)
        _write_notes(values, draft, path)
    return values


def _noted(notes: Notes, checksum: str) -> dict[str, Any]:
    """Return notes as JSON, with the checksum of their file."""
    return {**notes._asdict(), "report": notes.report.to_dict(), "checksum": checksum}


def _write_notes(values: dict[str, Any], draft: Path, path: Path) -> None:
    """Write the notes on a file beside it."""
    text = json.dumps(values, indent=1).encode()
    draft.write_bytes(f"{hashlib.sha256(text).hexdigest()}\n".encode() + text)
    move(draft, path.with_suffix(".json"))


def move(draft: Path, path: Path) -> None:
    """Rename a file, also to a name that a folder has taken."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    draft.replace(path)
