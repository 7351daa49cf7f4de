"""Temporary folders in which something is made before it is moved to its place."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from seq2attn.runtime.files import DRAFT
from seq2attn.runtime.locks import abandoned, locked

LOCK = ".lock"  # names the process that makes the draft, and is held while it does


def sweep_drafts(parent: Path) -> None:
    """Remove the drafts that killed processes have left in a folder."""
    for lock in parent.glob(f"{DRAFT}*/{LOCK}"):
        if abandoned(lock):
            shutil.rmtree(lock.parent, ignore_errors=True)


@contextlib.contextmanager
def draft_folder(parent: Path, name: str) -> Iterator[Path]:
    """Make a temporary folder for what becomes `name`, and remove it at the end of the context.

    First those are removed that killed processes have left in `parent`, and no others: a draft is locked by
    the process that makes it.
    """
    sweep_drafts(parent)
    draft = Path(tempfile.mkdtemp(dir=parent, prefix=f"{DRAFT}{name}."))
    try:
        with locked(draft / LOCK, lambda line: None):
            yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
