"""The command line. Errors that a user can fix are printed as a message without a traceback."""

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from types import FrameType

# All else is imported within `main`, where Ctrl-C has an answer: it takes a while.
from seq2attn.errors import RenamedWarning, Seq2attnError

INTERRUPTED = 130  # the exit status of a program that Ctrl-C ends, 128 + SIGINT


def main() -> None:
    """Run the command line."""
    with _interrupts() as received:
        try:
            sys.exit(_run())
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except Exception:
            # A library that was interrupted while it was imported may catch that, and fail later.
            if received:
                sys.exit(INTERRUPTED)
            raise


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Record Ctrl-C, besides raising KeyboardInterrupt. Nothing if a caller handles or ignores it."""
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.default_int_handler:
        yield received
        return
    with contextlib.suppress(ValueError):  # outside the main thread handlers cannot be set
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield received
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, previous)


def _run() -> int:
    """Run a command; return its exit status."""
    import click

    from seq2attn.cli import cli
    from seq2attn.runtime.process import leave_to_first, settle

    settle()
    warnings.showwarning = _warn
    try:
        _open_streams()
        code = cli.main(prog_name="seq2attn", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        leave_to_first()
        error.show()
        return error.exit_code
    except Seq2attnError as error:
        message = str(error)
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        message = (
            f"standard output has the encoding {error.encoding}, which has no {character!r} "
            f"(U+{ord(character):04X}): set the environment variable PYTHONIOENCODING=utf-8"
        )
    except OSError as error:  # the disk is full, a file is not readable, ...
        message = f"{error.strerror or error}: {error.filename or 'output'}"
    except Exception as error:
        from seq2attn.recipe.plugins import explained
        from seq2attn.runtime.devices import out_of_memory

        memory = "out of memory: give shorter texts or smaller images, or fewer at once"
        known = memory if out_of_memory(error) else explained(error)
        if known is None:
            raise
        message = known
    leave_to_first()
    rank = os.environ.get("RANK", "0")  # of the process, among those that torchrun has started
    print(f"seq2attn: {f'process {rank}: ' if rank != '0' else ''}{message}", file=sys.stderr)
    return 1


def _open_streams() -> None:
    """Drop what is written to a closed standard error, so that it is not among the results. Seq2attnError if
    standard output is closed. Commands that read a closed standard input, which is None, raise one, too."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)  # so that no file gets its descriptor, 0
    if sys.stdout is None:
        raise Seq2attnError("standard output is closed: send it to a file, or to /dev/null")


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
        with contextlib.suppress(BrokenPipeError):  # nobody reads warnings: the command goes on
            print(f"seq2attn: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
