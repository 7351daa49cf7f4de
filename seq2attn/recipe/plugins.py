"""Parts that others bring along, in modules that add to SCORERS, NORMALIZERS or POSITIONS.

A module of one's own is named on the command line (--import, SEQ2ATTN_IMPORT); a package names its module:

    [project.entry-points."seq2attn"]
    my_scorers = "my_package.scorers"
"""

import traceback
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from seq2attn.errors import Seq2attnError

GROUP = "seq2attn"


@cache  # a module is imported once, however many recipes are read
def load_plugins() -> tuple[EntryPoint, ...]:
    """Import the modules that installed packages name, so that recipes may use their parts.

    Raises Seq2attnError, with the package's name, where one cannot be imported.
    """
    found = tuple(entry_points(group=GROUP))
    for point in found:
        try:
            point.load()
        except Exception as error:  # of another's code, whatever it raises
            package = point.dist.name if point.dist else point.value
            raise Seq2attnError(
                f"the package {package} brings parts for seq2attn in {point.value}, which cannot be imported "
                f"({_told(error)}): mend or uninstall it"
            ) from error
    return found


def import_parts(module: str) -> None:
    """Import a module that a user has named, so that recipes may use its parts.

    Raises Seq2attnError for a file in the place of a module's name, and, in one line with the place, for
    whatever the module raises.
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
    except Exception as error:  # of the user's own code, whatever it raises
        raise Seq2attnError(f"--import {module}: {_told(error)}") from error


def _told(error: Exception) -> str:
    """What is wrong in a module, in one line that begins with the file and the line, where that is known."""
    said = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    files = [frame.filename for frame in frames if frame.name == "<module>"]
    if not files:  # it was not even begun
        looked = "; looked for here, on PYTHONPATH and among what is installed"
        return said.partition(": ")[2] + looked if isinstance(error, ModuleNotFoundError) else said
    last = [frame for frame in frames if frame.filename == files[-1]][-1]
    return f"{last.filename}:{last.lineno}: {said}"
