"""Arrow files in the cache folder: named by what they depend on, written atomically, checked when opened."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seq2attn.data.report import DataError, Report
from seq2attn.runtime.drafts import draft_folder
from seq2attn.runtime.files import named, read, require_regular

if TYPE_CHECKING:
    import datasets
    import pyarrow
    from datasets.arrow_writer import ArrowWriter

BLOCK = 2**20  # bytes that are hashed at a time


class Notes(NamedTuple):
    """What is known of a corpus once it is read."""

    report: Report  # of reading it
    content: str  # hash of what is in it
    details: dict[str, Any]  # JSON: further results of reading it


class Stored(NamedTuple):
    """A corpus in the cache."""

    chunks: list["pyarrow.RecordBatch"]  # memory-mapped
    notes: Notes


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
    if (notes := _notes(path)) is None:
        try:
            notes = _write(path, columns(), write)
        except OSError as error:
            if error.filename is not None:
                raise
            raise named(error, path) from error
    return _open(path, notes)


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

    The checksum of the file is always computed: its date tells nothing about a disk that forgets.
    """
    notes_path = path.with_suffix(".json")
    if not (path.exists() and notes_path.exists()):
        return None
    try:
        checksum, text = read(notes_path).split(b"\n", 1)
        notes: dict[str, Any] = json.loads(text)
        if checksum.decode() == hashlib.sha256(text).hexdigest() and notes["checksum"] == checksum_of(path):
            return notes
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass  # of a damaged file, or one that is none
    warnings.warn(f"{path} is damaged: it is made again from the data", stacklevel=3)
    return None


def checksum_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    require_regular(path)
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum.update(block)
    return checksum.hexdigest()


def _open(path: Path, notes: dict[str, Any]) -> Stored:
    import datasets

    table = datasets.Dataset.from_file(str(path)).with_format("arrow")[:]
    report = Report.from_dict(notes["report"])
    return Stored(table.to_batches(), Notes(report, notes["content"], notes["details"]))


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
        values = {**notes._asdict(), "report": notes.report.to_dict(), "checksum": checksum_of(draft)}
        move(draft, path)
        text = json.dumps(values, indent=1).encode()
        draft.write_bytes(f"{hashlib.sha256(text).hexdigest()}\n".encode() + text)
        move(draft, path.with_suffix(".json"))
    return values


def move(draft: Path, path: Path) -> None:
    """Rename a file, also to a name that a folder has taken."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    draft.replace(path)
