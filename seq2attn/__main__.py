"""python -m seq2attn: the command line, where what a user can mend is one message and no traceback."""

import sys
import warnings

from seq2attn.cli import cli
from seq2attn.errors import Seq2attnError
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
    except OSError as error:  # the disk is full, a file may not be read, ...
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
    """Warnings are for who reads the terminal, who need not know which line of code gave them."""
    if not issubclass(category, (DeprecationWarning, FutureWarning)):
        print(f"seq2attn: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
