"""The command line. Errors that a user can fix are printed as a message without a traceback."""

import sys
import warnings

from seq2attn.cli import cli
from seq2attn.errors import RenamedWarning, Seq2attnError
from seq2attn.runtime.process import settle


def main() -> None:
    """Run the command line."""
    settle()
    warnings.showwarning = _warn
    try:
        cli(prog_name="seq2attn")
    except Seq2attnError as error:
        print(f"seq2attn: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # the disk is full, a file is not readable, ...
        print(f"seq2attn: {error.strerror or error}: {error.filename or 'output'}", file=sys.stderr)
        sys.exit(1)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """Print a warning without the line of code that it came from, which users do not need."""
    if issubclass(category, RenamedWarning) or not issubclass(category, (DeprecationWarning, FutureWarning)):
        print(f"seq2attn: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
