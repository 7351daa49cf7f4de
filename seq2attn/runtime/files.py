"""Files: openers of compressed files, and atomic writing."""

import bz2
import gzip
import lzma
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
DRAFT = ".unfinished."  # the prefix of the name of a file that is being written


def write(path: Path, content: bytes | Callable[[Any], object]) -> None:
    """Write a file atomically: under a temporary name in the same folder, which is then renamed.

    content: bytes, or a function that writes to an open file.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{DRAFT}{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
