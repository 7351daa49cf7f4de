"""Plugins: modules that add parts to registries such as SCORERS, NORMALIZERS, POSITIONS or METRICS.

A module is named on the command line (--import, SEQ2ATTN_IMPORT), or by an installed package:

    [project.entry-points."seq2attn"]
    my_scorers = "my_package.scorers"
"""

import os
import traceback
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from seq2attn.errors import Seq2attnError

GROUP = "seq2attn"


@cache  # modules are imported once, however many recipes are read
def load_plugins() -> tuple[EntryPoint, ...]:
    """Import the modules that installed packages name, so that recipes may use their parts.

    Raises Seq2attnError, with the package's name, where one cannot be imported.
    """
    points = tuple(entry_points(group=GROUP))
    for point in points:
        try:
            point.load()
        except Exception as error:  # it is the package's code, which may raise anything
            package = point.dist.name if point.dist else point.value
            raise Seq2attnError(
                f"the package {package} has parts for seq2attn in {point.value}, which cannot be imported "
                f"({_located(error)}): fix or uninstall it"
            ) from error
    return points


def import_parts(module: str) -> None:
    """Import a module that a user has named, so that recipes may use its parts.

    Raises Seq2attnError if it is a file and not the name of a module, and for anything that the module
    raises; the message then has one line, with the file and the line number.
    """
    file = Path(module)
    if file.suffix == ".py" or {"/", "\\"} & {*module}:
        beside = file.parent == Path()
        raise Seq2attnError(
            f"--import {module}: expected the name of a module, as Python imports it, not a file: give "
            f"--import {file.stem}{'' if beside else f', and put {file.parent} on PYTHONPATH'}"
        )
    try:
        import_module(module)
    except Exception as error:  # it is the user's code, which may raise anything
        raise Seq2attnError(f"--import {module}: {_located(error)}") from error


def explained(error: Exception) -> str | None:
    """Return an error that the code of a plugin has raised, or a library that it has called, as one line with
    its file and line number. None for the errors of seq2attn itself."""
    named = [*os.environ.get("SEQ2ATTN_IMPORT", "").split(), *(p.value for p in entry_points(group=GROUP))]
    packages = {name.partition(".")[0].partition(":")[0] for name in named}
    for frame, line in reversed([*traceback.walk_tb(error.__traceback__)]):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package == "seq2attn":
            return None
        if package in packages:
            return f"{frame.f_code.co_filename}:{line}: {_message(error)}"
    return None


def _message(error: Exception) -> str:
    kind = [] if isinstance(error, Seq2attnError) else [type(error).__name__]
    return ": ".join([*kind, *str(error).strip().splitlines()[:1]])


def _located(error: Exception) -> str:
    """Return an import error as one line, which begins with file and line number if they are known."""
    message = _message(error)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    files = [frame.filename for frame in frames if frame.name == "<module>"]
    if not files:  # the module itself was not found or cannot be read
        searched = "; searched here, on PYTHONPATH and in the installed packages"
        return message.partition(": ")[2] + searched if isinstance(error, ModuleNotFoundError) else message
    last = [frame for frame in frames if frame.filename == files[-1]][-1]
    return f"{last.filename}:{last.lineno}: {message}"
