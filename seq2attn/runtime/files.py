"""Files that are there whole or not at all, whenever the writer is killed."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

DRAFT = ".unfinished."  # begins the name of a file that is being written


def write(path: Path, content: bytes | Callable[[Any], object]) -> None:
    """Write beside the place and rename, so that the file is never half there."""
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
