"""The base class of errors that a user can fix. Messages say what was expected, what came, and what to do."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_at_command_line = ContextVar("at_command_line", default=False)


class Seq2attnError(ValueError):
    """Base class of errors that a user can fix; the command line prints them without a traceback."""


class NotDefinedError(Seq2attnError, NotImplementedError):
    """A class lacks a method that it must define."""


def require_type(value: object, kinds: type | tuple[type, ...], expected: str) -> None:
    """Raise Seq2attnError unless a value is of these kinds; `expected` says in words what is."""
    if not isinstance(value, kinds):
        raise Seq2attnError(f"expected {expected}, got {value!r:.60}")


def first_line(error: Exception) -> str:
    """Return the first line of what an error of another library says. Those after it are often its advice,
    which is for programmers, and may be dangerous."""
    return "".join(str(error).strip().splitlines()[:1])


@contextlib.contextmanager
def speaking_to_command_line() -> Iterator[None]:
    """Let messages name options of the command line until the end of the context, and not arguments."""
    token = _at_command_line.set(True)
    try:
        yield
    finally:
        _at_command_line.reset(token)


def for_caller(command_line: str, python: str) -> str:
    """Return the words of a message for who reads it: at the command line, or in Python.

    What an error tells to do must be possible there: `--resume`, or `resume=True`.
    """
    return command_line if _at_command_line.get() else python


def with_article(name: str) -> str:
    """Return the name of a class behind a or an."""
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


class RenamedWarning(FutureWarning):
    """A user's code has a name that was renamed. It is shown by default, unlike a DeprecationWarning."""


class LengthWarning(UserWarning):
    """An output has the largest length that decoding allows, and may be cut."""
