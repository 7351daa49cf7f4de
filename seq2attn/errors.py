"""The base class of errors that a user can fix. Messages say what was expected, what came, and what to do."""


class Seq2attnError(ValueError):
    """Base class of errors that a user can fix; the command line prints them without a traceback."""


class NotDefinedError(Seq2attnError, NotImplementedError):
    """A class lacks a method that it must define."""


def require_type(value: object, kinds: type | tuple[type, ...], expected: str) -> None:
    """Raise Seq2attnError unless a value is of these kinds; `expected` says in words what is."""
    if not isinstance(value, kinds):
        raise Seq2attnError(f"expected {expected}, got {value!r:.60}")


def with_article(name: str) -> str:
    """Return the name of a class behind a or an."""
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


class RenamedWarning(FutureWarning):
    """A user's code has a name that was renamed. It is shown by default, unlike a DeprecationWarning."""


class LengthWarning(UserWarning):
    """An output has the largest length that decoding allows, and may be cut."""
