"""Errors of plugins' classes: the user's own code, which may raise anything."""

import contextlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from seq2attn.errors import Seq2attnError
from seq2attn.runtime.devices import out_of_memory


@contextlib.contextmanager
def blaming(part: Any) -> Iterator[None]:
    """Re-raise an error as a Seq2attnError of one line, with the class of a plugin, its file and the line.

    Errors of seq2attn's own classes, and memory that ran out, are raised as they are.
    """
    try:
        yield
    except Seq2attnError:
        raise
    except Exception as error:  # it is the user's code
        if part.__module__.startswith("seq2attn.") or out_of_memory(error):
            raise
        raise Seq2attnError(f"{part.__name__}: {_located(error, part)}") from error


def _located(error: Exception, part: type) -> str:
    """Return an error as one line, which begins with the last line of the class's file that was called."""
    message = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    file = inspect.getfile(sys.modules[part.__module__]) if part.__module__ in sys.modules else None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {message}" if frames else message
